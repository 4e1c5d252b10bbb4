"""`SplittableTask`: what the splitter uses of a batch's task; `batches/batch_task.py` has it."""

from collections.abc import Iterable
from typing import Any, Protocol

from conventions.batches.application import BatchApplication
from conventions.execution.attempt import Attempt
from conventions.execution.declared_task import DeclaredTask
from conventions.sending.sendable_task import SendableTask


class BatchPart(Protocol):
    """The class of a chunk, or of a finish."""

    @property
    def registered(self) -> SendableTask:
        """Its task."""


class SplittableTask(DeclaredTask, Protocol):
    """A task over items, cut into chunks."""

    @property
    def app(self) -> BatchApplication:
        """The application that it belongs to."""

    @property
    def job(self) -> Attempt:
        """The attempt that runs now."""

    @property
    def actor(self) -> str:
        """Who sent the batch."""

    @property
    def chunk_task(self) -> BatchPart:
        """Works on one chunk."""

    @property
    def finish_task(self) -> BatchPart:
        """Runs after the last chunk."""

    @property
    def chunk_size(self) -> int:
        """Items in one chunk."""

    @property
    def chunks_per_turn(self) -> int:
        """After so many chunks other jobs run."""

    @property
    def seconds_per_turn(self) -> float:
        """After so many seconds they do so, too."""

    @property
    def resumes_by_item(self) -> bool:
        """Whether `items` takes the last cut item, to go on after it."""

    @property
    def stalls_after(self) -> float:
        """Seconds without a report after which the batch counts as stalled."""

    def items(self, *args: Any, **kwargs: Any) -> Iterable[Any]:
        """The team's items, JSON values, one by one."""

    def count(self, *args: Any, **kwargs: Any) -> int | None:
        """How many there are, if that is known."""

    def report_alive(self) -> None:
        """Report that the job goes on."""

    def extend_lease(self, seconds: float, /) -> None:
        """Keep the job's claim for at least so long. Raises: LeaseLost."""
