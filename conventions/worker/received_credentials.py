"""What arrives from a sender that nobody has signed: whether it holds what looks like a credential, and the letter of it, which does not (R20).

A sender of ours looks before it sends, and signs. Others do not: programs of other languages, and ours where there are no keys.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from conventions.broker.codec import BODY_ENCODING, bytes_of, bytes_of_body, in_base64
from conventions.broker.header_names import ACTOR, KEY
from conventions.broker.signature import of_caller
from conventions.core.errors import CredentialInPayload
from conventions.core.value_bounds import is_too_deep
from conventions.execution.application import Application
from conventions.security.credentials import LEFT_OUT, may_hold_one, shape_of, without
from conventions.security.payload_guard import refuse_in_options, refuse_in_text
from conventions.sending.callbacks import signatures_of
from conventions.sending.options import refuse_step_data

WHOLE = f"{LEFT_OUT}it holds what looks like a credential)"
_STEPS = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}  # of a body, and of a send
_BODY = re.compile(rb'"body": ?"([A-Za-z0-9+/]*)')  # of a message as kombu writes it


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
        if headers.get("task") is not None and not hasattr(app.tasks.get(headers["task"]), "arguments"):
            return
        is_clear = not may_hold_credential(body)
        if is_clear and headers.get("task") is None:
            return
        name, args, kwargs, embed = (headers["task"], (), {}, {}) if is_clear else _read(headers, body)
        task = app.tasks.get(name)
        if not hasattr(task, "arguments"):
            return
        for option, value in (
            ("id", headers.get("id")),
            ("idempotency_key", headers.get(KEY)),
            ("actor", headers.get(ACTOR)),
        ):
            if isinstance(value, str):
                refuse_in_text(name, option, value)
        refuse_in_options(name, {"headers": {one: headers[one] for one in of_caller(headers)}})
        refuse_step_data(name, task, {"args": args, "kwargs": kwargs, "options": {}, "immutable": True})
        for where, step in signatures_of(name, {_STEPS[one]: steps for one, steps in embed.items() if one in _STEPS}):
            refuse_step_data(where, app.tasks.get(step["task"]), step)
    except CredentialInPayload:
        raise
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):  # it is no message of a task
        return


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
        text = bytes_of(found["base64"])
        if _has_shape(text):
            found["base64"] = in_base64(WHOLE.encode())
        return found
    body = body_of(envelope)
    if (safe := _safe(body)) != body:
        found["body"] = in_base64(safe)
        found["properties"] = {**_mapping(envelope.get("properties")), "body_encoding": BODY_ENCODING}
    return found


def body_of(envelope: Mapping[str, Any]) -> bytes:
    """The bytes of the body of an envelope; none where it cannot be read."""
    body = envelope.get("body")
    if _mapping(envelope.get("properties")).get("body_encoding") == BODY_ENCODING:
        try:
            return bytes_of(body if isinstance(body, str) else "")
        except ValueError:
            return b""
    return bytes_of_body(body if isinstance(body, str | bytes) else "")


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
    inner = _BODY.search(raw)
    coded = inner[1][: len(inner[1]) // 4 * 4].decode() if inner else ""
    return any(shape_of(one.decode(errors="replace")) for one in (raw, bytes_of(coded)))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
