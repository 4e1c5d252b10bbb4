"""`enqueue_many` and `enqueue_chunks`: many messages in few round trips.

They go in parts, so that a generator is read as it is sent and memory stays small. The first message of a part is made by
Celery; where nothing in the application looks at each message, the others are stamped out of it, see `stamp.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

from celery import signals
from celery.utils import uuid
from kombu.exceptions import BatchPublishError

from conventions.chunking import chunked
from conventions.errors import BrokerUnavailable, ConventionError, PayloadError
from conventions.job import PLANNED_AT
from conventions.payload import check_size
from conventions.redis_address import shown
from conventions.send_options import check_options
from conventions.sending import common_headers, headers_of_own, shown_text
from conventions.stamp import Stamp

PART = 500  # messages that go together
PART_BYTES = 4 << 20  # of their arguments

# What is the same for all messages of a call, so that they may be stamped out of the first.
ALIKE = frozenset(
    ["actor", "countdown", "delivery_mode", "eta", "exchange", "expires", "headers", "ignore_result", "kwargsrepr",
     "planned_at", "priority", "queue", "routing_key", "serializer", "shadow", "soft_time_limit", "time_limit"]
)  # fmt: skip


class Prepared(NamedTuple):
    """A message that was checked."""

    id: str
    payload: dict[str, Any]
    written: bytes  # the payload as canonical JSON


class Bulk:
    """Messages of one task that go over one connection, a part at a time.

    Args:
        task: the task.
        options: those of `apply_async`, for all messages.
        limit_setting: the setting that limits a payload; default: the task's.

    Raises:
        TypeError, ValueError: as `apply_async`; or an option that names one message.
    """

    def __init__(self, task: Any, options: Mapping[str, Any], limit_setting: str | None = None) -> None:
        for name in ("task_id", "idempotency_key"):
            if name in options:
                raise TypeError(f"{task.name}: {name} is that of one message, and these are many; leave it out")
        self._task, self._app = task, task._application()  # noqa: SLF001  # the same layer
        check_options(task, options, self._app.settings.max_delay)
        self._limit = getattr(self._app.settings, limit_setting or task.payload_limit_setting)
        self._options = dict(options)
        self._given = self._options.pop("headers", None) or {}
        self._how = {name: self._options.pop(name, None) for name in ("actor", "planned_at")}
        self._stack = ExitStack()
        self._batch: Any = None

    def __enter__(self) -> Self:
        producer = self._stack.enter_context(self._app.producer_or_acquire(self._options.pop("producer", None)))
        self._options["producer"] = producer
        self._batch = self._stack.enter_context(producer.batch(PART))
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: PYI036  # an ExitStack is typed otherwise
        self._stack.__exit__(*error)

    def prepared(self, arguments: Mapping[str, Any], id: str | None = None) -> Prepared:  # noqa: A002
        """Check the arguments of one message. Raises: TypeError, PayloadError."""
        payload, written = self._task.arguments.written((), arguments)
        check_size(self._task.name, written, self._limit)
        return Prepared(id or uuid(), payload, written)

    def send(self, part: Sequence[Prepared]) -> None:
        """Send messages. They are there for certain after the next `send` or `flush`.

        Raises:
            BrokerUnavailable: the broker does not take them, or not those that were sent before.
        """
        common = common_headers(self._task, self._given, **self._how)
        with _unavailable(self._app):
            self._send_by_celery(part[0], common)
            stamp = self._stamp(part[0]) if len(part) > 1 and self._are_alike() else None
            for one in part[1:]:
                if stamp is None:
                    self._send_by_celery(one, common)
                else:
                    self._collected.add(
                        stamp.message(one.id, one.payload, self._shown(one.payload), self._own(one, common))
                    )
            if self._collected is not None:
                self._collected.push()

    def flush(self) -> None:
        """Return when the broker has everything. Raises: BrokerUnavailable."""
        with _unavailable(self._app):
            self._batch.flush()

    @property
    def _collected(self) -> Any:
        return self._batch.state.session  # None where the broker takes messages one by one

    def _own(self, one: Prepared, common: Mapping[str, Any]) -> dict[str, Any]:
        return headers_of_own(self._task, one.payload, one.written, one.id, planned=common.get(PLANNED_AT))

    def _send_by_celery(self, one: Prepared, common: Mapping[str, Any]) -> None:
        # With a key among its headers a message counts as checked.
        headers = dict(common) | self._own(one, common)
        # A running job would remember each of them as its child.
        self._task.apply_async((), one.payload, task_id=one.id, headers=headers, add_to_parent=False, **self._options)

    def _shown(self, payload: Mapping[str, Any]) -> str:
        return str(self._options.get("kwargsrepr") or shown_text(self._task, payload))

    def _stamp(self, first: Prepared) -> Stamp | None:
        if self._collected is None or self._collected.waiting != 1:
            return None
        own = tuple(self._own(first, {}))
        try:
            return Stamp(self._collected.last, self._collected.last_publication, first.payload, own)
        except ValueError:
            return None

    def _are_alike(self) -> bool:
        """Whether nothing looks at each message: no signal, event, result, router or other option."""
        task, app = self._task, self._app
        return (
            not any(signal.receivers for signal in _SIGNALS)
            and not app.conf.task_send_sent_event
            and self._options.get("ignore_result", task.ignore_result)
            and self._options.keys() - {"producer"} <= ALIKE
            and app.routes_alike
        )


_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


@contextmanager
def _unavailable(app: Any) -> Iterator[None]:
    """A flush that failed is an unreachable broker."""
    try:
        yield
    except BatchPublishError as error:
        raise BrokerUnavailable(
            f"the broker at {shown(app.broker_address)} did not accept the messages within "
            f"{app.settings.broker_timeout:g} s ({error}); some of them may be there"
        ) from error


def enqueue_many(task: Any, /, arguments: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
    """Send one message for each mapping of arguments; returns the ids in order.

    They go in parts of up to 500, each in one round trip, so that a generator is never read into memory. Each is checked
    like a single send. An error keeps what was sent before in `error.sent`, the ids in order.

    Args:
        task: the task.
        arguments: the arguments of `run` by name, for each message.
        options: those of `apply_async`, for all messages; not `task_id` and `idempotency_key`.

    Raises:
        TypeError: an option is not one of all messages, or means nothing.
        PayloadError: names every faulty mapping of the part by its index; nothing of that part was sent.
        BrokerUnavailable: the broker did not take a part within `broker_timeout`. Some of that part may be there;
            sending the same again is safe where the task is idempotent on its arguments.
    """
    return _enqueue(task, arguments, options)


def enqueue_chunks(
    task: Any,
    /,
    items: Iterable[Any],
    size: int = 100,
    *,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[str]:
    """Send one message for each `size` items of a list; returns the ids in order (R19).

    `run` takes the chunk as `items`, and where it names them, `chunk_index` (from 0) and `total_chunks` (`None` when
    `items` has no length). A message may be as large as the chunk of a batch. For a common progress, a finish that runs
    once and a restart after a kill, take a `BatchTask`.

    Args:
        task: the task.
        items: what is cut; an iterator is read as it is sent.
        size: items in one message.
        kwargs: the other arguments of `run`, the same for all.
        options: those of `enqueue_many`.

    Raises:
        TypeError: `run` takes no `items`; or as `enqueue_many`.
        ValueError: `size` is below 1.
        PayloadError, BrokerUnavailable: as `enqueue_many`.
    """
    names = task.arguments.names
    if "items" not in names:
        raise TypeError(
            f"{task.name}: run takes no `items`; write def run(self, items: list[...], chunk_index: int, "
            f"total_chunks: int | None), or send by enqueue_many"
        )
    total = math.ceil(len(items) / max(size, 1)) if isinstance(items, Sized) else None
    chunks = (
        {"items": chunk, "chunk_index": index, "total_chunks": total}
        for index, chunk in enumerate(chunked(items, size))
    )
    arguments = (
        dict(kwargs or {}) | {name: value for name, value in chunk.items() if name in names} for chunk in chunks
    )
    return _enqueue(task, arguments, options, limit_setting="chunk_payload_limit")


def _enqueue(
    task: Any, arguments: Iterable[Mapping[str, Any]], options: Mapping[str, Any], limit_setting: str | None = None
) -> list[str]:
    ids: list[str] = []
    sure = 0
    try:
        with Bulk(task, options, limit_setting) as bulk:
            for part in _parts(arguments, bulk.prepared, bulk.flush):
                bulk.send(part)
                sure = len(ids)
                ids.extend(one.id for one in part)
            bulk.flush()
    except ConventionError as error:
        error.sent = ids if isinstance(error, PayloadError) else ids[:sure]
        raise
    return ids


def _parts(
    arguments: Iterable[Mapping[str, Any]],
    prepare: Callable[[Mapping[str, Any]], Prepared],
    before_fault: Callable[[], None],
) -> Iterator[list[Prepared]]:
    """Checked messages, as many as go together. Raises: PayloadError with all faults of a part."""
    part: list[Prepared] = []
    faults: list[str] = []
    first = size = 0

    def complete() -> list[Prepared]:
        if faults:
            before_fault()
            after = first + len(part) + len(faults)
            before = [f"nothing of [{first}] to [{after - 1}] was sent; the {first} before were"] if first else []
            raise PayloadError("\n".join(faults + before))
        return part

    for index, one in enumerate(arguments):
        try:
            part.append(prepare(one))
            size += len(part[-1].written)
        except (TypeError, PayloadError) as error:
            faults.append(f"[{index}] {error}")
        if len(part) + len(faults) >= PART or size >= PART_BYTES:
            yield complete()
            part, first, size = [], index + 1, 0
    if part or faults:
        yield complete()
