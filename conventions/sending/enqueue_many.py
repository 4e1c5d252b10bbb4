"""`enqueue_many` and `enqueue_chunks`: one call that sends many messages, also from a generator."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from typing import Any

from conventions.broker.bulk_publish import PART, PART_BYTES
from conventions.core.chunking import chunked
from conventions.core.errors import BrokerUnavailable, CredentialInPayload, PayloadError
from conventions.sending.bulk_sender import Bulk, Prepared
from conventions.sending.refused_sends import telling_refusals
from conventions.sending.sendable_task import SendableTask


def enqueue_many(task: SendableTask, /, arguments: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
    """Send one message for each mapping of arguments. Returns the ids in order.

    Messages go in parts of up to 500, one round trip each, so a generator is never read into memory as a whole. Each
    message is checked like a single send. An error lists the messages sent before it in `error.sent`, in order.

    A call may take as long as it needs while the broker accepts parts. A part that the broker does not accept within
    `broker_timeout` ends the call.

    Args:
        task: the task.
        arguments: the arguments of `run` by name, for each message.
        options: options of `apply_async`, for all messages; not `task_id` and `idempotency_key`.

    Raises:
        TypeError: an option does not fit many messages, or is unknown.
        PayloadError: names every faulty mapping of the part by its index. Nothing of that part was sent. `CredentialInPayload` where one of them
            looks like a credential.
        BrokerUnavailable: the broker did not accept a part within `broker_timeout`. `sent` are the ids that it has for
            certain.
            `ids` are those of the failed part, the next in order; `maybe_sent` says whether the broker may have them.
                Nothing
            after it was sent. Sending the part again under its ids changes nothing where it is already there.
    """
    return _enqueue(task, arguments, options)


def enqueue_chunks(
    task: SendableTask,
    /,
    items: Iterable[Any],
    size: int = 100,
    *,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[str]:
    """Send one message for each `size` items of a list. Returns the ids in order (R19).

    `run` takes the chunk as `items`. If it has parameters of these names, it also gets `chunk_index` (from 0) and
    `total_chunks` (`None` when `items` has no length). A message may be as large as the chunk of a batch. Use a
    `BatchTask` for one progress, a finish that runs once, and a restart after a kill.

    Args:
        task: the task.
        items: the items to cut. An iterator is read while it is sent.
        size: items in one message.
        kwargs: the other arguments of `run`, the same for all.
        options: as for `enqueue_many`.

    Raises:
        TypeError: `run` takes no `items`; or as `enqueue_many`.
        ValueError: `size` is below 1.
        PayloadError, BrokerUnavailable: as `enqueue_many`.
    """
    names = task.arguments.names
    if type(size) is not int or not isinstance(items, Iterable):
        raise TypeError(f"{task.name}: write enqueue_chunks(items, size), such as enqueue_chunks(ids, 100)")
    _check_chunks(task, kwargs or {}, options)
    total = math.ceil(len(items) / max(size, 1)) if isinstance(items, Sized) else None
    chunks = (
        {"items": chunk, "chunk_index": index, "total_chunks": total}
        for index, chunk in enumerate(chunked(items, size))
    )
    arguments = (
        dict(kwargs or {}) | {name: value for name, value in chunk.items() if name in names} for chunk in chunks
    )
    return _enqueue(task, arguments, options, limit_setting="chunk_payload_limit")


def _check_chunks(task: SendableTask, kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    names = set(task.arguments.names)
    if "items" not in names:
        raise TypeError(
            f"{task.name}: run takes no `items`; write def run(self, items: list[...], chunk_index: int, "
            f"total_chunks: int | None), or send by enqueue_many"
        )
    if taken := {"items", "chunk_index", "total_chunks"} & kwargs.keys():
        raise TypeError(f"{task.name}: {', '.join(sorted(taken))} is what each chunk says; leave it out of kwargs")
    if given := options.keys() & names:
        raise TypeError(f"{task.name}: {', '.join(sorted(given))} is an argument of run; write kwargs={{...}}")


def _enqueue(
    task: SendableTask,
    arguments: Iterable[Mapping[str, Any]],
    options: Mapping[str, Any],
    limit_setting: str | None = None,
) -> list[str]:
    check_mappings(task, arguments)
    ids: list[str] = []
    with telling_refusals(task.app, task.name, options), Bulk(task, options, limit_setting) as bulk:
        try:
            for part in _parts(arguments, bulk.prepared):
                ids.extend(one.id for one in part)
                bulk.send(part)
            bulk.flush()
        except Exception as error:
            if not isinstance(error, BrokerUnavailable):  # the first error is the useful one
                try:
                    bulk.flush()
                except BrokerUnavailable as second:
                    error.add_note(str(second))
            with suppress(AttributeError):  # some exceptions have no attributes
                error.sent = ids[: bulk.sure]  # type: ignore[attr-defined]  # the error may be of any class
            error.add_note(f"{task.name}: {bulk.sure} messages were sent before")
            raise
    return ids


def check_mappings(task: SendableTask, arguments: Any) -> None:
    """Refuse what cannot be the arguments of many messages. Raises: TypeError."""
    if isinstance(arguments, Mapping):
        raise TypeError(f"{task.name}: these are the arguments of one message; pass a list of such mappings")
    if isinstance(arguments, (str, bytes)) or not isinstance(arguments, Iterable):
        raise TypeError(f"{task.name}: pass a list or generator of mappings, not {type(arguments).__name__}")


def _parts(
    arguments: Iterable[Mapping[str, Any]], prepare: Callable[[Mapping[str, Any]], Prepared]
) -> Iterator[list[Prepared]]:
    """Checked messages, in parts that go together. Raises: PayloadError with all faults of a part."""
    part: list[Prepared] = []
    faults: list[str] = []
    kind: type[PayloadError] = PayloadError
    first = size = 0

    def complete() -> list[Prepared]:
        if faults:
            after = first + len(part) + len(faults)
            before = [f"nothing of [{first}] to [{after - 1}] was sent; the {first} before were"] if first else []
            raise kind("\n".join(faults + before))
        return part

    for index, one in enumerate(arguments):
        try:
            if not isinstance(one, Mapping):
                raise TypeError(f"{type(one).__name__} is no mapping of arguments; write {{'name': value}}")  # noqa: TRY301
            part.append(prepare(one))
            size += len(part[-1].written)
        except (TypeError, PayloadError) as error:
            faults.append(f"[{index}] {error}")
            kind = CredentialInPayload if isinstance(error, CredentialInPayload) else kind
        if len(part) + len(faults) >= PART or size >= PART_BYTES:
            yield complete()
            part, first, size = [], index + 1, 0
    if part or faults:
        yield complete()
