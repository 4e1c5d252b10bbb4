"""A delivered message of a function: it ends as plain Celery ends it."""

from typing import Any

from celery.exceptions import Terminated, WorkerLostError
from celery.worker.request import Request as CeleryRequest

from conventions.library_internals.billiard import ExceptionInfo, ExceptionWithTraceback, error_of, worker_lost
from conventions.worker.request import PlainRequest


class FunctionRequest(PlainRequest):
    """It is no dead letter, and it comes again only where its own options say so.

    Celery acknowledges it before it runs, unless it has `acks_late`.
    """

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """The pool has begun. It is noted first: a worker that stops gives back what has not begun and is not acknowledged yet."""
        self.begin()
        self.accept(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """As Celery; a want of memory in its process does not end the worker."""
        error = error_of(exc_info)
        told_to_end = self.signalled or self._already_revoked or self._already_cancelled
        if isinstance(error, Terminated) and not told_to_end:
            # A process that outlives a signal is marked in billiard for good, also when a later job ends it.
            exc_info.exception = worker_lost(error)
        elif isinstance(error, MemoryError):
            exc_info.exception = RuntimeError(f"MemoryError: {error}")
        CeleryRequest.on_failure(self, exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """As Celery."""
        CeleryRequest.on_timeout(self, soft, timeout)

    def on_exit(self, error: BaseException) -> None:
        """It has called `sys.exit` in a pool without processes of its own: as where its process has ended."""
        cause = error.exc if isinstance(error, ExceptionWithTraceback) else error
        try:
            raise WorkerLostError(f"Worker exited prematurely: {cause!r}") from cause  # noqa: TRY301  # with a traceback, as Celery wants it
        except WorkerLostError:
            self.on_failure(ExceptionInfo())
