"""The job that runs in this thread: which actor its messages inherit, and whether it has ended."""

from conventions.broker.header_names import ACTOR, EDITED_BY
from conventions.core.actor import SYSTEM, current_actor, named_actor
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
    return actor if actor != SYSTEM else _actor_of_job() or SYSTEM


def is_anybody_named() -> bool:
    """Whether the running code, or the job around it, has an actor. Else its messages have the actor `system` by default."""
    return named_actor() is not None or _actor_of_job() is not None


def _actor_of_job() -> str | None:
    task = current_task()
    return None if task is None else getattr(task.request, ACTOR, None) or None


def inherited_headers(actor: str | None) -> dict[str, str]:
    """The headers that a message has of the running code: its actor, unless one is named here, and who has edited the job around it."""
    task = current_task()
    if task is None:
        return {ACTOR: actor or current_actor()}
    return {ACTOR: actor or inherited_actor()} | inherited_edit()


def inherited_edit() -> dict[str, str]:
    """The header that says who has edited the letter of the running job, if somebody has: what it sends is changed, too."""
    task = current_task()
    if task is None:
        return {}
    job: Attempt | None = getattr(task.request, "job", None)
    editor = getattr(task.request, EDITED_BY, None) if job is None else job.edited_by
    return {EDITED_BY: editor} if editor else {}
