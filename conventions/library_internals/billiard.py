"""What billiard does not document, and what Celery's pool of processes adds to it.

A pool of Celery's has the one with the processes as `_pool`, other kinds of pools have something else there, or nothing.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from billiard import process
from billiard.common import human_status
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError

__all__ = ["ExceptionInfo", "ExceptionWithTraceback"]

children: Callable[[], list[Any]] = process.active_children

KILLED = range(-255, -191)  # exit codes of a process that ends by a signal: its number - 256
HOW_IT_ENDED = re.compile(
    r"exited prematurely: (?:signal (?P<signal>[^.]+?)|exitcode (?P<status>-?\d+))(?: Job|\.|$)"
)  # in the text of a `WorkerLostError`


def worker_lost(terminated: Terminated) -> WorkerLostError:
    """What the pool says of the end of a process, where it says that somebody has told it to end."""
    code = terminated.args[0] if terminated.args and isinstance(terminated.args[0], int) else 0
    return WorkerLostError(f"Worker exited prematurely: {human_status(-code)}.")


def error_of(info: Any) -> BaseException:
    """What a job raised: an error that came from a process is wrapped, so that its traceback may be shown."""
    error: BaseException = info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def raised_by_celery(info: Any) -> bool:
    """Whether Celery itself failed, before a job or after it, as where a state cannot be stored.

    Celery sets the same mark where a job ends on purpose by `Reject`, `Ignore` or `Retry`.
    """
    return bool(info.internal) and not isinstance(error_of(info), Reject | Ignore | Retry)


def own_index() -> int:
    """The place of this process in its pool, which the one that takes its place has, too; -1: it is of no pool."""
    return int(getattr(process.current_process(), "index", -1))


def ends_process(error: BaseException) -> bool:
    """Whether it ends this process of a pool, as where that was sent a signal. A thread has no process of its own."""
    return isinstance(error, SystemExit) and error.code in KILLED and own_index() >= 0


def soft_limit_handler() -> Callable[[int, FrameType | None], None]:
    """The signal handler by which a process of a pool hears of a soft time limit."""
    from billiard.pool import soft_timeout_sighandler  # noqa: PLC0415  # no sender needs it

    handler: Callable[[int, FrameType | None], None] = soft_timeout_sighandler
    return handler


# The processes of a pool. Each function takes a pool of Celery's, of any kind.


def pool_of(pool: Any) -> Any:
    """What holds the processes; `None` in a pool without."""
    found = getattr(pool, "_pool", None)
    return found if hasattr(found, "did_start_ok") else None


def pids_of(pool: Any) -> list[int]:
    """Its processes."""
    return [one.pid for one in getattr(pool_of(pool), "_pool", None) or () if one.pid]


def tolerate_kills(pool: Any) -> None:
    """Let a process that somebody kills while the worker starts be replaced like any other: Celery would end the worker."""
    if (processes := pool_of(pool)) is not None:
        processes.did_start_ok = lambda: not any(_ended_by_itself(one.exitcode) for one in processes._pool)  # noqa: SLF001


def _ended_by_itself(status: int | None) -> bool:
    """Whether a process ended by itself; a signal, whose number is negative here, says nothing of how it started."""
    return status is not None and status >= 0


def write_waiting(pool: Any, hub: Any) -> None:
    """Write to the processes what the pool has for them. Raises: what goes wrong there; what is not written waits on."""
    processes: Any = getattr(pool, "_pool", None)
    if hub and getattr(processes, "outbound_buffer", None):
        hub.consolidate_callback([*processes._all_inqueues])  # noqa: SLF001


# The jobs of a pool of processes, by number: what it was given, and what has not ended, and is not read yet.


def jobs_of(pool: Any) -> dict[int, Any]:
    """Its jobs; none in a pool without processes."""
    jobs: dict[int, Any] = getattr(getattr(pool, "_pool", None), "_cache", {})
    return jobs


def open_jobs(pool: Any) -> dict[int, Any]:
    """Those that have not ended."""
    jobs = jobs_of(pool).copy()  # other threads change it
    return {number: job for number, job in jobs.items() if not job.ready()}


@contextmanager
def written_kept(pool: Any) -> Iterator[None]:
    """Within the block a pool of processes forgets no job that a process has got, and not said yet that it runs.

    Celery's pool does, and then waits in vain for the end of the process, which waits until its last answer was read. A job that
    is not written to its end by then is forgotten: a pool that is closed writes no more, and nobody can run the half of it.
    """
    written = [
        (number, job, _writer_of(job)) for number, job in open_jobs(pool).items() if getattr(job, "_write_to", None)
    ]
    yield
    jobs_of(pool).update(
        {
            number: job
            for number, job, writer in written
            if not job.ready() and getattr(writer, "gi_frame", None) is None
        }
    )


def _writer_of(job: Any) -> Any:
    """The generator that writes it; `None` when it is not there any more."""
    return getattr(job, "_writer", lambda: None)()


def pid_of(job: Any) -> int | None:
    """The process that has taken a job."""
    pid: int | None = job._worker_pid  # noqa: SLF001
    return pid


def destination_of(job: Any) -> int | None:
    """The process that has a job, also where it has not said so yet; `None`: none has."""
    return pid_of(job) or getattr(getattr(job, "_write_to", None), "pid", None)


def began_at(job: Any) -> float:
    """When it has taken it, on the monotonic clock; 0: it has not said so yet."""
    return float(job._time_accepted or 0.0)  # noqa: SLF001


class HardLimits:
    """What a pool of processes does with a job that is beyond its hard time limit; it can be done otherwise.

    Args:
        pool: of Celery.

    Attributes:
        handler: what it does until `replace`.
    """

    def __init__(self, pool: Any) -> None:
        self._processes = pool_of(pool)
        self.handler: Any = getattr(self._processes, "on_hard_timeout", None)

    def look_again(self, job: Any) -> None:
        """Do what the pool does when the limit is over, if the job has not ended meanwhile."""
        self._processes._on_hard_timeout(job._job)  # noqa: SLF001

    def replace(self, handler: Callable[[Any], None]) -> None:
        """Let this be called with a job that is beyond its limit."""
        self._processes.on_hard_timeout = handler
