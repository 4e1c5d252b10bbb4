"""The idempotency key of a message: which messages are the same job (R4)."""

from collections.abc import Mapping
from typing import Any

from conventions.declare.declaration import EVERY_ARGUMENT, PLANNED_TIME
from conventions.declare.payload import digest


def idempotency_key(task: Any, payload: Mapping[str, Any], message_id: str, planned_at: str | None) -> str:
    """The key of a message: a hash of the declared arguments and the planned time, or the message id.

    A task that is idempotent on its planned time and has none, being sent by hand, is itself: the key is the id.
    """
    declared = task.idempotent_on
    if declared is None or (declared is PLANNED_TIME and planned_at is None):
        return message_id
    if declared is EVERY_ARGUMENT or declared is PLANNED_TIME:
        values = dict(payload)
    else:
        values = {name: payload.get(name) for name in declared}
    return digest(values | ({"planned_at": planned_at} if planned_at else {}))
