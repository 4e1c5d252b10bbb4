"""`Signatures`: the sender signs what never changes of a message, and the worker looks at it before it believes a header (R20).

Signed: the task, the id, the key, the fingerprint, the actor, the moment of the send, the slot, the batch, the schedule, the generation, the
expiry, the limits, the place in a group, headers of the caller, the content type, and the body, which holds the arguments and the steps after
it. What changes on the way is not: attempts, counts, delays, and what is only shown. See `docs/security.md`.

The signed text names each part with its length, so that no two messages have the same one. HMAC-SHA256: RFC 2104.
"""

import calendar
import functools
import hmac
import json
from collections.abc import Collection, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import UUID

from kombu.utils.json import dumps, loads

from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    EDITED_BY,
    ENQUEUED_AT,
    FINGERPRINT,
    FOUND_BY,
    GENERATION,
    KEY,
    OTHER_NAMES,
    OURS,
    PLANNED_AT,
    REDRIVEN_BY,
    SCHEDULE,
    SEALED,
    SIGNATURE,
    SIGNED,
    TRACING,
)
from conventions.core.message_keys import MessageKeys
from conventions.core.time_units import moment

_OF_CELERY = (
    "argsrepr", "compression", "eta", "expires", "group", "group_index", "id", "ignore_result", "kwargsrepr", "lang", "origin", "parent_id",
    "replaced_task_nesting", "retries", "root_id", "shadow", "stamped_headers", "stamps", "task", "timelimit",
)  # fmt: skip
LIKE_A_CALLERS = frozenset(
    [EDITED_BY, REDRIVEN_BY, SEALED, OTHER_NAMES, FOUND_BY]
)  # an earlier release, which knows them not, verifies them so
KNOWN = frozenset([*_OF_CELERY, *OURS, *TRACING]) - LIKE_A_CALLERS
"""Headers that Celery or this platform reads. Others are of the caller, or are signed as if they were."""
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
        revoked: since when a key was stolen, by its name; aware.
    """

    def __init__(self, keys: MessageKeys, revoked: Mapping[str, datetime] | None = None) -> None:
        self._keys, self._revoked = keys, revoked or {}

    def signed(
        self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes
    ) -> dict[str, Any]:
        """The headers of a new message, with its signature."""
        found = self.with_names(headers)
        return {**found, SIGNATURE: self.like(found, content_type, content_encoding).signature(found, body)}

    @staticmethod
    def with_names(headers: Mapping[str, Any]) -> dict[str, Any]:
        """The headers of a new message, with the names of those of the caller, which are signed, too."""
        names = sorted(headers.keys() - KNOWN)
        return {**headers, **({SIGNED: names} if names else {})}

    def like(self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any) -> "SignatureForm":
        """What signs messages like one with these headers: of the same task, with the same options and the same names of the caller's headers."""
        return self.signing(SignedText(headers, content_type, content_encoding))

    def signing(self, text: "SignedText") -> "SignatureForm":
        """What signs messages of which this is signed."""
        return SignatureForm(self._keys, text)

    def fault_of(self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes) -> str:
        """What is wrong with the signature of a message; empty: nothing."""
        return self.verified(headers, content_type, content_encoding, body)[0]

    def verified(
        self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any, body: bytes
    ) -> tuple[str, str]:
        """What is wrong with the signature of a message; empty: nothing. With it what was signed of its headers, see `SignedText.of_headers`."""
        signature = headers.get(SIGNATURE)
        if not isinstance(signature, str) or not signature:
            return "it is not signed", ""
        name, _, code = signature.partition(".")
        if name not in self._keys:
            return "it is signed with a key that this worker does not have", ""
        if not _are_names(headers.get(SIGNED) or ()):
            return ALTERED, ""
        text = SignedText(headers, content_type, content_encoding).of_headers(headers)
        right = self._keys.mac(with_body(text, body), name)
        fits = code.isascii() and hmac.compare_digest(right, code)  # which compares no other texts
        return ("", text) if fits else (ALTERED, "")

    def fault_of_key(self, headers: Mapping[str, Any]) -> str:
        """Why the key that has signed a message says nothing; empty: it does. The moment of the send is signed, and by whoever has the key."""
        if not self._revoked or (since := self._revoked.get(key_of(headers))) is None:
            return ""
        return fault_of_revoked(key_of(headers), since) if is_sent_since(headers, since) else ""

    def knows_key_of(self, headers: Mapping[str, Any]) -> bool:
        """Whether the key that a message names is here. A message that names none needs none."""
        signature = headers.get(SIGNATURE)
        return not isinstance(signature, str) or not signature or key_of(headers) in self._keys


def key_of(headers: Mapping[str, Any]) -> str:
    """The name of the key that a message says it is signed with; empty: none."""
    signature = headers.get(SIGNATURE)
    return signature.partition(".")[0] if isinstance(signature, str) else ""


