"""What arrives from a sender that nobody has signed: whether it holds what looks like a credential, and the letter of it, which does not (R20).

A sender of ours looks before it sends, and signs. Others do not: programs of other languages, and ours where there are no keys.
"""

import json
from collections.abc import Mapping
from typing import Any

from conventions.broker.codec import BODY_ENCODING, body_of, body_within, bytes_of, in_base64
from conventions.broker.header_names import ACTOR, KEY
from conventions.broker.signature import of_caller
from conventions.core.errors import CredentialInPayload
from conventions.core.value_bounds import is_too_deep
from conventions.execution.application import Application
from conventions.security.credentials import LEFT_OUT, may_hold_one, shape_of, without
from conventions.security.payload_guard import refuse_in_options, refuse_in_text
from conventions.sending.callbacks import signatures_of
from conventions.sending.option_checks import refuse_step_data

WHOLE = f"{LEFT_OUT}it holds what looks like a credential)"
_STEPS = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}  # of a body, and of a send


def may_hold_credential(body: bytes) -> bool:
    """Whether a body may hold one: `False` is sure."""
    text = body.decode(errors="replace")
    if "\\" in text:  # JSON may write any letter as an escape, and PHP writes each slash so
        try:
            text = json.dumps(json.loads(text), ensure_ascii=False)
        except (ValueError, RecursionError):
            return True
    return may_hold_one(text)


def refuse_received(app: Application, headers: Mapping[str, Any], body: bytes) -> None:
    """Refuse a message of a task of ours that holds one. What cannot be read is refused elsewhere. A function has none of our rules.

    Args:
        app: the application.
        headers: of the message.
        body: its bytes, in any form that Celery reads.

    Raises:
        CredentialInPayload: it names the place, never the value.
    """
    try:
        _refuse(app, headers, body)
    except CredentialInPayload:
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):  # it is no message of a task
        return


def _refuse(app: Application, headers: Mapping[str, Any], body: bytes) -> None:
    name, args, kwargs, embed = _read(headers, body)
    task = app.tasks.get(name)
    if not hasattr(task, "arguments"):
        return
    for option, value in (("id", headers.get("id")), ("idempotency_key", headers.get(KEY)), ("actor", headers.get(ACTOR))):  # fmt: skip
        if isinstance(value, str):
            refuse_in_text(name, option, value)
    refuse_in_options(name, {"headers": of_caller(headers)})
    if not may_hold_credential(body):
        return
    refuse_step_data(name, task, {"args": args, "kwargs": kwargs, "options": {}, "immutable": True})
    for where, step in signatures_of(name, {_STEPS[one]: steps for one, steps in embed.items() if one in _STEPS}):
        refuse_step_data(where, app.tasks.get(step["task"]), step, app.settings.function_credentials)


def _read(headers: Mapping[str, Any], body: bytes) -> tuple[str, Any, Any, Mapping[str, Any]]:
    """The task, its arguments and the steps after it, in the forms of both protocols of Celery."""
    found = json.loads(body)
    if isinstance(found, dict):
        return headers.get("task") or found["task"], found.get("args") or (), found.get("kwargs") or {}, found
    args, kwargs, embed = found
    return headers["task"], args, kwargs, embed or {}


def without_credentials(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """A message as its letter keeps it, in the form of `Refusals.record`; the same one where it holds none."""
    found = dict(envelope)
    for name in ("headers", "headers_of_it"):
        if name in found and not is_too_deep(found[name]):  # else it is a part of what stands in the body
            found[name] = without(found[name])
    if "base64" in found:  # the beginning of a large one
        if _has_shape(bytes_of(found["base64"])):
            found["base64"] = in_base64(WHOLE.encode())
        return found
    body = body_of(envelope)
    if (safe := _safe(body)) != body:
        found["body"] = in_base64(safe)
        properties = envelope.get("properties")
        found["properties"] = {
            **(properties if isinstance(properties, Mapping) else {}),
            "body_encoding": BODY_ENCODING,
        }
    return found


def _safe(body: bytes) -> bytes:
    if not may_hold_credential(body):
        return body
    try:
        value = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError):
        value = None
    if value is None or is_too_deep(value):  # nobody can say where in it
        return WHOLE.encode() if _has_shape(body) else body
    hidden = without(value)
    return body if hidden == value else json.dumps(hidden).encode()


def _has_shape(raw: bytes) -> bool:
    """Whether bytes, or the body of the message that they are, hold a text that looks like a credential."""
    return any(shape_of(one.decode(errors="replace")) for one in (raw, body_within(raw)))
