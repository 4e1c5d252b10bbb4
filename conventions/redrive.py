"""Redrive: send a dead letter again, with its id and idempotency key, and with fresh attempts (R18)."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from conventions import dead_letters
from conventions.errors import PayloadError
from conventions.job import COPY, COUNTS, ENQUEUED_AT, GENERATION, PARKED
from conventions.sending import publish
from conventions.tables import DeadLetterRow


def redrive(app: Any, id: str) -> bool:  # noqa: A002  # the word of the glossary
    """Send one dead letter again. False when it is not dead any more, or its task is not registered.

    The message is the one that died, chain, callbacks and all, one generation later.

    Raises:
        BrokerUnavailable: nothing was sent and the letter stays dead.
        PayloadError: its arguments do not fit the task any more.
    """
    with app.database.session() as session:
        # The row stays locked until the message is out: a second redrive at the same time sends nothing.
        return _send(app, session, id)


def _send(app: Any, session: Session, id: str) -> bool:  # noqa: A002
    letter = dead_letters.get(session, id)
    task = app.tasks.get(letter.task) if letter is not None else None
    if letter is None or task is None or not dead_letters.move(session, id, ("dead",), "redriven"):
        return False
    if hasattr(task, "arguments"):
        _check(task, letter)
    app.store.redis.delete(app.claims.cancel_key(id))  # it was cancelled before somebody wanted it again
    message = dead_letters.message(letter)
    if message and "headers" in message:
        _send_message(app, letter, message)
    else:
        task.apply_async(kwargs=letter.arguments, task_id=id, headers=_headers(letter, letter.headers))
    return True


def _check(task: Any, letter: DeadLetterRow) -> None:
    if not isinstance(letter.arguments, dict):
        raise PayloadError(f"{letter.id}: its arguments are not a mapping")
    try:
        task.arguments.bind((), letter.arguments)
    except TypeError as error:
        raise PayloadError(str(error)) from error


def _headers(letter: DeadLetterRow, headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in headers.items() if name not in (COUNTS, PARKED, COPY)}
    return kept | {GENERATION: letter.generation + 1, ENQUEUED_AT: datetime.now(UTC).isoformat()}


def _send_message(app: Any, letter: DeadLetterRow, message: Mapping[str, Any]) -> None:
    headers = _headers(letter, message["headers"]) | {"retries": 0, "eta": None, "expires": None}
    properties = message.get("properties") or {}
    with app.producer_or_acquire() as producer:
        publish(
            lambda: producer.publish(
                base64.b64decode(message["body"]),
                exchange="",
                routing_key=letter.queue,
                content_type=message["content-type"],
                content_encoding=message["content-encoding"],
                headers=headers,
                priority=properties.get("priority"),
                correlation_id=properties.get("correlation_id"),
                reply_to=properties.get("reply_to"),
                retry=False,
            ),
            app,
            with_result=False,
        )
