"""Which of two names a claim has, while the key that makes names is changed (R4, R21).

In such a rotation a message holds two names of its claim. The worker decides between them before it makes the request.
"""

from typing import Any

from conventions.broker.header_names import FINGERPRINT, KEY, OTHER_NAMES
from conventions.broker.signature import as_sent
from conventions.execution.application import Application

NAMES = "conventions_names"  # a property of a message that this process holds: the key and the fingerprint to use


def choose_name(app: Application, message: Any) -> None:
    """Note in a message which name it has. Raises: RedisError: nobody knows."""
    headers = message.headers
    task, key, other = app.tasks.get(headers.get("task")), headers.get(KEY), headers.get(OTHER_NAMES)
    if not other or not key or not hasattr(task, "arguments") or other[0] == key:
        return
    if app.claims.same_claim(task.name, key, other[0], task.horizon) != key:
        message.properties[NAMES] = [str(one) for one in other]


def named(headers: dict[str, Any], properties: dict[str, Any], delivery: dict[str, Any]) -> dict[str, Any]:
    """The headers by which a request differs from its message: the name that is used, and the other one."""
    other = headers.get(OTHER_NAMES)
    if not other:
        return {}
    sent = as_sent(headers, delivery)
    first = [sent.get(KEY), sent.get(FINGERPRINT)]
    chosen = properties.pop(NAMES, None) or [headers.get(KEY), headers.get(FINGERPRINT)]
    return {KEY: chosen[0], FINGERPRINT: chosen[1], OTHER_NAMES: list(other) if chosen[0] == first[0] else first}
