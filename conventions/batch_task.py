"""`BatchTask`: a long-running task over items, cut into chunks that are messages of their own (R5, R19).

One class makes three tasks: the splitter under its own name, `<name>.chunk` and `<name>.finish`. The splitter sends
chunks under ids made of the batch's id and the chunk's index, so that cutting again after a crash sends no chunk twice.
"""

import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from conventions.batches import chunk_id, finish_id
from conventions.chunking import chunked
from conventions.errors import BusinessError, DeclarationError
from conventions.idempotency import EffectExists
from conventions.job import Job
from conventions.job_classes import LongRunningTask


class Chunk(NamedTuple):
    """What a chunk's message carries, besides the arguments of the batch."""

    batch_id: str
    chunk_index: int
    total_chunks: int | None
    items: list[Any]


type Role = Literal["splitter", "chunk", "finish"]


class BatchTask(LongRunningTask, abstract=True):
    """Work over many items. Define `items` and `process`; optionally `count`, `finish`, `recovered`.

    The id that `delay` returned is the batch's id, for `Progress.of(id)` and `celery batch`.

    Attributes:
        chunk_size: items in one chunk.
    """

    chunk_size: ClassVar[int] = 100
    role: ClassVar[Role] = "splitter"
    chunk_task: ClassVar[Any] = None
    finish_task: ClassVar[Any] = None

    def __init_subclass__(cls, *, abstract: bool = False, role: Role = "splitter", **options: Any) -> None:
        is_batch = role == "splitter" and not abstract and "_decorated" not in cls.__dict__
        if is_batch:
            _check_batch(cls)
            cls.run = _split  # a batch's body is `items` and `process`
        super().__init_subclass__(abstract=abstract, **options)
        if is_batch:
            cls.chunk_task = _derive(cls, "chunk", _run_chunk, ("batch_id", "chunk_index"))
            cls.finish_task = _derive(cls, "finish", _run_finish, ("batch_id",))

    @classmethod
    def declared_arguments(cls) -> Callable[..., Any]:
        """Those of `items` for the splitter, else those of `run`."""
        return cls.items if cls.role == "splitter" else cls.run

    # Typed by `*args, **kwargs`, the one form that a type checker lets a subclass replace by any signature.

    def items(self, *args: Any, **kwargs: Any) -> Iterable[Any]:  # noqa: ARG002
        """Yield the items, JSON values, one after the other; never build a list of all."""
        raise TypeError(f"{self.name} defines no items")

    def process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """`process(chunk, **arguments)`: do the work for one chunk. What it returns is kept for `finish`."""
        raise TypeError(f"{self.name} defines no process")

    def count(self, *args: Any, **kwargs: Any) -> int | None:  # noqa: ARG002
        """The number of items, when it can be told without reading them all; makes percentages possible early."""
        return None

    def finish(self, *args: Any, **kwargs: Any) -> Any:
        """`finish(summary, **arguments)`: called once, after the last chunk, also when some chunks are dead letters."""

    def recovered(self, *args: Any, **kwargs: Any) -> Any:
        """`recovered(summary, **arguments)`: called when a dead chunk was redriven and succeeded after `finish`."""

    def on_dead(self, job: Job, error: Exception) -> None:
        """Join a dead chunk as failed; end a batch whose items could not be read."""
        super().on_dead(job, error)
        batches = self.app.batches
        if self.role == "splitter":
            batches.set_state(job.id, "dead")
        elif self.role == "finish" and "batch_id" in job.payload:
            batches.set_state(job.payload["batch_id"], "dead")
        elif self.role == "chunk":
            chunk = job.payload
            if not {"batch_id", "chunk_index", "items", "arguments"} <= chunk.keys():
                return  # a payload that does not fit any more belongs to no batch
            joined = batches.join(chunk["batch_id"], chunk["chunk_index"], "dead", len(chunk["items"]))
            if joined.complete:
                _send_finish(self, chunk["batch_id"], chunk["arguments"])


