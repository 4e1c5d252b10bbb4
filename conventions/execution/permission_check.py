"""Before a job runs, or is told what an earlier run of its key returned, ask whether its actor may do this, and who changed it as a dead letter (R20)."""

from conventions.core.errors import PayloadError, PermissionDenied
from conventions.execution.attempt import Attempt
from conventions.execution.declared_task import DeclaredTask
from conventions.permission.decisions import no_answer


def check_permission(task: DeclaredTask, job: Attempt) -> None:
    """Ask for all who stand behind a job.

    Raises:
        PermissionDenied: one of them may not do it.
        NoAnswer: the authorizer cannot say so, or the method that says what the class requires has failed.
        PayloadError: that method needs arguments that do not fit.
    """
    if task.requires is None:
        return
    try:
        question = task.question(job.payload)
    except PayloadError:
        raise
    except PermissionDenied as denied:
        denied.lacked_by = job.actor
        raise
    except BaseException as raised:
        raise no_answer(f"{job.task}: nobody can say what it requires", raised) from raised
    if question is not None:
        behind = (job.actor, job.edited_by, job.redriven_by)
        task.app.permissions.check([one for one in behind if one is not None], question)
