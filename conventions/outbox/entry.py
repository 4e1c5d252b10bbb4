"""`Entry`: a send that was checked, as a row of the outbox has it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from celery import uuid
from kombu.utils.json import dumps, loads

from conventions.broker.caller_headers import AcceptedHeaders
from conventions.broker.header_names import SEALED
from conventions.library_internals.celery import current_worker_task
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_text import open_text, seal_text
from conventions.sending.refused_sends import telling_refusals
from conventions.sending.send import checked_send
from conventions.sending.sendable_task import SendableTask
from conventions.sending.traced_send import traced, with_trace
from conventions.tracing.spans import SendSpan

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
        "parent_id",
        "priority",
        "queue",
        "root_id",
        "shadow",
        "soft_time_limit",
        "time_limit",
    ]
)
ARGUMENTS, OPTIONS_OF = "arguments in the outbox", "options in the outbox"  # what a sealed text is
AT_ONCE = datetime(
    1970, 1, 1, tzinfo=UTC
)  # when a new row is due: no clock of a sender counts, and it comes before all that were tried
OURS = frozenset(["actor", "idempotency_key", "planned_at", "task_id"])


class Entry(NamedTuple):
    """One message that waits for a commit. Its id and its key are fixed now.

    Attributes:
        id: of the message.
        application: the key prefix of the application that sends it.
        task: the name of its task.
        arguments: its payload.
        headers: its headers.
        options: of its send; a delay is a moment.
        written_at: when it was written.
    """

    id: str
    application: str
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
    app = task._application()  # noqa: SLF001  # the same layer
    named = {"task_id": uuid()} | {name: value for name, value in options.items() if value is not None}
    traced_send = traced(app, task, named["task_id"], named, step="create")  # another process sends it, later
    with telling_refusals(app, task.name, named), traced_send as span:
        return _entry(task, args, kwargs, named, span)


def entries_of(task: SendableTask, arguments: Iterable[Mapping[str, Any]], options: Mapping[str, Any]) -> list[Entry]:
    """As `entry_of`, for each mapping of arguments. Raises: as `entry_of`."""
    app = task._application()  # noqa: SLF001  # the same layer
    with telling_refusals(app, task.name, options), traced(app, task, None, options, step="create") as span:
        entries = [_entry(task, (), one, options, span) for one in arguments]
        span.sent(len(entries))
    return entries


def _entry(
    task: SendableTask, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], span: SendSpan
) -> Entry:
    if unknown := sorted(options.keys() - OPTIONS - OURS):
        raise TypeError(
            f"{task.name}: {unknown[0]} cannot wait in the outbox; it takes {', '.join(sorted(OPTIONS | OURS))}"
        )
    now, said, app = datetime.now(UTC), dict(options), task._application()  # noqa: SLF001  # the same layer
    how = {
        "actor": said.pop("actor", None),
        "key": said.pop("idempotency_key", None),
        "planned_at": said.pop("planned_at", None),
    }
    message_id = said.pop("task_id", None) or uuid()
    accepted = checked_send(task, args, kwargs, message_id, said, **how)
    if accepted is None:  # only within the follow-ups of a job, which are no place for a transaction
        raise TypeError(f"{task.name}: a step after a job is sent by its worker, and not by the outbox")
    payload, headers = accepted[0], with_trace(accepted[1], span)
    said.pop("headers", None)
    if "queue" in said:
        said["queue"] = _checked_queue(task, app, said["queue"])
    _note_parent(said)
    try:
        written = dumps(headers), dumps(_fixed(said, now))  # type: ignore[no-untyped-call]  # kombu has few types
    except (TypeError, ValueError) as error:
        raise TypeError(f"{task.name}: an option or a header cannot wait in the outbox: {error}") from error
    arguments, (headers_text, options_text) = json.dumps(payload), written
    if SEALED in headers and (keys := app.payload_keys) is not None:
        arguments, options_text = (
            seal_text(keys, text, what, message_id)
            for what, text in ((ARGUMENTS, arguments), (OPTIONS_OF, options_text))
        )
    return Entry(message_id, app.settings.key_prefix, task.name, arguments, headers_text, options_text, now)


def read_back(written: str) -> dict[str, Any]:
    """Headers or options of an entry. Raises: ValueError."""
    found: dict[str, Any] = loads(written)  # type: ignore[no-untyped-call]  # kombu has few types
    return found


def send_entry(task: SendableTask, entry: Entry, **connection: Any) -> None:
    """Send it, as it was checked. Under the same id each time: a message that is there, or has run, stays as it is.

    Args:
        task: its task.
        entry: what is sent.
        connection: a producer, as `apply_async` takes it.

    Raises:
        BrokerUnavailable: as `apply_async`.
        TypeError, ValueError, PayloadError: another release of the task no longer takes it; or it is sealed, and its key is not here.
    """
    headers = AcceptedHeaders(read_back(entry.headers))
    arguments, options = opened_parts(task.app.payload_keys, entry)
    task.apply_async(None, arguments, task_id=entry.id, headers=headers, **connection, **options)


def opened_parts(keys: PayloadKeys | None, entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments and the options of an entry. Raises: CannotOpen: they are sealed, and their key is not here, or they were altered."""
    arguments: dict[str, Any] = json.loads(open_text(keys, entry.arguments, ARGUMENTS, entry.id))
    return arguments, read_back(open_text(keys, entry.options, OPTIONS_OF, entry.id))


def queue_of(task: Any, entry: Any) -> str:
    """Where it goes, as far as a look tells."""
    try:
        named = read_back(open_text(task.app.payload_keys, entry.options, OPTIONS_OF, entry.id)).get("queue")
    except (AttributeError, ValueError):  # its key may not be here, either
        named = None
    return str(named or getattr(task, "queue_name", ""))


def _checked_queue(task: SendableTask, app: Any, queue: Any) -> str:
    """The name of a queue. Raises: ValueError: it is none of the configured ones, where no other may be used."""
    name = str(getattr(queue, "name", queue))
    if not app.conf.task_create_missing_queues and name not in app.amqp.queues:
        raise ValueError(
            f"{task.name}: there is no queue {name!r} in task_queues, and task_create_missing_queues is off"
        )
    return name


def _note_parent(options: dict[str, Any]) -> None:
    """The job that sends it, as Celery notes it."""
    if (parent := current_worker_task()) is not None:
        options.setdefault("parent_id", parent.request.id)
        options.setdefault("root_id", parent.request.root_id or parent.request.id)


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
