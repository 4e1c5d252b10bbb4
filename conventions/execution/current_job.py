"""What runs in this thread just now: whose actor its messages inherit, and whether its job has ended."""

from conventions.broker.header_names import ACTOR
from conventions.core.actor import SYSTEM, current_actor
from conventions.library_internals.celery import current_task


def step_follows() -> bool:
    """Whether the job of this thread has ended, so that what is sent now are its callbacks."""
    task = current_task()
    job = None if task is None else getattr(task.request, "job", None)
    return job is not None and job.ended


def inherited_actor() -> str:
    """The actor of the running code; after a job has ended, as for the next step of a chain, that of the job."""
    actor = current_actor()
    if actor == SYSTEM and (task := current_task()) is not None:
        return getattr(task.request, ACTOR, None) or SYSTEM
    return actor