def _check_batch(cls: type[BatchTask]) -> None:
    for name, sample in (("items", "def items(self, path: str) -> Iterable[dict]: ..."),
                         ("process", "def process(self, chunk: list, path: str) -> None: ...")):  # fmt: skip
        if getattr(cls, name) is getattr(BatchTask, name):
            raise DeclarationError(f"{cls.__qualname__}: a batch defines items and process; write {sample}")
    names = [name for name in inspect.signature(cls.items).parameters if name != "self"]
    for method, given in (("process", 1), ("finish", 1), ("recovered", 1), ("count", 0)):
        try:
            inspect.signature(getattr(cls, method)).bind(cls, *[None] * given, **dict.fromkeys(names))
        except TypeError as error:
            first = {"process": ["chunk"], "finish": ["summary"], "recovered": ["summary"]}.get(method, [])
            raise DeclarationError(
                f"{cls.__qualname__}: {method} must take the arguments of items ({error}); "
                f"write def {method}({', '.join(['self', *first, *names])})"
            ) from None
    if "run" in cls.__dict__:
        raise DeclarationError(f"{cls.__qualname__}: a batch has no run; its work is items and process")
    if type(cls.chunk_size) is not int or cls.chunk_size < 1:
        raise DeclarationError(f"{cls.__qualname__}: chunk_size must be at least 1, not {cls.chunk_size!r}")


def _derive(batch: type[BatchTask], role: Role, run: Callable[..., Any], key: tuple[str, ...]) -> Any:
    body: dict[str, Any] = {
        "__doc__": f"{role.capitalize()} of {batch.__qualname__}.",
        "__module__": batch.__module__,
        "name": f"{batch.name}.{role}",
        "role": role,
        "run": run,
        "idempotent_on": key,
        "not_idempotent": None,
        "aliases": tuple(f"{alias}.{role}" for alias in batch.aliases),
        "payload_limit_setting": "chunk_payload_limit",
    }
    name = f"{batch.__qualname__}{role.capitalize()}"
    return types.new_class(name, (batch,), {"role": role}, lambda namespace: namespace.update(body))


def _split(self: Any, **arguments: Any) -> dict[str, Any]:
    """Cut the items into chunks and send each as a message."""
    batch_id = self.request.id
    batches = self.app.batches
    batches.create(batch_id, self.name, None)
    expected = self.count(**arguments)
    if expected is not None:
        batches.create(batch_id, self.name, expected)
    total_chunks = None if expected is None else math.ceil(expected / self.chunk_size)
    payload = self.arguments.bind((), arguments)
    total = chunks = 0
    with self.app.producer_or_acquire() as producer:
        for chunk in chunked(self.items(**arguments), self.chunk_size):
            if batches.state(batch_id) == "cancelled":
                break
            _send_chunk(self, Chunk(batch_id, chunks, total_chunks, chunk), payload, producer)
            self.extend_lease(self.app.settings.lease)
            chunks, total = chunks + 1, total + len(chunk)
    if batches.state(batch_id) != "cancelled" and batches.seal(batch_id, chunks=chunks, total=total):
        _send_finish(self, batch_id, payload)
    return {"batch": batch_id, "chunks": chunks, "total": total}


def _send_chunk(task: Any, chunk: Chunk, payload: Mapping[str, Any], producer: Any) -> None:
    task.chunk_task.apply_async(
        kwargs=chunk._asdict() | {"arguments": dict(payload)},
        task_id=chunk_id(chunk.batch_id, chunk.chunk_index),
        producer=producer,
    )


def _send_finish(task: Any, batch_id: str, payload: Mapping[str, Any]) -> None:
    splitter = task.app.tasks[task.name.removesuffix(f".{task.role}")]
    splitter.finish_task.apply_async(
        kwargs={"batch_id": batch_id, "arguments": dict(payload)}, task_id=finish_id(batch_id)
    )


def _run_chunk(
    self: Any,
    *,
    batch_id: str,
    chunk_index: int,
    total_chunks: int | None,  # noqa: ARG001  # part of the message, for those who read it
    items: list[Any],
    arguments: dict[str, Any],
) -> Any:
    """Process one chunk and record its outcome."""
    batches = self.app.batches
    if batches.state(batch_id) == "cancelled":
        return None
    splitter = self.app.tasks[self.name.removesuffix(".chunk")]
    try:
        returned = self.process(items, **splitter.arguments.load((), arguments))
    except EffectExists as found:  # committed before a kill that came before the join below
        returned = found.result
    joined = batches.join(batch_id, chunk_index, "done", len(items), returned)
    if joined.repaired and batches.state(batch_id) == "done":
        self.recovered(batches.summary(batch_id), **splitter.arguments.load((), arguments))
    if joined.complete:
        _send_finish(self, batch_id, arguments)
    return returned


def _run_finish(self: Any, batch_id: str, arguments: dict[str, Any]) -> Any:
    """Call `finish` with the batch's summary."""
    summary = self.app.batches.summary(batch_id)
    if summary is None:
        raise BusinessError(f"{self.name}: the batch {batch_id} is forgotten")
    splitter = self.app.tasks[self.name.removesuffix(".finish")]
    result = self.finish(summary, **splitter.arguments.load((), arguments))
    self.app.batches.set_state(batch_id, "done")
    return result
