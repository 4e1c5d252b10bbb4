"""What a chunk, a finish and a `recovered` of a batch run: the team's methods, with the arguments of the batch."""

from typing import Any, Protocol

from conventions.batches.application import BatchApplication
from conventions.batches.run_in_this_process import SUMMARY_HERE
from conventions.core.errors import BusinessError, JobCancelled
from conventions.execution.declared_task import DeclaredTask


class ChunkOrFinishTask(DeclaredTask, Protocol):
    """The task of a chunk, of a finish or of a `recovered`; `batches/batch_task.py` makes it."""

    @property
    def app(self) -> BatchApplication:
        """The application that it belongs to."""

    def process(self, *args: Any, **kwargs: Any) -> Any:
        """The team's work on one chunk."""

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """The team's end of the batch."""

    def recovered(self, *args: Any, **kwargs: Any) -> Any:
        """What the team does when a dead chunk has succeeded after all."""


def run_chunk(
    self: ChunkOrFinishTask,
    *,
    batch_id: str,
    chunk_index: int,  # noqa: ARG001  # part of the message, for readers
    total_chunks: int | None,  # noqa: ARG001  # part of the message, for readers
    items: list[Any],
    arguments: dict[str, Any],
) -> Any:
    """Process one chunk. Settling the job adds its outcome to the batch."""
    if not self.request.is_eager:  # an eager batch is not in Redis
        _refuse_cancelled(self, batch_id)
    return self.process(items, **splitter_of(self).arguments.load((), arguments))


def run_finish(self: ChunkOrFinishTask, batch_id: str, arguments: dict[str, Any]) -> Any:
    """Call `finish` with the batch's summary."""
    if self.request.is_eager:
        summary = SUMMARY_HERE.get(None)
    else:
        _refuse_cancelled(self, batch_id)
        summary = self.app.batches.snapshot(batch_id)
    if summary is None:
        raise BusinessError(f"{self.name}: the batch {batch_id} is forgotten")
    return self.finish(summary, **splitter_of(self).arguments.load((), arguments))


def run_recovered(self: ChunkOrFinishTask, batch_id: str, repairs: int, arguments: dict[str, Any]) -> Any:
    """Call `recovered` with the present summary, unless another one has already reported these repairs."""
    if self.app.batches.is_reported(batch_id, repairs):
        return None
    summary = self.app.batches.snapshot(batch_id, repairs)
    if summary is None:
        raise BusinessError(f"{self.name}: the batch {batch_id} is forgotten")
    return self.recovered(summary, **splitter_of(self).arguments.load((), arguments))


def splitter_of(task: DeclaredTask) -> DeclaredTask:
    """The task of the batch that a chunk, a finish or a `recovered` belongs to: its name without the last part."""
    found: DeclaredTask = task.app.tasks[task.name.rpartition(".")[0]]
    return found


def _refuse_cancelled(task: ChunkOrFinishTask, batch_id: str) -> None:
    if task.app.batches.state(batch_id) == "cancelled":
        raise JobCancelled(f"the batch {batch_id} was cancelled")