class SignedText:
    """What is signed of messages that are alike, as one text.

    Args:
        headers: of one of them.
        content_type: of its body.
        content_encoding: of its body.
    """

    def __init__(self, headers: Mapping[str, Any], content_type: Any, content_encoding: Any) -> None:
        get = headers.get
        self._headers, self._names = headers, get(SIGNED) or ()
        limits, expires = get("timelimit"), get("expires")
        parts = (
            get("task"), content_type, content_encoding,
            None if expires is None else _text_of(expires),  # two moments that are equal may have two texts
            tuple(limits) if type(limits) is list else limits,
            get("group"), get("group_index"), get(SCHEDULE),
        )  # fmt: skip
        try:
            self._head = _head(*parts)
        except TypeError:  # one of them has no hash, as a list has none
            self._head = _head.__wrapped__(*parts)

    def of_headers(self, headers: Mapping[str, Any]) -> str:
        """All but the body, of a message that has these headers in the place of those of the first one."""
        found = headers if headers is self._headers else {**self._headers, **headers}
        *values, generation, batch = map(found.get, OWN)
        values.append(None if type(generation) is int and not generation else generation)
        values.append(None if batch is None else _json(batch))
        callers = [[name, found.get(name)] for name in self._names]
        values.append(_json_of_callers(callers) if callers else None)
        return f"{self._head}{_parts(*values)}"


def with_body(of_headers: str, body: bytes) -> bytes:
    """All that is signed of a message; `of_headers`: see `SignedText`."""
    return _bytes(f"{of_headers}{len(body)}:") + body


class SignatureForm:
    """Signs messages that are alike; see `Signatures.like`.

    Args:
        keys: the keys.
        text: what is signed of them.
    """

    def __init__(self, keys: MessageKeys, text: SignedText) -> None:
        self._keys, self.text = keys, text

    def signature(self, headers: Mapping[str, Any], body: bytes) -> str:
        """The name of the key and the code, for a message that has these headers in the place of those of the first one."""
        return self.of_text(self.text.of_headers(headers), body)

    def of_text(self, of_headers: str, body: bytes) -> str:
        """The same, of what is signed of its headers, see `SignedText`."""
        return f"{self._keys.signs_with}.{self._keys.mac(with_body(of_headers, body))}"


def is_sent_since(headers: Mapping[str, Any], since: datetime) -> bool:
    """Whether a message was sent then or later, by the clock of its sender; or nobody knows when."""
    sent = moment(headers.get(ENQUEUED_AT))
    return sent is None or sent >= since


def fault_of_revoked(key: str, since: datetime) -> str:
    """Why a message is not believed that a stolen key has signed."""
    return f"it is signed with the key {key}, which was revoked for what was sent since {since.isoformat()}"


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and {str}.issuperset(map(type, value)) and len(set(value)) == len(value)


def of_caller(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that neither Celery nor this platform reads."""
    return {name: one for name, one in headers.items() if name not in KNOWN}


def without_unsigned(headers: Mapping[str, Any], others: Collection[str] = ()) -> dict[str, Any]:
    """The headers of a signed message without those of a caller that its signature does not cover; `others` stay."""
    signed = headers.get(SIGNED) or ()
    return {name: one for name, one in headers.items() if name in KNOWN or name in signed or name in others}


def as_sent(headers: Mapping[str, Any], delivery: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that were signed: without those that differ in this delivery."""
    return {**headers, **(delivery.get("sent") or {})}


@functools.lru_cache(maxsize=1024, typed=True)  # typed: 1 and True are not signed as one
def _head(task: Any, content_type: Any, content_encoding: Any, expires: Any, limits: Any, *place: Any) -> str:
    """The parts that nearly all messages of a task have in common, kept: to write them anew took a third of a signature."""
    return _parts(VERSION, task, content_type, content_encoding, expires, _limits(limits), *place)


def _parts(*values: Any) -> str:
    return "".join([f"{len(one)}:{one}" if type(one) is str else _part(one) for one in values])


def _part(value: Any) -> str:
    text = _text_of(value)
    return f"{len(text)}:{text}"


def _text_of(value: Any) -> str:
    # JSON writes what a text is, whatever its class says of it, as that of an enumeration.
    if type(value) is str:
        return value
    if value is None:
        return ""
    return str.__str__(value) if isinstance(value, str) else str(value)


def _limits(value: Any) -> str:
    """Two numbers or nulls; brokers keep the number and not its type. Raises: TypeError, ValueError, OverflowError: they are none."""
    if not isinstance(value, (list, tuple)):
        return "" if value is None else str(value)
    return ",".join("" if one is None else repr(float(one)) for one in value)


def _json_of_callers(callers: list[list[Any]]) -> str:
    """The same as `_json`; of texts alone, as most are, in a tenth of the time."""
    if any(type(value) is not str for _, value in callers):
        return _json(callers)
    return f"[{', '.join([f'[{encode_basestring_ascii(name)}, {encode_basestring_ascii(value)}]' for name, value in callers])}]"


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
    if known is not None and type(known) not in (str, int, float, bool, list, dict):
        raise TypeError(f"a header of {type(value).__name__} cannot be signed; write str(...)")
    return known


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
