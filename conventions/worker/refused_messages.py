"""`Refusals`: dead letters of messages that never reach a task's own code."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Literal, Protocol
from uuid import UUID, uuid4, uuid5

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeout

from conventions.broker.batch_membership import Member
from conventions.broker.codec import (
    BODY_ENCODING,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    DELIVERY,
    UnreadableBody,
    as_kombu_writes,
    body_of,
    body_within,
    bytes_of_body,
    in_base64,
    read_body,
)
from conventions.broker.delivery import Delivery, tag_of
from conventions.broker.header_names import ACTOR, BATCH, ENQUEUED_AT, GENERATION, KEY, OURS, SIGNATURE, SIGNED
from conventions.broker.redis_broker import HeldMessage
from conventions.broker.signature import as_sent, without_unsigned
from conventions.core import error_text
from conventions.core.actor import SYSTEM, UNSIGNED
from conventions.core.deadline import Deadline
from conventions.core.errors import CredentialInPayload, KeyRevoked, SignatureRefused, UndeliverableMessage
from conventions.core.value_bounds import LARGEST_COUNT, is_too_deep
from conventions.execution.application import Application
from conventions.execution.attempt import Attempt
from conventions.execution.batch_follow_up import follow_up, join_of
from conventions.execution.failure_log import log_refusal
from conventions.execution.record_interrupted import record_kept
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.records.journal import Event
from conventions.storage.redis_store import DISK_TIMEOUT
from conventions.worker.received_credentials import without_credentials
from conventions.worker.sender_check import SenderCheck, of_nobody
from conventions.worker.unsigned_limits import without_steps

logger = logging.getLogger(__name__)

Try = Literal["only", "first", "another"]  # of those that record one death: after the only one the message comes again
WITHIN = DISK_TIMEOUT + 1.0  # seconds that the worker's loop takes to record one: its disk may need all of its time
AWAY = 5.0  # seconds without another try after one that failed: the loop keeps all else that the worker has
KEPT = 64 * 1024  # bytes of a message that is too large: at its beginning, and at its end, where its headers are
HEADERS = b'"headers": '
UNSIGNED_IDS = UUID("6d1f0f3c-6b0e-4d57-9a5e-0f7c2f1f9b11")  # of letters of messages that nobody has signed
# Headers by which a message names itself and others, and shows what it holds.
NAMES = frozenset(["id", "root_id", "parent_id", "shadow", "argsrepr", "kwargsrepr"])


class CheckingApplication(Application, Protocol):
    """An application that knows whom a worker believes."""

    @property
    def sender_check(self) -> SenderCheck | None:
        """`None`: everybody, since there are no keys."""


class Refusals:
    """Ends messages of one application that cannot be run. Nothing is removed before its dead letter is stored.

    What the worker's loop tries itself ends within `WITHIN` seconds. After a try that failed, others fail at once for `AWAY` seconds.
    """

    def __init__(self, app: CheckingApplication) -> None:
        self._app = app
        self._away_until = -math.inf  # on the monotonic clock

    def undeliverable(self, delivery: Delivery, error: BaseException) -> None:
        """End what came out of a queue and cannot be handed to Celery."""
        held = HeldMessage(tag_of(delivery.tag), delivery.queue, delivery.receipt)
        found: Exception = error if isinstance(error, UndeliverableMessage) else _undeliverable(error)
        is_large = len(delivery.payload) > self._app.settings.message_limit
        try:
            envelope = _beginning(delivery.payload) if is_large else _envelope(delivery.payload)
            if isinstance(properties := envelope.get("properties"), dict):  # only a channel writes this one
                envelope["properties"] = {name: one for name, one in properties.items() if name != DELIVERY}
            headers, body = _mapping(envelope.get("headers_of_it")), body_within(delivery.payload) if is_large else b""
            is_known = not (is_large and self._is_signed(headers, (CONTENT_TYPE, CONTENT_ENCODING), body))
            recorded = self.record(envelope, found, held, stored=True, whole=not is_large, is_known=is_known)
        except Exception:
            logger.exception("a message in %s cannot be refused as it is: its letter says less", delivery.queue)
            recorded = self._record_bare(delivery, found, held)
        if recorded:
            self._app.in_flight.acknowledge(delivery.receipt)
        else:
            self._app.in_flight.give_back(delivery.receipt, wait=1.0, counted=True)

    def _record_bare(self, delivery: Delivery, error: Exception, held: HeldMessage) -> bool:
        # Nothing of it is known, so its letter has what lies in Redis, under an id that nobody else has.
        bare: dict[str, Any] = {}
        if self._app.sender_check is not None:
            headers = {"id": _id_of_nobody(_tag(held)), ACTOR: UNSIGNED}
            raw = delivery.payload
            bare = without_credentials({"base64": in_base64(raw[:KEPT]), "bytes": len(raw), "headers_of_it": headers})
        try:
            return self.record(bare, error, held, stored=True, is_known=False)
        except Exception:  # the worker must go on, and the message comes again
            logger.exception("a message in %s can be neither run nor refused", delivery.queue)
            return False

    def message(
        self, message: Any, error: Exception, kind: str = "dead", which: Try = "only", begun: Attempt | None = None
    ) -> bool:
        """End a message that Celery has in hand. False when that could not be recorded: do not acknowledge.

        Args:
            message: as kombu gives it.
            error: why it ends.
            kind: of the journal's event.
            which: whether the caller, who says so, holds the message and tries again, and which try this is.
            begun: the attempt that ends with it, where one runs.
        """
        delivery = _mapping(message.properties).get(DELIVERY)
        held = HeldMessage.of(delivery) if delivery else None
        body, headers = bytes_of_body(message.body), _mapping(message.headers)
        is_large = len(body) > self._app.settings.message_limit
        # kombu's other transports have the route among the properties.
        properties = {"delivery_info": message.delivery_info, **_mapping(message.properties)}
        envelope = (
            _shortened(body, headers) | {"properties": {"delivery_info": properties["delivery_info"]}}
            if is_large
            else {
                "body": in_base64(body),
                "headers": headers,
                "properties": {**properties, "body_encoding": BODY_ENCODING},
                "content-type": message.content_type,
                "content-encoding": message.content_encoding,
            }
        )
        content = message.content_type, message.content_encoding
        is_known = not (is_large and self._is_signed(headers, content, body))
        return self.record(
            envelope,
            error,
            held,
            stored=held is not None,
            kind=kind,
            whole=not is_large,
            which=which,
            begun=begun,
            is_known=is_known,
        )

    def record(
        self,
        envelope: dict[str, Any],
        error: BaseException,
        held: HeldMessage | None,
        *,
        stored: bool,
        kind: str = "dead",
        whole: bool = True,
        which: Try = "only",
        begun: Attempt | None = None,
        is_known: bool = True,
    ) -> bool:
        """Settle a message without a claim.

        Args:
            envelope: the message as kombu writes it, as far as it can be read.
            error: why it ends.
            held: where it is in Redis.
            stored: whether Redis has it, so that the script adds it to the journal.
            kind: of the journal's event.
            whole: whether the journal may keep all of the message; else `envelope` is kept, and the caller removes the message.
            which, begun: as in `message`.
            is_known: whether the envelope is the message, so that its signature can be looked at.
        """
        if is_known and begun is None and kind == "dead":
            envelope, is_all = self._believed(envelope, held, error)
            whole = whole and is_all
        in_place = self._app.port.in_place(held) if whole else None
        # Without keys the settle script adds the message of a dead letter, as it lies in Redis; other ends keep none of it.
        is_added = stored and in_place and (self._app.sender_check is None or kind != "dead")
        event = _event(envelope, error, held, kind, None if is_added else _without_delivery(envelope))
        if begun is not None:
            event = _with_attempt(event, begun, self._app.release)
        # A name that cannot be written is one with escapes here, as in SQL.
        message_id = error_text.cut(event.message_id)
        request = ClaimRequest("", "", event.token, message_id, "", held=in_place)
        member = Member.read(_mapping(envelope.get("headers") or envelope.get("headers_of_it")).get(BATCH))
        state: Any = "dead" if kind == "dead" else "released"
        if kind == "dead" and which != "another":  # one line for one death
            log_refusal(message_id, event.task, error)
        try:
            with self._in_loop() if which == "only" else nullcontext():
                record_kept(self._app, [event])
                join = join_of(self._app, member, "dead" if kind == "dead" else "cancelled")
                self._app.claims.settle([Settlement(request, state, event, claimed=False, join=join)])
                self._app.port.secure()
                if member:
                    follow_up(self._app, member)
        except RedisError as unreachable:
            if which == "only":
                logger.error("dead letter not stored yet: id=%s: %s; the message comes again", message_id, unreachable)
            return False
        return True

    def _is_signed(self, headers: Mapping[str, Any], content: tuple[Any, Any], body: bytes) -> bool:
        """Whether a sender with the keys has sent a message of which only the beginning is kept."""
        check = self._app.sender_check
        return (
            check is not None
            and bool(headers.get(SIGNATURE))
            and not check.signatures.fault_of(headers, *content, body)
        )

    def _believed(
        self, envelope: dict[str, Any], held: HeldMessage | None, error: BaseException
    ) -> tuple[dict[str, Any], bool]:
        """What a letter keeps of a message, and whether that is all of it; `error`: why it ends.

        What nobody with the keys has sent takes the place of no other letter, and joins no batch. What is not signed keeps no credential.
        """
        check, headers = self._app.sender_check, _mapping(envelope.get("headers"))
        if check is not None:
            properties = _mapping(envelope.get("properties"))
            delivery = _mapping(properties.get(DELIVERY))
            queue = held.queue if held else _text(_mapping(properties.get("delivery_info")).get("routing_key")) or ""
            content = envelope.get("content-type"), envelope.get("content-encoding")
            try:
                found = check.look(headers, delivery, content, body_of(envelope), queue)
            except KeyRevoked:
                sent = as_sent(headers, delivery)
                found = without_unsigned(sent) | {"retries": headers.get("retries")}
                return {**envelope, "headers": found}, found == headers
            except SignatureRefused:
                return _kept_of_nobody(envelope, queue, as_sent(headers, delivery)), False
            if found.get(SIGNATURE) and not isinstance(error, CredentialInPayload):
                return {**envelope, "headers": found}, found == headers
            if found.get(ACTOR) == UNSIGNED:
                return _kept_of_nobody(envelope, queue, found), False
            envelope = {**envelope, "headers": found}
        safe = without_credentials(envelope)
        return safe, safe == envelope and headers == envelope.get("headers")

    @contextmanager
    def _in_loop(self) -> Iterator[None]:
        """Bound the time of one try. Raises: RedisError, also where the try before has failed just now."""
        if time.monotonic() < self._away_until:
            raise RedisTimeout("the store did not answer a moment ago")
        try:
            with Deadline(WITHIN, once=False):
                yield
        except (RedisConnectionError, RedisTimeout):  # another error is of this message
            self._away_until = time.monotonic() + AWAY
            raise


def _event(
    envelope: dict[str, Any], error: BaseException, held: HeldMessage | None, kind: str, message: dict[str, Any] | None
) -> Event:
    headers = _mapping(envelope.get("headers") or envelope.get("headers_of_it"))
    task, dead = _text(headers.get("task")), kind == "dead"
    route = _mapping(_mapping(envelope.get("properties")).get("delivery_info"))
    return Event(
        message_id=str(headers.get("id") or (_tag(held) if held else uuid4().hex)),
        kind=kind,
        task=task,
        queue=held.queue if held else _text(route.get("routing_key")),
        actor=_text(headers.get(ACTOR)) or SYSTEM,
        key=_text(headers.get(KEY)),
        generation=_number(headers.get(GENERATION)),
        attempt=_number(headers.get("retries")),
        token=held.receipt if held else uuid4().hex,
        enqueued_at=_text(headers.get(ENQUEUED_AT)),
        failure=error_text.describe(task, error) if dead else None,
        arguments=_arguments(envelope) if dead else None,
        headers={name: headers[name] for name in OURS if name in headers and name not in (SIGNATURE, SIGNED)},
        message=message,
    )


def _id_of_nobody(told: str) -> str:
    """The id of a letter of what nobody with the keys has sent: another one for each, and the same each time that it comes."""
    return f"unsigned-{uuid5(UNSIGNED_IDS, hashlib.sha256(told.encode(errors='surrogatepass')).hexdigest())}"


def _kept_of_nobody(envelope: Mapping[str, Any], queue: str, headers: Mapping[str, Any]) -> dict[str, Any]:
    """A message that nobody with the keys has sent, as its letter keeps it.

    It has an id of its own, since that of another job may be written on it; the same each time, since it may come again. What it says of itself
    is gone, and so is what looks like a credential.

    Args:
        envelope: in the form of `Refusals.record`.
        queue: where it came from.
        headers: as they were sent.
    """
    large = "base64" in envelope
    if large:
        headers = _mapping(envelope.get("headers_of_it"))
    content = envelope["base64"].encode() if large else body_of(envelope)
    told = f"{headers.get('id')}\0{headers.get('task')}\0{hashlib.sha256(content).hexdigest()}"
    kept = {name: one for name, one in of_nobody(headers).items() if name not in NAMES}
    kept["id"] = kept["root_id"] = _id_of_nobody(told)
    if large:
        return without_credentials({**envelope, "headers_of_it": kept})
    kind, encoding = envelope.get("content-type"), envelope.get("content-encoding")
    priority = _mapping(envelope.get("properties")).get("priority")
    return without_credentials(
        {
            "body": in_base64(without_steps(content)),
            "headers": kept,
            "properties": {
                "delivery_info": {"exchange": "", "routing_key": queue},
                "priority": priority if type(priority) is int and 0 <= priority <= 9 else None,
                "body_encoding": BODY_ENCODING,
                "correlation_id": kept["id"],
            },
            "content-type": kind if kind == CONTENT_TYPE else "application/octet-stream",
            "content-encoding": encoding if encoding == CONTENT_ENCODING else "binary",
        }
    )


def _without_delivery(envelope: dict[str, Any]) -> dict[str, Any]:
    """A message as it was sent, as plain JSON values."""
    properties = {name: one for name, one in _mapping(envelope.get("properties")).items() if name != DELIVERY}
    whole = envelope if "properties" not in envelope else {**envelope, "properties": properties}
    found: dict[str, Any] = as_kombu_writes(whole)
    return found


def _with_attempt(event: Event, begun: Attempt, release: str | None) -> Event:
    """With what is known of the attempt that ends so; by its token its log is found."""
    return replace(
        event,
        attempt=begun.attempt,
        token=begun.token,
        worker=begun.worker,
        started_at=begun.started_at,
        wait=begun.waited,
        release=release,
        runtime=begun.ran,
    )


def _envelope(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and not is_too_deep(value):
        return value
    headers = _mapping(value.get("headers")) if isinstance(value, dict) else {}
    flat = {name: one for name, one in headers.items() if not isinstance(one, (dict, list))}
    return {"body": in_base64(raw), "headers": flat, "properties": {"body_encoding": BODY_ENCODING}}


def _beginning(raw: bytes) -> dict[str, Any]:
    """What is kept of a message that is too large to be read: its headers, where they are found at its end, and how it begins."""
    end = raw[-KEPT:]
    found: Any = None
    if (at := end.rfind(HEADERS)) >= 0:
        with suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(end[at + len(HEADERS) :].decode(errors="replace"))
    return _shortened(raw, _mapping(found))


def _shortened(raw: bytes, headers: dict[str, Any]) -> dict[str, Any]:
    flat = {name: one for name, one in headers.items() if not isinstance(one, dict)}
    return {"base64": in_base64(raw[:KEPT]), "bytes": len(raw), "headers_of_it": flat}


def _undeliverable(error: BaseException) -> UndeliverableMessage:
    found = UndeliverableMessage(f"{type(error).__name__}: {error}")
    found.__cause__ = error
    return found


def _tag(held: HeldMessage) -> str:
    return held.tag if isinstance(held.tag, str) else held.tag.decode(errors="backslashreplace")


def _arguments(envelope: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments, where the body is what Celery writes."""
    try:
        args, kwargs, _ = read_body(envelope)
    except UnreadableBody:
        return None
    if is_too_deep([args, kwargs]):
        return None
    return {**({"args": args} if args else {}), **kwargs}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST_COUNT else 0
