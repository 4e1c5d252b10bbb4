"""The job that runs in this thread: which actor its messages inherit, and whether it has ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from conventions.broker.header_names import ACTOR
from conventions.core.actor import SYSTEM, current_actor
from conventions.execution.attempt import Attempt
from conventions.library_internals.celery import current_task

# What a chord does that hears of a part: nothing, `sends` its body, or has `lost` it.
_last_part: ContextVar[str] = ContextVar("conventions_last_part", default="")


def current_job() -> Attempt | None:
    """The job of this thread, if one of our tasks runs."""
    task = current_task()
    return None if task is None else getattr(task.request, "job", None)


def sends_follow_ups() -> bool:
    """Whether the job of this thread has ended. Then the messages that are sent now are its follow-ups."""
    job = current_job()
    return job is not None and job.ended


@contextmanager
def returning_part() -> Iterator[None]:
    """Within the block a chord hears of one of its parts; after the last one, what is sent is its body."""
    token = _last_part.set("sends")
    try:
        yield
    finally:
        _last_part.reset(token)


def sends_chord_body() -> bool:
    """Whether a chord sends its body now. It sends that once, so that a part that comes again does not."""
    return _last_part.get() == "sends" and sends_follow_ups()


def has_lost_chord_body() -> bool:
    """Whether a chord could not send its body just now. Nobody sends its errbacks again, either."""
    return _last_part.get() == "lost" and sends_follow_ups()


def note_lost_chord_body() -> None:
    """The body of the chord cannot be sent."""
    _last_part.set("lost")


def inherited_actor() -> str:
    """The actor of the running code. After a job has ended, the actor of the job: the next step of a chain inherits it."""
    actor = current_actor()
    if actor == SYSTEM and (task := current_task()) is not None:
        return getattr(task.request, ACTOR, None) or SYSTEM
    return actor
