"""Redrive one dead letter: send it again with its id and its idempotency key, and with new attempts (R18)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from conventions.broker.caller_headers import AcceptedHeaders, OwnHeaders
from conventions.broker.codec import (
    CONTENT_ENCODING,
    CONTENT_TYPE,
    UnreadableBody,
    as_kombu_reads,
    bytes_of,
    json_of_kombu,
    read_body,
)
from conventions.broker.header_names import (
    COPY,
    COUNTS,
    ENQUEUED_AT,
    FINGERPRINT,
    GENERATION,
    KEY,
    OTHER_NAMES,
    PARKED,
    READY_AT,
    REDRIVEN_BY,
    SEALED,
    SIGNATURE,
    SIGNED,
    UNKNOWN,
    UNKNOWN_SINCE,
)
from conventions.broker.message_form import CANVASES, fault_of
from conventions.core.error_text import cut
from conventions.core.errors import IdempotencyConflict, PayloadError
from conventions.core.priority import Priority
from conventions.core.time_units import moment
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.sealed_letters import refuse_of_another
from conventions.declare.arguments_as_json import Arguments
from conventions.execution.application import Application
from conventions.records import executions
from conventions.sealing.kept_message import sealed_in
from conventions.sealing.sealed_body import NOTHING_FOLLOWS, follows
from conventions.security.credentials import LEFT_OUT
from conventions.sending.publish import publish_written
from conventions.storage.tables import DeadLetterRow

ANEW = {"retries": 0, "eta": None, "expires": None}


def redrive(app: Application, id: str, by: str) -> bool:  # noqa: A002  # the word of the glossary
    """Send one dead letter again. False if it is no longer dead, or its task is not registered.

    The message is the same as before, with its chain and callbacks, one generation later.

    Args:
        app: the application.
        id: of the letter.
        by: who does it. Where its task requires a permission, he needs it, too.

    Raises:
        BrokerUnavailable: nothing was sent, and the letter stays dead.
        PayloadError: its arguments no longer fit the task; or they are sealed, and cannot be opened here.
    """
    with app.database.session() as session:
        # The row stays locked until the message is sent, so a second redrive at the same time sends nothing.
        letter = session.get(DeadLetterRow, id, with_for_update=True)
        if letter is None or letter.state != "dead":
            return False
        match send(app, session, letter, by):
            case "unknown task":
                return False
            case "happened":
                letter.state, letter.answer = "redriven", "succeeded"
            case "sent":
                letter.state, letter.answer = "redriving", None
        letter.redrive_id = letter.answered_at = None
        return True


def send(
    app: Application,
    session: Session,
    letter: DeadLetterRow,
    by: str,
    priority: Priority | None = None,
    *,
    fits: bool = True,
) -> Literal["sent", "happened", "unknown task"]:
    """Send the message of a letter again. The letter itself does not change.

    Args:
        app: the application.
        session: reads what has happened since.
        letter: what is sent.
        by: who sends it again.
        priority: how urgent; `None`: as it was.
        fits: whether its arguments must fit the task as this process knows it. The worker that gets it may know another release.

    Returns:
        `happened`: the effect already exists, so nothing was sent.

    Raises:
        BrokerUnavailable, PayloadError: as `redrive`.
    """
    task = app.tasks.get(letter.task)
    if task is None:
        return "unknown task"
    if letter.task in CANVASES:
        raise PayloadError(
            f"{letter.id}: it is a group, chain or chord that could not be sent as a step, and no job; send its tasks anew"
        )
    _refuse_left_out(letter)
    refuse_of_another(app, letter)
    if hasattr(task, "arguments"):
        _check(letter)
        if fits or not _is_whole(letter):  # else its message is made here
            _check_arguments(app, task.arguments, letter)
    # Who lacks a permission must not hear of another's result: the worker asks first.
    asks = getattr(task, "requires", None) is not None
    if not asks and not _has_follow_ups(letter) and _has_happened(app, session, letter):
        return "happened"
    _send(app, letter, task, by, priority)
    return "sent"


def _send(
    app: Application, letter: DeadLetterRow, task: Any, by: str, priority: Priority | None
) -> None:  # of Celery: a letter may be of a function
    app.store.redis.delete(app.claims.cancel_key(letter.id))  # an earlier cancel must not stop the new attempt
    message = dead_letters.message(letter)
    if message and "headers" in message:
        _send_message(app, letter, message, by, priority)
    else:
        headers = _headers(letter, letter.headers, by)
        checked = AcceptedHeaders if KEY in headers else OwnHeaders
        more = {} if priority is None else {"priority": priority}
        task.apply_async(kwargs=letter.arguments, task_id=letter.id, headers=checked(headers), **more)


def _has_happened(app: Application, session: Session, letter: DeadLetterRow) -> bool:
    """Whether the job was done since, by this message or another one with its key. Asks the claim, then the executions."""
    key, fingerprint = letter.headers.get(KEY), letter.headers.get(FINGERPRINT)
    for name, print_ in [(key, fingerprint), letter.headers.get(OTHER_NAMES) or (None, None)]:
        if name and (done := app.claims.is_done(f"{letter.task}:{name}", letter.id, print_)) is not None:
            return bool(done)
    if letter.error == IdempotencyConflict.__name__:  # its key belongs to another job
        key = None
    since = moment(letter.headers.get(ENQUEUED_AT)) or letter.first_failed_at
    other = (letter.headers.get(OTHER_NAMES) or (None,))[0]
    return any(
        executions.has_succeeded(session, letter.task, letter.id, one, since) for one in {key, other if key else None}
    )


def _has_follow_ups(letter: DeadLetterRow) -> bool:
    """Whether callbacks, a chain or a chord wait for the job. Then it is sent, and its claim answers with the result."""
    message = dead_letters.message(letter)
    if sealed_in(message) is not None:
        return bool(follows(message["headers"]) - {"errbacks"})
    try:
        embed = read_body(message).options
    except UnreadableBody:
        return False
    return any(embed.get(name) for name in ("callbacks", "chain", "chord"))


def _is_whole(letter: DeadLetterRow) -> bool:
    message = dead_letters.message(letter)
    return bool(message and "headers" in message)


def _check_arguments(app: Application, arguments: Arguments, letter: DeadLetterRow) -> None:
    message = dead_letters.message(letter)
    sealed = sealed_in(message)
    args, kwargs = ((), letter.arguments) if sealed is None else sealed.opened(app.payload_keys)[:2]
    try:
        arguments.bind(args, kwargs)
    except TypeError as error:
        raise PayloadError(str(error)) from error


def _refuse_left_out(letter: DeadLetterRow) -> None:
    """Refuse a letter from which a credential was left out: its job would take the note for the value. Raises: PayloadError."""
    message = dead_letters.message(letter)
    texts = [json.dumps(letter.arguments, ensure_ascii=False)]
    with suppress(UnreadableBody):
        texts.append(json.dumps(read_body(message), ensure_ascii=False))
    if any(f'"{LEFT_OUT}' in text for text in texts):
        raise PayloadError(f"{letter.id}: what looks like a credential was left out of it: edit its arguments first")


def _check(letter: DeadLetterRow) -> None:
    if not isinstance(letter.arguments, dict):
        raise PayloadError(f"{letter.id}: its arguments are not a mapping")
    message = dead_letters.message(letter)
    if isinstance(message, dict) and "base64" in message:
        raise PayloadError(
            f"{letter.id}: its data is not a message of a task, or was not kept in full; send the job anew"
        )
    whole: Mapping[str, Any] = message if isinstance(message, dict) and "headers" in message else {}
    found = whole.get("headers") or letter.headers
    if not isinstance(found, dict):
        raise PayloadError(f"{letter.id}: its headers are not a mapping; send the job anew")
    headers = _headers(letter, found, "") | ANEW
    if fault := fault_of(headers, whole.get("properties"), [], {}, None):
        raise PayloadError(f"{letter.id}: no worker would take it again ({fault}); send the job anew")


def _headers(letter: DeadLetterRow, headers: Mapping[str, Any], by: str) -> dict[str, Any]:
    anew = (COUNTS, PARKED, COPY, UNKNOWN, UNKNOWN_SINCE, READY_AT, SIGNATURE, SIGNED)
    kept = {name: value for name, value in headers.items() if name not in anew}
    sent = {GENERATION: letter.generation + 1, ENQUEUED_AT: datetime.now(UTC).isoformat(), REDRIVEN_BY: cut(by)}
    return kept | sent


def _send_message(
    app: Application, letter: DeadLetterRow, message: Mapping[str, Any], by: str, priority: Priority | None
) -> None:
    headers = as_kombu_reads(_headers(letter, message["headers"], by) | ANEW)  # as a sender has them, who signs them so
    properties = message.get("properties") or {}
    body, content = bytes_of(message["body"]), (message["content-type"], message["content-encoding"])
    if (sealed := sealed_in(message)) is not None:  # the channel seals it for its new headers
        headers[SEALED] = NOTHING_FOLLOWS  # also where somebody has taken that away
        body, content = json_of_kombu(sealed.opened(app.payload_keys)).encode(), (CONTENT_TYPE, CONTENT_ENCODING)
    publish_written(
        app,
        letter.id,
        letter.queue,
        body,
        content=content,
        headers=headers,
        properties=properties,
        priority=properties.get("priority") if priority is None else int(priority),
    )
