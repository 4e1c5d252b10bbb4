"""`Refusals`: dead letters of messages that never reach a task's own code."""

import base64
import json
import logging
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from conventions import failures
from conventions.actor import SYSTEM
from conventions.broker import Held
from conventions.delivery import Delivery
from conventions.errors import UndeliverableMessage
from conventions.following import follow_up, join_of
from conventions.idempotency import ClaimRequest, Settlement
from conventions.job import ACTOR, BATCH, ENQUEUED_AT, GENERATION, HEADER_PREFIX, KEY
from conventions.journal import Event
from conventions.membership import Member
from conventions.raw_message import DELIVERY

logger = logging.getLogger(__name__)


class Refusals:
    """Ends messages of one application that cannot be run. Nothing is removed before its dead letter is stored."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def undeliverable(self, delivery: Delivery, error: BaseException) -> None:
        """End what came out of a queue and cannot be handed to Celery."""
        held = Held(delivery.tag.decode(errors="backslashreplace"), delivery.queue, delivery.receipt)
        found = UndeliverableMessage(f"{type(error).__name__}: {error}")
        found.__cause__ = error
        try:
            recorded = self.record(_envelope(delivery.payload), found, held, stored=True)
        except Exception:  # the worker must go on; the message comes again, and not for ever
            logger.exception("a message in %s can be neither run nor refused", delivery.queue)
            recorded = False
        if recorded:
            self._app.in_flight.acknowledge(delivery.receipt)
        else:
            self._app.in_flight.give_back(delivery.receipt, wait=1.0, counted=True)

    def message(self, message: Any, error: Exception, kind: str = "dead") -> bool:
        """End a message that Celery has in hand. False when that could not be recorded: do not acknowledge."""
        delivery = _mapping(message.properties).get(DELIVERY)
        held = Held(delivery["tag"], delivery["queue"], delivery["receipt"]) if delivery else None
        body = message.body
        envelope = {
            "body": base64.b64encode(body.encode() if isinstance(body, str) else bytes(body or b"")).decode(),
            "headers": message.headers if isinstance(message.headers, dict) else {},
            "properties": {**_mapping(message.properties), "body_encoding": "base64"},
            "content-type": message.content_type,
            "content-encoding": message.content_encoding,
        }
        return self.record(envelope, error, held, stored=held is not None, kind=kind)

    def record(
        self, envelope: dict[str, Any], error: BaseException, held: Held | None, *, stored: bool, kind: str = "dead"
    ) -> bool:
        """Settle a message without a claim.

        Args:
            envelope: the message as kombu writes it, as far as it can be read.
            error: why it ends.
            held: where it is in Redis.
            stored: whether Redis has it, so that the script adds it to the journal.
            kind: of the journal's event.
        """
        one_server = self._app.one_server
        event = _event(envelope, error, held, kind, None if stored and one_server else envelope)
        request = ClaimRequest("", "", event.token, event.message_id, "", held=held if one_server else None)
        member = Member.read(_mapping(envelope.get("headers")).get(BATCH))
        state: Any = "dead" if kind == "dead" else "released"
        if kind == "dead":
            text = " ".join(str(error).split())
            logger.error(
                "refused: id=%s task=%s error=%s: %s: dead letter",
                event.message_id,
                event.task,
                type(error).__name__,
                text,
            )
        try:
            join = join_of(self._app, member, "dead" if kind == "dead" else "cancelled")
            self._app.claims.settle([Settlement(request, state, event, claimed=False, join=join)])
            if not one_server:
                self._app.store.wait_for_disk()
            if member:
                follow_up(self._app, member)
        except RedisError as unreachable:
            logger.error(
                "dead letter not stored yet: id=%s: %s; the message comes again", event.message_id, unreachable
            )
            return False
        return True


def _event(
    envelope: dict[str, Any], error: BaseException, held: Held | None, kind: str, message: dict[str, Any] | None
) -> Event:
    headers = _mapping(envelope.get("headers"))
    task, dead = _text(headers.get("task")), kind == "dead"
    route = _mapping(_mapping(envelope.get("properties")).get("delivery_info"))
    return Event(
        message_id=str(headers.get("id") or (held.tag if held else uuid4().hex)),
        kind=kind,
        task=task,
        queue=held.queue if held else _text(route.get("routing_key")),
        actor=_text(headers.get(ACTOR)) or SYSTEM,
        key=_text(headers.get(KEY)),
        generation=_number(headers.get(GENERATION)),
        attempt=_number(headers.get("retries")),
        token=held.receipt if held else uuid4().hex,
        enqueued_at=_text(headers.get(ENQUEUED_AT)),
        failure=failures.describe(task, error) if dead else None,
        arguments=_arguments(envelope) if dead else None,
        headers={name: value for name, value in headers.items() if str(name).startswith(HEADER_PREFIX)},
        message=message,
    )


def _envelope(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        return value
    return {"body": base64.b64encode(raw).decode(), "headers": {}, "properties": {"body_encoding": "base64"}}


def _arguments(envelope: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments, where the body is what Celery writes."""
    try:
        args, kwargs, _ = json.loads(base64.b64decode(envelope["body"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return {**({"args": args} if args else {}), **kwargs} if isinstance(kwargs, dict) else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
