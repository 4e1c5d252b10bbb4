"""The codec of messages: every body and every message is written and read here.

A message is JSON as kombu writes it: headers, properties and a body. The body is JSON in base64. As in Celery's message
protocol 2 it has three parts: positional arguments, arguments by name, and options, which name the steps after the job.

The fast lane reads most messages by `broker/simple_message.py`, which checks the same form in one step.
"""

import hashlib
import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from kombu.utils.json import dumps, loads
from pydantic_core import from_json

from conventions.broker.delivery import Delivery, tag_of
from conventions.core.errors import UndeliverableMessage, UnknownForm
from conventions.core.value_bounds import DEEPEST, is_too_deep
from conventions.library_internals.kombu import KOMBU_TYPE

_BODY = re.compile(rb'"body": ?"([A-Za-z0-9+/]*={0,2})')  # as kombu writes it
FORM = "x_form"  # names the form of a message; the first form has no name
# Since when a message lacks nothing but a free worker, where that is not when it was sent: the end of its delay, or of a retry's wait.
READY_AT = "x_conventions_ready_at"
SEALED_FORM = 2  # of a message whose body is sealed
FORMS = (None, 1, SEALED_FORM)  # those that this release reads
DELIVERY = "conventions"  # a property of a received message, for the process that holds it

DIGESTED = ("task", "retries", "x_copy")  # headers that tell two requests with one id apart
PUT_OFF = "x_unknown"  # how often a worker did not know the task
# So do these, where they count something. The second one: how often `self.replace` was called.
DIGESTED_WHERE_SET = (PUT_OFF, "replaced_task_nesting")
CONTENT_TYPE, CONTENT_ENCODING, BODY_ENCODING = "application/json", "utf-8", "base64"
SEALED_TYPE, SEALED_ENCODING = "application/x-conventions-sealed", "binary"  # see `sealing/`

ENCODINGS = frozenset(
    ["utf-8", "utf8", "us-ascii", "ascii", "binary", "base64", ""]
)  # encodings that cannot make a message larger


class UnreadableEnvelope(Exception):
    """The received data is not a message: a part is missing or has the wrong type."""


class UnreadableBody(ValueError):
    """The body of a message does not have Celery's form."""


class Body(NamedTuple):
    """The three parts of a message's body.

    Attributes:
        args: positional arguments.
        kwargs: arguments by name.
        options: the steps after the job: `callbacks`, `errbacks`, `chain` and `chord`.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]


# A body.


def written_body(
    args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any], default: Any = None
) -> str:
    """The body of a message as text. `default` is the argument of `json.dumps`. Raises: TypeError, ValueError."""
    return in_base64(json.dumps([args, kwargs, options], default=default).encode())


def read_body(message: Any) -> Body:
    """The body of a stored message, as plain JSON. Raises: UnreadableBody for any other content."""
    try:
        args, kwargs, options = json.loads(bytes_of(message["body"]))
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise UnreadableBody(f"its body is not what Celery writes ({type(error).__name__})") from None
    options = options or {}
    if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(options, dict):
        raise UnreadableBody("its body is not what Celery writes: it has other parts")
    return Body(args, kwargs, options)


def checked_body(message: Mapping[str, Any]) -> Body:
    """The body of a message that `simple_message.plain` has checked, with kombu's own types."""
    return Body(*parsed(bytes_of(message["body"])))


def in_base64(body: bytes) -> str:
    """Bytes as the text of a message's body."""
    return b2a_base64(body, newline=False).decode()


def bytes_of(body: str) -> bytes:
    """The bytes of a body in base64. Raises: ValueError."""
    return a2b_base64(body)


def bytes_of_body(body: Any) -> bytes:
    """The body of a message in hand as bytes, as its sender wrote it."""
    return body.encode(errors="surrogatepass") if isinstance(body, str) else bytes(body or b"")


def body_of(envelope: Mapping[str, Any]) -> bytes:
    """The bytes of the body of a message as kombu writes it, whatever else is wrong with that; none where it cannot be read."""
    body, properties = envelope.get("body"), envelope.get("properties")
    if not isinstance(body, str | bytes):
        return b""
    if not isinstance(properties, Mapping) or properties.get("body_encoding") != BODY_ENCODING:
        return bytes_of_body(body)
    with suppress(ValueError):
        return a2b_base64(body)
    return b""


