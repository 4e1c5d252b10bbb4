"""Which job a message is: its idempotency key and the fingerprint of its arguments, under a key where its task is sealed (R4, R21)."""

from collections.abc import Mapping
from typing import Any

from conventions.broker.header_names import FINGERPRINT, KEY, OTHER_NAMES
from conventions.core.errors import CannotSeal
from conventions.execution.declared_task import DeclaredTask
from conventions.idempotency.key import idempotency_key
from conventions.sealing.blind_index import found_by
from conventions.sealing.name_keys import Names
from conventions.sealing.sealed_task import is_sealed


def name_headers(
    task: DeclaredTask,
    payload: Mapping[str, Any],
    message_id: str,
    *,
    key: str | None,
    planned: str | None,
    fingerprint: str,
) -> dict[str, Any]:
    """The headers that name the job of a message.

    Args:
        task: its task.
        payload: its arguments.
        message_id: its id.
        key: in place of the key from the declared arguments.
        planned: the slot of its schedule.
        fingerprint: of its arguments, as a task that is not sealed has it.

    Raises:
        CannotSeal: it is to have a sealed name, and there is no key.
    """
    plain = Names(key or idempotency_key(task.idempotent_on, payload, message_id, planned), fingerprint)
    if not is_sealed(task):
        return {KEY: plain.key, FINGERPRINT: plain.fingerprint}
    keys = task.app.name_keys
    if keys is None:
        raise CannotSeal(
            f"{task.name}: its messages are sealed, and this process has no CONVENTIONS_NAME_KEYS: set them as the workers have them"
        )
    first, *others = keys.of(plain)
    codes = found_by(keys, task.searchable, payload)
    if plain.key == message_id:  # it is no hash, and tells nothing
        return {KEY: plain.key, FINGERPRINT: first.fingerprint, **codes}
    named = {KEY: first.key, FINGERPRINT: first.fingerprint, **codes}
    return named | ({OTHER_NAMES: list(others[0])} if others else {})
