"""What a message may do that nobody has signed, in a queue for programs that cannot sign: run a task that belongs there, and nothing after it (R20)."""

import json
from collections.abc import Mapping
from typing import Any

from conventions.core.errors import SignatureRefused
from conventions.execution.application import Application
from conventions.tasks.plain_task import is_celerys

STEPS = ("callbacks", "errbacks", "chain", "chord")  # in a body


def refuse_beyond(app: Application, headers: Mapping[str, Any], body: bytes, queue: str) -> None:
    """Refuse a message that goes further.

    Its steps would be signed by the worker that sends them; a task of another queue, or a part of a batch, would take the place of a job whose
    sender has the keys. What cannot be read is refused elsewhere.

    Args:
        app: the application.
        headers: of the message.
        body: its bytes.
        queue: where it came from.

    Raises:
        SignatureRefused.
    """
    task = app.tasks.get(str(headers.get("task")))
    if task is not None and is_celerys(task):
        raise SignatureRefused(f"it is not signed, and {task.name} would run or send any task that it names")
    own = getattr(task, "queue_name", None)
    if own is not None and own != queue:
        raise SignatureRefused(
            f"it is not signed, and {task.name} belongs to the queue {own}; nothing of it is believed"
        )
    if getattr(task, "role", None) is not None:
        raise SignatureRefused("it is not signed, and a batch is begun and run by signed messages only")
    if steps_in(body):
        raise SignatureRefused("it is not signed, and steps after a job are taken from signed messages only")


def steps_in(body: bytes) -> bool:
    """Whether the body of a message names steps after its job: in Celery's list of three parts, or in the mapping that it reads as well."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    embed = found[2] if isinstance(found, list) and len(found) > 2 else found
    return isinstance(embed, dict) and any(embed.get(name) for name in STEPS)


def without_steps(body: bytes) -> bytes:
    """The body without them."""
    if not steps_in(body):
        return body
    found = json.loads(body)
    args, kwargs = found[:2] if isinstance(found, list) else (found.get("args"), found.get("kwargs"))
    return json.dumps([args, kwargs, {}]).encode()
