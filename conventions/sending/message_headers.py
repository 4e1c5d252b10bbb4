"""The headers of a new message: its actor, its idempotency key, the time of the send, the slot of its schedule."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from conventions.broker.header_names import BATCH, ENQUEUED_AT, PLANNED_AT
from conventions.core.canonical_json import digest_of_json
from conventions.core.value_bounds import fault_of_name
from conventions.execution.current_job import inherited_headers
from conventions.execution.declared_task import DeclaredTask
from conventions.execution.job_names import name_headers
from conventions.security.payload_guard import refuse_in_options, refuse_in_text
from conventions.sending.named_task import Named


def headers_for(
    task: DeclaredTask,
    payload: Mapping[str, Any],
    written: bytes,
    message_id: str,
    given: Mapping[str, Any],
    *,
    actor: str | None = None,
    key: str | None = None,
    planned_at: datetime | str | None = None,
) -> dict[str, Any]:
    """The headers of a new message.

    Args:
        task: the task.
        payload: its arguments.
        written: the payload as canonical JSON.
        message_id: the message's id.
        given: the caller's headers.
        actor: who causes it.
        key: in place of the key from the declared arguments.
        planned_at: the slot of a schedule, aware.

    Raises:
        TypeError: id, actor or key is no text, or `planned_at` no moment.
        ValueError: one of them is empty, or cannot be stored; or `planned_at` has no time zone.
    """
    check_text(task, "task_id", message_id)
    common = common_headers(task, given, actor=actor, planned_at=planned_at)
    return headers_of_own(task, payload, written, message_id, key=key, planned=common.get(PLANNED_AT)) | common


def common_headers(
    task: Named, given: Mapping[str, Any], *, actor: str | None, planned_at: datetime | str | None
) -> dict[str, Any]:
    """The headers that are the same for all messages of one call. Raises: TypeError, ValueError."""
    check_text(task, "actor", actor)
    if given:
        refuse_in_options(task.name, {"headers": given})
    planned = _planned(planned_at)
    headers = inherited_headers(actor) | {ENQUEUED_AT: datetime.now(UTC).isoformat()}
    return headers | ({PLANNED_AT: planned} if planned else {}) | dict(given)


def headers_of_own(
    task: DeclaredTask,
    payload: Mapping[str, Any],
    written: bytes,
    message_id: str,
    *,
    key: str | None = None,
    planned: str | None = None,
) -> dict[str, Any]:
    """The headers that depend on a message's arguments and id. Raises: TypeError, ValueError."""
    check_text(task, "idempotency_key", key)
    fingerprint = digest_of_json(written)
    headers = name_headers(task, payload, message_id, key=key, planned=planned, fingerprint=fingerprint)
    if member := task.member_of(payload, message_id):
        headers[BATCH] = list(member)
    return headers


def check_text(task: Named, name: str, value: Any) -> None:
    """Refuse a text that workers would refuse. `None` means that the option is absent. Raises: TypeError, ValueError."""
    if value is None:
        return
    if not isinstance(value, str):
        raise TypeError(f"{task.name}: {name} is text, not {type(value).__name__}; write {name}=str(...)")
    if not value:
        raise ValueError(f"{task.name}: {name} is empty; leave it out")
    if fault := fault_of_name(value):
        raise ValueError(f"{task.name}: {name} {fault}")
    refuse_in_text(task.name, name, value)


def _planned(value: datetime | str | None) -> str | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if not isinstance(moment, datetime):
        raise TypeError(f"planned_at is a moment with a time zone, such as datetime.now(UTC), not {value!r}")
    if moment.tzinfo is None:
        raise ValueError("planned_at has no time zone; pass an aware datetime")
    return moment.astimezone(UTC).isoformat()
