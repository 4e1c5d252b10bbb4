"""A function that stands between two jobs; not in the module of its tests, since pytest would look at it, and so finish an application."""

from celery import current_app, shared_task


@shared_task(name="passing")
def passing(report: int) -> int:
    """Send a job, and pass a number on."""
    current_app.send_task("test_permission_at_run.Read", kwargs={"report": 10 * report})
    return report
