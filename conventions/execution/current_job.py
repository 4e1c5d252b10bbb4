"""The job that runs in this thread: which actor its messages inherit, and whether it has ended."""

from conventions.broker.header_names import ACTOR
from conventions.core.actor import SYSTEM, current_actor
from conventions.execution.attempt import Attempt
from conventions.library_internals.celery import current_task


def current_job() -> Attempt | None:
    """The job of this thread, if one of our tasks runs."""
    task = current_task()
    return None if task is None else getattr(task.request, "job", None)


def sends_follow_ups() -> bool:
    """Whether the job of this thread has ended. Then the messages that are sent now are its follow-ups.

    Not those of a job that runs by `apply`: whoever called that hears of each error.
    """
    job = current_job()
    return job is not None and job.ended and not current_task().request.is_eager


def sends_them_again() -> bool:
    """Whether its follow-ups may have been tried before, since the broker says that its message comes again."""
    task = current_task()
    return sends_follow_ups() and bool((task.request.delivery_info or {}).get("redelivered"))


def inherited_actor() -> str:
    """The actor of the running code. After a job has ended, the actor of the job: the next step of a chain inherits it."""
    actor = current_actor()
    if actor == SYSTEM and (task := current_task()) is not None:
        return getattr(task.request, ACTOR, None) or SYSTEM
    return actor
