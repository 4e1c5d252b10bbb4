"""The idempotency key of a message: which messages are the same job (R4)."""

from collections.abc import Mapping
from typing import Any

from conventions.core.canonical_json import digest
from conventions.declare.class_rules import PLANNED_TIME, IdempotentOn, Sentinel


def idempotency_key(declared: IdempotentOn, payload: Mapping[str, Any], message_id: str, planned_at: str | None) -> str:
    """The key of a message: a hash of the declared arguments and the planned time, or the message id.

    A task that is idempotent on its planned time and has none, being sent by hand, is itself: the key is the id.

    Args:
        declared: `idempotent_on` of its task.
        payload: its arguments.
        message_id: its id.
        planned_at: the slot of its schedule.
    """
    if declared is None or (declared is PLANNED_TIME and planned_at is None):
        return message_id
    values = dict(payload) if isinstance(declared, Sentinel) else {name: payload.get(name) for name in declared}
    return digest(values | ({"planned_at": planned_at} if planned_at else {}))
