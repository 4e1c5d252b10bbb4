"""`Entry`: a send that was checked, as a row of the outbox has it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from celery import uuid

from conventions.broker.caller_headers import AcceptedHeaders
from conventions.sending.send import checked_send
from conventions.sending.sendable_task import SendableTask

# What a send may say, if it waits in the outbox: all that is JSON, or becomes a moment.
OPTIONS = frozenset(
    [
        "countdown",
        "eta",
        "expires",
        "headers",
        "ignore_result",
        "link",
        "link_error",
        "priority",
        "queue",
        "shadow",
        "soft_time_limit",
        "time_limit",
    ]
)
OURS = frozenset(["actor", "idempotency_key", "planned_at", "task_id"])


class Entry(NamedTuple):
    """One message that waits for a commit. Its id and its key are fixed now.

    Attributes:
        id: of the message.
        task: the name of its task.
        arguments: its payload.
        headers: its headers.
        options: of its send; a delay is a moment.
        written_at: when it was written.
    """

    id: str
    task: str
    arguments: str
    headers: str
    options: str
    written_at: datetime


def entry_of(task: SendableTask, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Entry:
    """Check a send as `apply_async` does, and write it down.

    Raises:
        TypeError, ValueError, PayloadError: as `apply_async`; `TypeError` also for an option that cannot wait, such as a connection.
    """
    if unknown := sorted(options.keys() - OPTIONS - OURS):
        raise TypeError(
            f"{task.name}: {unknown[0]} cannot wait in the outbox; it takes {', '.join(sorted(OPTIONS | OURS))}"
        )
    now, said = datetime.now(UTC), dict(options)
    how = {
        "actor": said.pop("actor", None),
        "key": said.pop("idempotency_key", None),
        "planned_at": said.pop("planned_at", None),
    }
    message_id = said.pop("task_id", None) or uuid()
    accepted = checked_send(task, args, kwargs, message_id, said, **how)
    if accepted is None:  # only within the follow-ups of a job, which are no place for a transaction
        raise TypeError(f"{task.name}: a step after a job is sent by its worker, and not by the outbox")
    payload, headers = accepted
    said.pop("headers", None)
    return Entry(message_id, task.name, _text(payload), _text(headers), _text(_fixed(said, now)), now)


def send_entry(task: SendableTask, entry: Entry) -> None:
    """Send it, as it was checked. Under the same id each time: a message that is there, or has run, stays as it is.

    Raises:
        BrokerUnavailable: as `apply_async`.
        TypeError, ValueError, PayloadError: another release of the task no longer takes it.
    """
    headers = AcceptedHeaders(json.loads(entry.headers))
    task.apply_async(None, json.loads(entry.arguments), task_id=entry.id, headers=headers, **json.loads(entry.options))


def _fixed(options: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The same options, with moments in place of seconds: they count from the call, and not from the commit."""
    if (countdown := options.pop("countdown", None)) is not None:
        options["eta"] = now + timedelta(seconds=countdown)
    if isinstance(expires := options.get("expires"), int | float):
        options["expires"] = now + timedelta(seconds=expires)
    for name in ("eta", "expires"):
        if isinstance(moment := options.get(name), datetime):
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            options[name] = aware.astimezone(UTC).isoformat()
    return options


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
