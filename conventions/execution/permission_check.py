"""Before a job runs, or is told what an earlier run of its key returned, ask whether its actor may do this, and who changed it as a dead letter (R20)."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from conventions.core.error_text import without_values
from conventions.core.errors import PayloadError, PermissionDenied, TooManyStarts
from conventions.core.time_units import milliseconds
from conventions.execution.attempt import Attempt
from conventions.execution.declared_task import DeclaredTask
from conventions.permission.decisions import no_answer
from conventions.storage.redis_store import Store


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
        try:
            task.app.permissions.check([one for one in behind if one is not None], question)
        except PermissionDenied as denied:
            if not job.sealed or not callable(task.requires):
                raise
            found = _without_permission(job, denied)
        else:
            return
        raise found


def _without_permission(job: Attempt, denied: PermissionDenied) -> PermissionDenied:
    """The same of a sealed job, whose arguments have made the name of the permission."""
    text = f"{job.task}: {denied.lacked_by} may not run it: it requires what its method `requires` says of its arguments, which are sealed"
    found = without_values(PermissionDenied(text))
    found.lacked_by = denied.lacked_by
    return found


def check_unclaimed(task: DeclaredTask, job: Attempt) -> None:
    """As `check_permission`, of a job without a claim, which would count the starts that end without an outcome: they are counted apart.

    Raises:
        PermissionDenied, NoAnswer, PayloadError: as `check_permission`.
        TooManyStarts: whoever was asked has ended the process, or was killed with it, each time.
        RedisError: nobody was asked.
    """
    if task.requires is None:
        return
    store = task.app.claims.store
    name = store.key("asked", job.id, str(job.generation))
    with store.redis.pipeline() as pipe:
        pipe.incr(name)
        pipe.pexpire(name, milliseconds(job.horizon))
        count, _ = pipe.execute()
    limit = task.app.settings.start_limit
    if int(count) > limit:
        raise without_values(
            TooManyStarts(
                f"{job.task}: its process ended {limit} times while somebody was asked for a permission that it requires"
            )
        )
    with forgotten(store, name):
        check_permission(task, job)


@contextmanager
def forgotten(store: Store, name: str) -> Iterator[None]:
    """Forget the count where the process lives on, whatever was answered."""
    try:
        yield
    except Exception:
        with suppress(RedisError):
            store.redis.delete(name)
        raise
    with suppress(RedisError):
        store.redis.delete(name)
