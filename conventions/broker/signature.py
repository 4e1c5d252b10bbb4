"""`Signatures`: the sender signs what never changes of a message, and the worker looks at it before it believes a header (R20).

Signed: the task, the id, the key, the fingerprint, the actor, the moment of the send, the slot, the batch, the schedule, the generation, the
expiry, the limits, the place in a group, headers of the caller, the content type, and the body, which holds the arguments and the steps after
it. What changes on the way is not: attempts, counts, delays, and what is only shown. See `docs/security.md`.

The signed text names each part with its length, so that no two messages have the same one. HMAC-SHA256: RFC 2104.
"""

import calendar
import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from kombu.utils.json import dumps, loads

from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    ENQUEUED_AT,
    FINGERPRINT,
    GENERATION,
    KEY,
    OURS,
    PLANNED_AT,
    SCHEDULE,
    SIGNATURE,
    SIGNED,
    TRACING,
)
from conventions.core.message_keys import MessageKeys

_OF_CELERY = (
    "argsrepr", "compression", "eta", "expires", "group", "group_index", "id", "ignore_result", "kwargsrepr", "lang", "origin", "parent_id",
    "replaced_task_nesting", "retries", "root_id", "shadow", "stamped_headers", "stamps", "task", "timelimit",
)  # fmt: skip
KNOWN = frozenset([*_OF_CELERY, *OURS, *TRACING])
"""Headers that Celery or this platform reads. Others are of the caller."""
OWN = ("id", KEY, FINGERPRINT, ACTOR, ENQUEUED_AT, PLANNED_AT, GENERATION, BATCH)
"""The signed headers that differ from message to message."""
SIGNED_HEADERS = frozenset([*OWN, "task", "expires", "timelimit", "group", "group_index", SCHEDULE])
"""Known headers that a signature covers."""
ALTERED = "its signature does not fit it: it was altered"
VERSION = "conventions message 1"


class Signatures:
    """Signs and verifies the messages of one application.

    Args:
        keys: the keys.
    """

    def __init__(self, keys: MessageKeys) -> None:
        self._keys = keys

    def signed(
        self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes
    ) -> dict[str, Any]:
        """The headers of a new message, with its signature."""
        names = of_caller(headers)
        found = {**headers, **({SIGNED: names} if names else {})}
        text = head(found, content_type, content_encoding) + own(found) + callers(found, names)
        return {**found, SIGNATURE: self.of(text, body)}

    def of(self, text: str, body: bytes) -> str:
        """The signature of a text and a body: the name of the key, and the code."""
        return f"{self._keys.signs_with}.{self._keys.mac(_whole(text, body))}"

    def fault_of(self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes) -> str:
        """What is wrong with the signature of a message; empty: nothing."""
        signature = headers.get(SIGNATURE)
        if not isinstance(signature, str) or not signature:
            return "it is not signed"
        name, _, mac = signature.partition(".")
        if name not in self._keys:
            return "it is signed with a key that this worker does not have"
        names = headers.get(SIGNED) or ()
        if names and not _are_names(names):
            return ALTERED
        text = head(headers, content_type, content_encoding) + own(headers) + callers(headers, names)
        right = self._keys.mac(_whole(text, body), name)
        return "" if hmac.compare_digest(right.encode(), _bytes(mac)) else ALTERED

    def knows_key_of(self, headers: Mapping[str, Any]) -> bool:
        """Whether the key that a message names is here. A message that names none needs none."""
        signature = headers.get(SIGNATURE)
        return not isinstance(signature, str) or not signature or signature.partition(".")[0] in self._keys


def head(headers: Mapping[str, Any], content_type: Any, content_encoding: Any) -> str:
    """The part of the signed text that is the same for most messages of a task."""
    get = headers.get
    return _parts(
        VERSION, get("task"), content_type, content_encoding, get("expires"), _limits(get("timelimit")), get("group"), get("group_index"),
        get(SCHEDULE),
    )  # fmt: skip


def own(headers: Mapping[str, Any]) -> str:
    """The part of the signed text that differs from message to message."""
    values = [headers.get(name) for name in OWN]
    if values[-1] is not None:
        values[-1] = _json(values[-1])
    if type(values[-2]) is int and not values[-2]:
        values[-2] = None
    return _parts(*values)


def callers(headers: Mapping[str, Any], names: Sequence[str]) -> str:
    """The part of the signed text for headers of the caller, of these names."""
    return _parts(_json([[name, headers.get(name)] for name in names])) if names else "0:"


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(one) is str for one in value) and len(set(value)) == len(value)


def of_caller(headers: Mapping[str, Any]) -> list[str]:
    """The names of the headers of the caller, in their order."""
    return sorted(headers.keys() - KNOWN)


def without_unsigned(headers: Mapping[str, Any], others: Collection[str] = ()) -> dict[str, Any]:
    """The headers of a signed message without those of a caller that its signature does not cover; `others` stay."""
    signed = headers.get(SIGNED) or ()
    return {name: one for name, one in headers.items() if name in KNOWN or name in signed or name in others}


def _parts(*values: Any) -> str:
    texts = ["" if one is None else one if type(one) is str else _text(one) for one in values]
    return "".join([f"{len(one)}:{one}" for one in texts])


def _text(value: Any) -> str:
    # JSON writes what a text is, whatever its class says of it, as that of an enumeration.
    return str.__str__(value) if isinstance(value, str) else str(value)


def _limits(value: Any) -> str:
    """Two numbers or nulls; brokers keep the number and not its type."""
    if value is None:
        return ""
    if not isinstance(value, list | tuple):
        return str(value)
    return ",".join("" if one is None else _number(one) for one in value)


def _number(value: Any) -> str:
    try:
        return repr(float(value))
    except (OverflowError, TypeError, ValueError):
        return f"none: {value!r}"


def _json(value: Any) -> str:
    """JSON of a value as a worker sees it: names are texts, and what JSON does not have is what both brokers keep of it.

    Raises: TypeError: no broker keeps it.
    """
    text = json.dumps(value, default=_kept)
    return json.dumps(json.loads(text), sort_keys=True) if "{" in text else text


def _kept(value: Any) -> Any:
    match value:
        case datetime():  # RabbitMQ keeps whole seconds in UTC
            return ["moment", calendar.timegm(value.utctimetuple())]
        case date() | time():
            return [type(value).__name__, value.isoformat()]
        case UUID():
            return ["uuid", value.hex]
        case Decimal():
            return ["decimal", str(value.normalize())]
        case bytes() | bytearray() | memoryview():  # RabbitMQ makes a text of them, where they are one
            return bytes(value).decode(errors="backslashreplace")
    known = loads(dumps(value))  # type: ignore[no-untyped-call]  # as kombu's JSON writes it, which has few types
    if known is not None and type(known) not in _PLAIN:
        raise TypeError(f"a header of {type(value).__name__} cannot be signed; write str(...)")
    return known


_PLAIN = (str, int, float, bool, list, dict)


def _whole(text: str, body: bytes) -> bytes:
    return f"{text}{len(body)}:".encode(errors="surrogatepass") + body


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