def body_within(raw: bytes) -> bytes:
    """The bytes of the body within a message as it is stored, without reading the rest; what is cut off at its end is left out."""
    found = _BODY.search(raw)
    coded = found[1] if found else b""
    return a2b_base64(coded[: len(coded) // 4 * 4])


class BodyForm:
    """Writes bodies like the body of a message that Celery made: the same options, other arguments.

    Args:
        message: as kombu wrote it.
        kwargs: its arguments.

    Raises:
        ValueError: the body has another form, for example because it is compressed.
    """

    def __init__(self, message: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
        encoding = message["properties"].get("body_encoding")
        if encoding != BODY_ENCODING or message["content-type"] != CONTENT_TYPE:
            raise ValueError("not the form that Celery writes")
        text, head = bytes_of(message["body"]).decode(), self._head(kwargs)
        if not text.startswith(head):
            raise ValueError("not the form that Celery writes")
        self._tail = text[len(head) :]

    @staticmethod
    def _head(kwargs: Mapping[str, Any]) -> str:
        return f"[[], {json.dumps(kwargs)}"

    def written(self, kwargs: Mapping[str, Any]) -> bytes:
        """The body for these arguments. Raises: TypeError, ValueError."""
        return f"[[], {json.dumps(kwargs)}{self._tail}".encode()


# A message.


def written_message(message: Mapping[str, Any]) -> str:
    """A message as it is stored in the broker. Raises: TypeError, ValueError."""
    text: str = dumps(message)  # type: ignore[no-untyped-call]  # kombu has few types
    return text


def json_of_kombu(value: Any) -> str:
    """JSON as kombu writes it, which names the types that JSON lacks, such as a moment. A value of another type becomes its `repr`."""
    try:
        return str(dumps(value))  # type: ignore[no-untyped-call]  # kombu has few types
    except (TypeError, ValueError):
        return json.dumps(value, default=repr)


def as_kombu_writes(value: Any) -> Any:
    """A value as plain JSON values, which kombu reads as what it was."""
    return json.loads(json_of_kombu(value))


def as_kombu_reads(value: Any) -> Any:
    """What plain JSON values were before kombu wrote them."""
    return loads(json.dumps(value))  # type: ignore[no-untyped-call]  # kombu has few types


def message_of(body: str, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """A message in kombu's form, with a body from `written_body`."""
    return {
        "body": body,
        "headers": dict(headers),
        "properties": {**properties, "body_encoding": BODY_ENCODING},
        "content-type": CONTENT_TYPE,
        "content-encoding": CONTENT_ENCODING,
    }


def with_arguments(message: Mapping[str, Any], kwargs: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
    """A stored message with other arguments, by name, and with these headers added. Raises: UnreadableBody."""
    body = written_body([], kwargs, read_body(message).options)
    return {**message, "body": body, "headers": {**message["headers"], **headers}}


def moved_to(payload: bytes, queue: str) -> bytes:
    """A stored message as it is written for another queue. Data that is no message stays as it is."""
    try:
        message = json.loads(payload)
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
        return written_message(message).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        return payload


def request_digest(headers: Mapping[str, Any], body: str) -> str:
    """What a message asks for, in 80 bits. Two messages with one id are the same when their digests are equal."""
    parts = [*(str(headers.get(name)) for name in DIGESTED), body]
    # Only where they are set, so that the digests of all others stay those of earlier releases.
    parts.extend(f"{name}={found}" for name in DIGESTED_WHERE_SET if (found := headers.get(name)))
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()


def headers_in(payload: bytes) -> dict[str, Any]:
    """The headers of a stored message. Empty if the data is not a message."""
    try:
        headers = json.loads(payload)["headers"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return {}
    return headers if isinstance(headers, dict) else {}


def changes_in(text: bytes) -> dict[str, Any]:
    """The headers that have changed since a message was sent, as Redis has them. Empty if the data is something else."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):  # another program wrote it
        return {}
    return found if isinstance(found, dict) else {}


def body_in(payload: bytes) -> Body:
    """The body of a stored message. Raises: UnreadableBody."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        raise UnreadableBody("it is no JSON") from None
    return read_body(message)


def read_message(delivery: Delivery, limit: int | None = None) -> dict[str, Any]:
    """A message in the form that kombu's channels pass on.

    Args:
        delivery: the delivery that brought it.
        limit: bytes; a larger message is not read at all.

    Raises:
        UnknownForm: a later release has written it.
        UndeliverableMessage: it is too large, compressed, or nested too deep.
        Exception: any error that a message of another program may cause.
    """
    if limit is not None:
        _check_size(len(delivery.payload), limit)
    message: dict[str, Any] = parsed(delivery.payload)
    headers = message.get("headers") or {}
    check_form(headers)
    _refuse_packed(headers, message.get("content-encoding"))
    return with_delivery(message, delivery)


def check_raw(headers: Mapping[str, Any], content_encoding: Any, size: int, limit: int) -> None:
    """Check a message that is not in kombu's form, as `read_message` does, before anything is read of its body.

    Args:
        headers: of the message.
        content_encoding: of its body.
        size: bytes of its body.
        limit: bytes.

    Raises:
        UnknownForm, UndeliverableMessage: as `read_message`.
    """
    _check_size(size, limit)
    check_form(headers)
    _refuse_packed(headers, content_encoding)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise UndeliverableMessage(
            f"the message has {size:,} bytes, the limit is {limit:,}; send less, or raise CONVENTIONS_MESSAGE_LIMIT"
        )


def envelope_fault(message: Any) -> str | None:
    """What is wrong with the outer parts of a message, apart from its body; `None` when they are right."""
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}, and no mapping"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not {"delivery_tag", "delivery_info"} <= properties.keys():
        return "it has no properties, or lacks one of them"
    if not isinstance(message.get("headers", {}), dict) or not isinstance(message.get("body", ""), str):
        return "its headers are no mapping, or its body is no text"
    if properties.get("body_encoding") == BODY_ENCODING:
        try:
            bytes_of(message.get("body") or "")
        except ValueError as error:
            return f"its body is no base64: {error}"
    return None


def with_delivery(message: dict[str, Any], delivery: Delivery) -> dict[str, Any]:
    """A message that was read, with the facts about its delivery."""
    headers, properties = message.get("headers") or {}, message["properties"]
    properties["delivery_tag"] = delivery.receipt
    properties["delivery_info"]["redelivered"] = delivery.deliveries > 1
    properties[DELIVERY] = held = delivery_property(delivery)
    if delivery.changes:
        held["sent"] = {name: headers.get(name) for name in delivery.changes}  # what was signed
    if delivery.changes or headers.get("eta") is not None:
        # The message is due: Celery must not wait again.
        due = without_delay(headers) if headers.get("eta") is not None else {}
        headers = dict(headers) | due | delivery.changes | ({"eta": None} if "eta" in headers else {})
    message["headers"] = headers
    return message


def without_delay(headers: Mapping[str, Any]) -> dict[str, Any]:
    """What changes in the headers of a delayed message once it is due: nobody waits for its `eta` again, and since then it is ready."""
    with suppress(ValueError, TypeError):  # another program's may be no moment
        return {"eta": None, READY_AT: headers.get(READY_AT) or datetime.fromisoformat(headers["eta"]).isoformat()}
    return {"eta": None}


def check_form(headers: Any) -> None:
    """Refuse a message in a form that this release does not know. Raises: UnknownForm."""
    form = headers.get(FORM)
    if form not in FORMS or isinstance(form, bool):
        shown = str(form)[:20]
        raise UnknownForm(
            f"its form {shown!r} belongs to a later release, and this one reads forms up to {SEALED_FORM}: install that release"
        )


def _refuse_packed(headers: Mapping[str, Any], encoding: Any) -> None:
    """Refuse encodings that make a message larger when it is read: kilobytes may become gigabytes."""
    if headers.get("compression"):
        raise UndeliverableMessage(
            "the message is compressed, and only plain ones are read; send it without compression"
        )
    if encoding is not None and str(encoding).lower() not in ENCODINGS:
        raise UndeliverableMessage("the content-encoding of the message is not read; send it as utf-8")


def delivery_property(delivery: Delivery) -> dict[str, Any]:
    """The facts about a delivery for the process that holds the message: the property `DELIVERY`."""
    found = {
        "tag": tag_of(delivery.tag),
        "queue": delivery.queue,
        "receipt": delivery.receipt,
        "deliveries": delivery.deliveries,
        "alone": delivery.alone,
    }
    return found | {"changes": delivery.changes} if delivery.changes else found


def parsed(payload: bytes | str) -> Any:
    """Parse JSON that kombu wrote. Kombu itself parses its own types, which takes three times as long.

    Raises:
        ValueError: it is not JSON.
        UndeliverableMessage: it is nested too deep.
    """
    has_types = KOMBU_TYPE in payload if isinstance(payload, bytes) else KOMBU_TYPE.decode() in payload
    if not has_types:
        try:
            return from_json(payload, cache_strings="keys")
        except ValueError:  # for example half a character, which JSON may escape
            pass
    value = loads(payload)  # type: ignore[no-untyped-call]  # kombu has few types
    if is_too_deep(value):
        raise UndeliverableMessage(f"lists and mappings are nested more than {DEEPEST} deep")
    return value
