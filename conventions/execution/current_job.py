"""The job that runs in this thread: which actor its messages inherit, and whether it has ended."""

from conventions.broker.header_names import ACTOR
from conventions.core.actor import SYSTEM, current_actor
from conventions.library_internals.celery import current_task


def sends_follow_ups() -> bool:
    """Whether the job of this thread has ended. Then the messages that are sent now are its follow-ups."""
    task = current_task()
    job = None if task is None else getattr(task.request, "job", None)
    return job is not None and job.ended


def inherited_actor() -> str:
    """The actor of the running code. After a job has ended, the actor of the job: the next step of a chain inherits it."""
    actor = current_actor()
    if actor == SYSTEM and (task := current_task()) is not None:
        return getattr(task.request, ACTOR, None) or SYSTEM
    return actor
