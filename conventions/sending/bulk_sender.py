"""`Bulk`: many messages of one task, in few round trips.

They go in parts. Celery makes the first message of a part. If nothing in the application looks at single messages, a
template makes the others, see `sending/message_template.py`. Each part borrows a connection; none is held while the
caller reads the next items.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

from celery import signals, uuid

from conventions.broker.bulk_publish import NotTaken, PublishBatch, UnderWay
from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.header_names import PLANNED_AT
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable
from conventions.declare.arguments_as_json import check_size
from conventions.library_internals.celery import without_proxy
from conventions.library_internals.kombu import publish_batch_of
from conventions.security.payload_guard import refuse_credentials
from conventions.sending.actor_required import refuse_nobody
from conventions.sending.callbacks import list_callbacks
from conventions.sending.message_headers import common_headers, headers_of_own
from conventions.sending.message_template import MessageTemplate
from conventions.sending.option_checks import CONNECTIONS, check_options
from conventions.sending.publish import unavailable
from conventions.sending.sealed_sends import seal_header
from conventions.sending.sendable_task import SendableTask
from conventions.sending.shown_arguments import shown_text
from conventions.sending.traced_send import NOT_TRACED, traced, with_trace

# Options that are the same for all messages of a call, so that a template may be used.
ALIKE = frozenset(
    ["actor", "countdown", "delivery_mode", "eta", "exchange", "expires", "headers", "ignore_result", "kwargsrepr",
     "planned_at", "priority", "queue", "routing_key", "serializer", "shadow", "soft_time_limit", "time_limit"]
)  # fmt: skip

_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


class Prepared(NamedTuple):
    """A checked message."""

    id: str
    payload: dict[str, Any]
    written: bytes  # the payload as canonical JSON


def refuse_options_of_one(task: SendableTask, options: Mapping[str, Any]) -> None:
    """Refuse an option that only one message can have. Raises: TypeError."""
    for name in ("task_id", "idempotency_key"):
        if name in options:
            raise TypeError(f"{task.name}: {name} belongs to one message, and this call sends many; leave it out")


class Bulk:
    """Messages of one task that are sent in parts.

    Args:
        task: the task.
        options: options of `apply_async`, for all messages.
        limit_setting: the setting that limits a payload; default: the task's.

    Attributes:
        sure: how many messages the broker has for certain.

    Raises:
        TypeError, ValueError, PermissionDenied: as `apply_async`; or an option that fits one message only.
    """

    def __init__(self, task: SendableTask, options: Mapping[str, Any], limit_setting: str | None = None) -> None:
        refuse_options_of_one(task, options)
        task = without_proxy(task)  # the proxy would look up the task at every access
        self._task, self._app = task, task._application()  # noqa: SLF001  # the same layer
        self._options = dict(options)
        list_callbacks(self._options)
        check_options(task, self._options, self._app.settings.max_delay)
        self._limit = getattr(self._app.settings, limit_setting or task.payload_limit_setting)
        self._given = self._options.pop("headers", None) or {}
        self._how = {name: self._options.pop(name, None) for name in ("actor", "planned_at")}
        refuse_nobody(task, self._options, self._how["actor"])
        self._sealed = seal_header(task, self._options)
        self._producer = self._producer_of(*(self._options.pop(name, None) for name in CONNECTIONS))
        self._sent: tuple[UnderWay, int] | None = None
        self._traced, self._span = ExitStack(), NOT_TRACED
        self.sure = 0

    def _producer_of(self, connection: Any, producer: Any, publisher: Any) -> Any:
        """The caller's, as Celery takes it from the options of one message; `None`: one of the application's pool."""
        return self._app.amqp.Producer(connection, auto_declare=False) if connection else producer or publisher

    def __enter__(self) -> Self:
        self._span = self._traced.enter_context(traced(self._app, self._task, None, self._options))
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            if self._sent is not None:
                self._sent[0].close()
        finally:
            self._span.sent(self.sure)
            self._traced.__exit__(*raised)  # type: ignore[arg-type]  # the three of the protocol

    def prepared(self, arguments: Mapping[str, Any], id: str | None = None) -> Prepared:  # noqa: A002
        """Check the arguments of one message. Raises: TypeError, PayloadError."""
        payload, written = self._task.arguments.written((), arguments)
        refuse_credentials(self._task, payload, written)
        check_size(self._task.name, written, self._limit)
        return Prepared(id or uuid(), payload, written)

    def send(self, part: Sequence[Prepared]) -> None:
        """Send a part. The broker has it for certain after the next `send` or `flush`.

        Raises:
            BrokerUnavailable: the broker did not accept this part or the part before, within `broker_timeout`, in which the
                time to make the messages does not count. `ids` are the messages that it did not confirm. No later
                message was given to it.
        """
        common = with_trace(common_headers(self._task, self._given, **self._how) | self._sealed, self._span)
        if self._app.conf.task_always_eager:
            for one in part:  # each runs here
                self._send_by_celery(one, common)
                self.sure += 1
            return
        with (
            self._deadline(part) as deadline,
            self._app.port.producer(self._producer) as producer,
            producer.batch(len(part) + 1) as batch,
        ):
            if not self._app.port.can.templates:
                with deadline.own_work():
                    for one in part:
                        self._send_by_celery(one, common, producer=producer)
                batch.flush()
                self.sure += len(part)
                return
            with deadline.own_work():
                self._send_by_celery(part[0], common, producer=producer)
                collected: PublishBatch = publish_batch_of(batch)
                if self._sent is not None:
                    collected.send_after(self._sent[0])
                self._collect(collected, part, common, producer)
            sent = collected.detach()
            if self._sent is not None:
                self.sure += self._sent[1]
            self._sent = (sent, len(part)) if sent else None

    def flush(self) -> None:
        """Wait until the broker has everything. Raises: BrokerUnavailable, as `send`."""
        sent, self._sent = self._sent, None
        if sent is not None:
            with self._deadline():
                sent[0].wait()
            self.sure += sent[1]

    @contextmanager
    def _deadline(self, part: Sequence[Prepared] = ()) -> Iterator[Deadline]:
        """One deadline for all sends of the block, which begins with this part. Raises: BrokerUnavailable."""
        with Deadline(self._app.settings.broker_timeout) as deadline:
            try:
                yield deadline
            except NotTaken as error:
                reason = error.__cause__ or error
                raise unavailable(self._app, reason, error.ids, maybe_sent=error.maybe_sent) from error
            except BrokerUnavailable as error:  # raised before the answer to the previous part was read
                if self._sent is None:
                    ids = [one.id for one in part]
                    raise unavailable(self._app, error.__cause__ or error, ids, maybe_sent=error.maybe_sent) from error
                raise unavailable(self._app, error, self._sent[0].ids, maybe_sent=True) from error

    def _collect(
        self, collected: PublishBatch, part: Sequence[Prepared], common: Mapping[str, Any], producer: Any
    ) -> None:
        template = self._template(collected, part[0]) if len(part) > 1 and self._are_alike() else None
        for one in part[1:]:
            if template is None:
                self._send_by_celery(one, common, producer=producer)
            else:
                own = self._own(one, common)
                collected.add(template.message(one.id, one.payload, self._shown(one.payload), own))

    def _own(self, one: Prepared, common: Mapping[str, Any]) -> dict[str, Any]:
        return headers_of_own(self._task, one.payload, one.written, one.id, planned=common.get(PLANNED_AT))

    def _send_by_celery(self, one: Prepared, common: Mapping[str, Any], **options: Any) -> None:
        headers = AcceptedHeaders(dict(common) | self._own(one, common))
        # Otherwise a running job would keep each of them as its child.
        options |= self._options | {"task_id": one.id, "headers": headers, "add_to_parent": False}
        self._task.apply_async((), one.payload, **options)

    def _shown(self, payload: Mapping[str, Any]) -> str:
        given = self._options.get("kwargsrepr")  # of a sealed job it may repeat what is sealed
        return str(given) if given and not self._sealed else shown_text(self._task, payload, self._sealed)

    def _template(self, collected: PublishBatch, first: Prepared) -> MessageTemplate | None:
        if collected.waiting != 1:
            return None
        own = tuple(self._own(first, {}))
        try:
            return MessageTemplate(collected.last, collected.last_publication, first.payload, own, self._app.outgoing)
        except ValueError:
            return None

    def _are_alike(self) -> bool:
        """Whether nothing looks at single messages: no signal, event, result, other router or other option."""
        task, app = self._task, self._app
        return (
            not any(signal.receivers for signal in _SIGNALS)
            and not app.conf.task_send_sent_event
            and self._options.get("ignore_result", task.ignore_result)
            and self._options.keys() <= ALIKE
            and app.routes_alike
        )
