"""`ShortCut`: puts plain messages of short tasks straight into the lane, if nobody can notice that Celery's steps are skipped."""

import logging
from collections.abc import Sequence
from typing import Any

from celery import signals
from celery.worker import state

from conventions.broker.codec import CONTENT_ENCODING, CONTENT_TYPE
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import FINGERPRINT, SEALED
from conventions.broker.signature import Signatures
from conventions.broker.simple_message import PlainMessage, all_signed, plain
from conventions.core.errors import CredentialInPayload
from conventions.execution.application import Application
from conventions.fast_lane.eligible import goes_together
from conventions.fast_lane.lane import Lane
from conventions.fast_lane.short_request import ShortRequest, short_requests
from conventions.library_internals.celery import symbol_by_name, text_of_receipt
from conventions.library_internals.celery_worker import receipt_logger
from conventions.sealing.aes_gcm import key_of
from conventions.sealing.sealed_body import CONTENT as SEALED_CONTENT
from conventions.sealing.sealed_body import SealedBody, bound_to
from conventions.security.payload_guard import is_clear
from conventions.worker.received_credentials import refuse_received
from conventions.worker.request import Request
from conventions.worker.shutdown import stops
from conventions.worker.strategy import strategy

logger = logging.getLogger(__name__)

CONTENT = CONTENT_TYPE, CONTENT_ENCODING


class ShortCut:
    """The short cut of one channel.

    Args:
        consumer: the worker's consumer.
        lane: gets the messages.
    """

    def __init__(self, consumer: Any, lane: Lane) -> None:
        self._consumer, self._lane = consumer, lane
        self._limit = consumer.app.settings.message_limit
        self._keys = consumer.app.payload_keys
        check = consumer.app.sender_check
        self._believes = _Looks(consumer.app) if check is None else _Believes(check.signatures)
        self._channel = consumer.task_consumer.channel
        self._classes: dict[str, type[ShortRequest] | None] = {}

    def take(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Take the messages that may skip Celery's steps. Returns the others."""
        if not self._lane.knows_short or self._is_watched():  # then do not parse the messages twice
            return deliveries
        return [one for one in deliveries if not self._takes_safely(one)]

    def _takes_safely(self, delivery: Delivery) -> bool:
        try:
            return self._takes(delivery)
        except Exception:  # Celery's steps report what is wrong with the message
            logger.exception("a message cannot be taken by the short cut")
            return False

    def _is_watched(self) -> bool:
        """Whether somebody must be told of each message, or no message may begin."""
        events = self._consumer.event_dispatcher
        return bool(
            stops()
            or state.revoked_stamps
            or signals.task_received.receivers
            or self._consumer.on_task_message
            or (events and events.enabled and (not events.groups or "task" in events.groups))
        )

    def _takes(self, delivery: Delivery) -> bool:
        if delivery.deliveries != 1 or delivery.alone or delivery.changes or not delivery.receipt:
            return False
        message = plain(delivery.payload, self._limit, self._believes)
        if (
            message is None
            or not self._can_open(message)
            or not self._lane.estimates.is_short(message.task)
            or message.id in state.revoked
        ):
            return False
        if self._consumer.pauses.holds(message.task):
            return False
        if self._consumer.task_buckets[message.task] or (made := self._class_for(message.task)) is None:
            return False
        request = made(message, delivery, self._channel)
        self._channel.qos.append(None, delivery.receipt)
        if receipt_logger.isEnabledFor(logging.INFO):
            _log(message)
        state.task_reserved(request)
        self._lane.take(request)
        return True

    def _can_open(self, message: PlainMessage) -> bool:
        """Whether its key is here, if it is sealed. Else it takes Celery's steps, and waits."""
        return not message.sealed or (self._keys is not None and key_of(message.sealed) in self._keys)

    def _class_for(self, name: str) -> type[ShortRequest] | None:
        """The request class of a task; `None` if its messages must go through Celery's steps."""
        if name not in self._classes:
            task = self._consumer.app.tasks.get(name)
            fits = (
                task is not None
                and task.name == name
                and symbol_by_name(task.Strategy) is strategy
                and symbol_by_name(task.Request) is Request
                and goes_together(task, self._consumer.app, self._consumer)
            )
            self._classes[name] = short_requests(task, self._consumer) if fits else None
        return self._classes[name]


class _Looks:
    """See `simple_message.Believes`: without keys each sender is believed, but a credential is not taken from it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._names: dict[str, frozenset[str]] = {}  # of the arguments of each task that has come

    def __call__(self, headers: dict[str, Any], kwargs: dict[str, Any], body: bytes, payload: bytes) -> bytes | None:
        if SEALED in headers:
            return SealedBody.of(all_signed(headers, payload), body).bound_to
        names = self._names.get(headers["task"])
        if names is not None and kwargs.keys() <= names and is_clear(kwargs):
            return b""
        if names is None and (arguments := getattr(self._app.tasks.get(headers["task"]), "arguments", None)):
            self._names[headers["task"]] = arguments.all_names
        try:
            refuse_received(self._app, headers, body)
        except CredentialInPayload:
            return None
        return b""


class _Believes:
    """See `simple_message.Believes`. What it does not believe takes Celery's steps, and `SenderCheck` says why it is refused, or accepts it."""

    def __init__(self, signatures: Signatures) -> None:
        self._signatures = signatures

    def __call__(self, headers: dict[str, Any], kwargs: dict[str, Any], body: bytes, payload: bytes) -> bytes | None:  # noqa: ARG002  # as there
        if headers.get(FINGERPRINT) is None:  # nobody has looked at its arguments yet
            return None
        is_sealed = SEALED in headers
        headers = all_signed(headers, payload)
        fault, text = self._signatures.verified(headers, *(SEALED_CONTENT if is_sealed else CONTENT), body)
        if fault or self._signatures.fault_of_key(headers):
            return None
        return bound_to(text) if is_sealed else b""


def _log(message: PlainMessage) -> None:
    fields = {
        "id": message.id,
        "name": message.task,
        "args": message.shown_args,
        "kwargs": message.shown_kwargs,
        "eta": None,
    }
    receipt_logger.info(text_of_receipt(), fields, extra={"data": fields})
