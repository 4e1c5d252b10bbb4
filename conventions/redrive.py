"""Redrive: send a dead letter again, with its id and idempotency key, and with fresh attempts (R18)."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from conventions import dead_letters, executions
from conventions.errors import IdempotencyConflict, PayloadError
from conventions.given_headers import OwnHeaders
from conventions.job import COPY, COUNTS, ENQUEUED_AT, FINGERPRINT, GENERATION, KEY, PARKED, UNKNOWN, UNKNOWN_SINCE
from conventions.letter_filter import Filter
from conventions.sending import publish
from conventions.tables import DeadLetterRow

ASK_WORKERS = 1.0  # seconds that workers have to answer
DRIVEN_FROM = "long"  # the queue of the task that carries out redrives

type Sent = Literal["sent", "happened", "not dead", "unknown task"]


def redrive(app: Any, id: str) -> bool:  # noqa: A002  # the word of the glossary
    """Send one dead letter again. False when it is not dead any more, or its task is not registered.

    The message is the one that died, chain, callbacks and all, one generation later.

    Raises:
        BrokerUnavailable: nothing was sent and the letter stays dead.
        PayloadError: its arguments do not fit the task any more.
    """
    return send_again(app, id) in ("sent", "happened")


def send_again(app: Any, id: str, redrive_id: str | None = None, state: str = "dead") -> Sent:  # noqa: A002
    """As `redrive`, and say what became of it; `happened`: its effect is there already, so nothing was sent.

    Args:
        app: the application.
        id: of the letter.
        redrive_id: the redrive that it belongs to.
        state: the one that it must be in.

    Raises:
        BrokerUnavailable, PayloadError: as `redrive`.
    """
    with app.database.session() as session:
        # The row stays locked until the message is out: a second redrive at the same time sends nothing.
        letter = session.get(DeadLetterRow, id, with_for_update=True)
        if letter is None or letter.state != state:
            return "not dead"
        task = app.tasks.get(letter.task)
        if task is None:
            return "unknown task"
        if hasattr(task, "arguments"):
            _check(task, letter)
        letter.redrive_id = redrive_id
        if not _is_followed(letter) and _has_happened(app, session, letter):
            letter.state = "redriven"
            return "happened"
        letter.state = "redriving"
        _send(app, letter, task)
        return "sent"


def leave(app: Any, id: str, redrive_id: str, state: str = "dead") -> None:  # noqa: A002
    """Note that a redrive could not send a letter, which stays what it was; one that was lost on its way is dead."""
    with app.database.session() as session:
        letter = session.get(DeadLetterRow, id, with_for_update=True)
        if letter is not None and letter.state == state:
            letter.redrive_id = redrive_id
            letter.state = "dead" if state == "redriving" else state


def doubts(app: Any, session: Session, which: Filter) -> list[str]:
    """What speaks against sending these letters now: their task is gone, or nobody consumes their queue."""
    kinds = dead_letters.kinds(session, which)
    unknown = sorted({str(task) for task, _ in kinds if task not in app.tasks})
    found = [f"task {task} is not registered here: its letters cannot be sent" for task in unknown]
    try:
        answers = app.control.inspect(timeout=ASK_WORKERS).active_queues() or {}
    except (OperationalError, *app.broker_errors) as error:
        return [*found, f"the broker cannot be reached: {error}"]
    consumed = {queue["name"] for queues in answers.values() for queue in queues}
    wanted = {str(queue) for _, queue in kinds} | {DRIVEN_FROM}
    return found + [f"no worker consumes the queue {queue}" for queue in sorted(wanted - consumed)]


def _send(app: Any, letter: DeadLetterRow, task: Any) -> None:
    app.store.redis.delete(app.claims.cancel_key(letter.id))  # it was cancelled before somebody wanted it again
    message = dead_letters.message(letter)
    if message and "headers" in message:
        _send_message(app, letter, message)
    else:
        task.apply_async(
            kwargs=letter.arguments, task_id=letter.id, headers=OwnHeaders(_headers(letter, letter.headers))
        )


def _has_happened(app: Any, session: Session, letter: DeadLetterRow) -> bool:
    """Whether the job was done since, by this message or another one of its key: the claim knows, then the history."""
    key, fingerprint = letter.headers.get(KEY), letter.headers.get(FINGERPRINT)
    if key and (done := app.claims.is_done(f"{letter.task}:{key}", letter.id, fingerprint)) is not None:
        return bool(done)
    if letter.error == IdempotencyConflict.__name__:  # what its key has done is another job
        key = None
    since = executions.moment(letter.headers.get(ENQUEUED_AT)) or letter.first_failed_at
    return executions.has_succeeded(session, letter.task, letter.id, key, since)


def _is_followed(letter: DeadLetterRow) -> bool:
    """Whether callbacks, a chain or a chord wait for the job: then it is sent, and its claim answers with the result."""
    message = dead_letters.message(letter)
    try:
        _, _, embed = decoded(message)
    except (ValueError, TypeError, KeyError):
        return False
    return any(embed.get(name) for name in ("callbacks", "chain", "chord"))


def decoded(message: Any) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Arguments, named arguments and options of a stored message. Raises: ValueError, TypeError, KeyError."""
    args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
    return list(args), dict(kwargs), dict(embed or {})


def _check(task: Any, letter: DeadLetterRow) -> None:
    if not isinstance(letter.arguments, dict):
        raise PayloadError(f"{letter.id}: its arguments are not a mapping")
    message = dead_letters.message(letter)
    if isinstance(message, dict) and "base64" in message:
        raise PayloadError(
            f"{letter.id}: its bytes are no message of a task, or not all of them are kept; send the job anew"
        )
    try:
        task.arguments.bind((), letter.arguments)
    except TypeError as error:
        raise PayloadError(str(error)) from error


def _headers(letter: DeadLetterRow, headers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {
        name: value for name, value in headers.items() if name not in (COUNTS, PARKED, COPY, UNKNOWN, UNKNOWN_SINCE)
    }
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
