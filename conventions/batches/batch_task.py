"""`BatchTask`: a long-running task over items, cut into chunks; each chunk is a message of its own (R5, R19).

One class makes four tasks: the splitter under its own name (`batches/splitting_turn.py`), `<name>.chunk`, `<name>.finish` and
`<name>.recovered`. Their ids and keys are made from the batch's id, so sending one of them again sends nothing twice.
"""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from conventions.batches.batch_rules import check_batch
from conventions.batches.chunks_of_items import AFTER
from conventions.batches.run_chunk_and_finish import run_chunk, run_finish, run_recovered, splitter_of
from conventions.batches.run_in_this_process import run_here
from conventions.batches.splitting_turn import Splitter
from conventions.broker.batch_membership import Member, Role
from conventions.core.errors import BusinessError
from conventions.permission.question import Question
from conventions.tasks.job_classes import LongRunningTask

if TYPE_CHECKING:
    from conventions.tasks.send_types import BatchOptions, BatchS, BatchStep, DelayBatch, EnqueueBatchIn

AS_BATCH = "as its batch"  # what a part of a batch requires, where that depends on the arguments


class BatchTask(LongRunningTask, abstract=True):
    """Work over many items. Define `items` and `process`; optionally `count`, `finish`, `recovered`.

    The id that `delay` returns is the batch's id, for `Progress.of(id)` and `celery batch`.

    Attributes:
        chunk_size: items in one chunk.
        chunks_per_turn: after this many chunks the splitter lets other jobs run, and goes on later.
        seconds_per_turn: after this many seconds the splitter does so, too.
    """

    if TYPE_CHECKING:  # the arguments of `items`, see `send_types.py`
        delay: ClassVar[DelayBatch]
        delay_on_commit: ClassVar[DelayBatch]
        enqueue_in: ClassVar[EnqueueBatchIn]
        s: ClassVar[BatchS]  # type: ignore[assignment]  # it takes other arguments than that of `run`
        si: ClassVar[BatchStep]
        options: ClassVar[BatchOptions]

    chunk_size: ClassVar[int] = 100
    chunks_per_turn: ClassVar[int] = 1000
    seconds_per_turn: ClassVar[float] = 20.0
    fast_lane = True  # for its chunks
    role: ClassVar[Role] = "splitter"
    chunk_task: ClassVar[Any] = None  # this and the next two are classes, made with this one
    finish_task: ClassVar[Any] = None
    recovered_task: ClassVar[Any] = None
    resumes_by_item: ClassVar[bool] = False

    def __init_subclass__(cls, *, abstract: bool = False, role: Role = "splitter", **options: Any) -> None:
        is_batch = role == "splitter" and not abstract and "_decorated" not in cls.__dict__
        cls.counts_itself = role != "splitter"  # the progress of a splitter is the batch's, and chunks count it
        if is_batch:
            cls.resumes_by_item = AFTER in inspect.signature(cls.items).parameters
            cls.no_arguments = (AFTER,) if cls.resumes_by_item else ()
            check_batch(cls, BatchTask)
            cls.run = _split  # type: ignore[assignment, method-assign]  # a batch defines `items` and `process` in place of `run`
        super().__init_subclass__(abstract=abstract, **options)
        if is_batch:
            cls.chunk_task = _derive(cls, "chunk", run_chunk, ("batch_id", "chunk_index"))
            cls.finish_task = _derive(cls, "finish", run_finish, ("batch_id",))
            cls.recovered_task = _derive(cls, "recovered", run_recovered, ("batch_id", "repairs"))

    @property
    def may_be_short(self) -> bool:
        """Chunks may be short jobs. The splitter and the finish are not."""
        return self.fast_lane and self.role == "chunk"

    @classmethod
    def declared_arguments(cls) -> Callable[..., Any]:
        """The function whose parameters are the arguments: `items` for the splitter, else `run`."""
        return cls.items if cls.role == "splitter" else cls.run

    @classmethod
    def declared_result(cls) -> Callable[..., Any] | None:
        """The function that returns the result: `process`, `finish` or `recovered`; none for the splitter."""
        methods = {"chunk": cls.process, "finish": cls.finish, "recovered": cls.recovered}
        return methods.get(cls.role)

    # With `*args, **kwargs` a type checker lets a subclass use any signature.

    def items(self, *args: Any, **kwargs: Any) -> Iterable[Any]:  # noqa: ARG002
        """Yield the items, JSON values, one by one. Never build a list of all.

        The splitter reads them in several turns, and again after a kill. So they must come in the same order each time:
        the splitter skips and compares what it has already cut. With a parameter `after` nothing is read twice. It is
        the last cut item, as JSON, or `None` at the start; yield the items after it.
        """
        raise TypeError(f"{self.name} defines no items")

    def process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """`process(chunk, **arguments)`: do the work of one chunk. Its result is kept for `finish`."""
        raise TypeError(f"{self.name} defines no process")

    def count(self, *args: Any, **kwargs: Any) -> int | None:  # noqa: ARG002
        """The number of items, if it can be found without reading them all. It gives percentages from the start."""
        return None

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """`finish(summary, **arguments)`: called once, after the last chunk, even if some chunks are dead letters."""

    def recovered(self, *args: Any, **kwargs: Any) -> Any:
        """`recovered(summary, **arguments)`: called when a dead chunk was redriven and succeeded after `finish`."""

    def member_of(self, payload: Mapping[str, Any], message_id: str) -> Member | None:
        """The part in its batch that a message with this payload has."""
        match self.role, payload:
            case "splitter", _:
                return Member(message_id, "splitter")
            case "chunk", {"batch_id": str(batch_id), "chunk_index": int(index), "items": list(items)}:
                return Member(batch_id, "chunk", index, len(items))
            case "recovered", {"batch_id": str(batch_id), "repairs": int(repairs)}:
                return Member(batch_id, "recovered", repairs)
            case "finish", {"batch_id": str(batch_id)}:
                return Member(batch_id, "finish")
            case _:
                return None  # a payload that does not fit belongs to no batch

    def question(self, payload: Mapping[str, Any]) -> Question | None:
        """Of the whole batch, with its own arguments: each of its messages asks the same."""
        if self.requires is None or self.role == "splitter":
            return super().question(payload)
        return splitter_of(self).question(payload.get("arguments") or {})

    def checkpoint(self, value: Any) -> None:
        """As in any job, in a chunk or a finish. Raises: BusinessError in `items`, which resumes by itself."""
        if self.role == "splitter":
            raise BusinessError(
                f"{self.name}: a batch goes on where it was by itself; take `after` to read nothing twice"
            )
        super().checkpoint(value)

    def shown(self, payload: Mapping[str, Any]) -> str | None:
        """A chunk in short form: all its items would fill the pages that show it."""
        if self.role != "chunk":
            return None
        return repr(dict(payload) | {"items": f"{len(payload['items'])} items"})


def _derive(batch: type[BatchTask], role: Role, run: Callable[..., Any], key: tuple[str, ...]) -> Any:
    allowed = batch.allowed_credentials
    body: dict[str, Any] = {
        "__doc__": f"{role.capitalize()} of {batch.__qualname__}.",
        "__module__": batch.__module__,
        "name": f"{batch.name}.{role}",
        "role": role,
        "run": run,
        "no_arguments": (),
        "expires": None,  # `expires` limits the start of a batch, not its parts
        "idempotent_on": key,
        "not_idempotent": None,
        # Its messages carry the arguments of the batch below this name.
        "allowed_credentials": {**allowed, **{f"arguments.{path}": why for path, why in allowed.items()}},
        "searchable": (),
        "sensitive": (),  # they have no such arguments, and are sealed as the batch is
        "requires": AS_BATCH if callable(batch.requires) else batch.requires,  # `question` asks for the batch
        "aliases": tuple(f"{alias}.{role}" for alias in batch.aliases),
        "payload_limit_setting": "chunk_payload_limit",
    }
    name = f"{batch.__qualname__}{role.capitalize()}"
    return types.new_class(name, (batch,), {"role": role}, lambda namespace: namespace.update(body))


def _split(self: BatchTask, **arguments: Any) -> dict[str, Any]:
    """Cut the items into chunks and send each one as a message."""
    return run_here(self, arguments) if self.request.is_eager else Splitter(self, arguments).run()
