"""A message as kombu's channels and our processes have it, made of a `Delivery`."""

from binascii import a2b_base64
from typing import Any

from kombu.utils.json import loads
from pydantic_core import from_json

from conventions.broker.delivery import Delivery, tag_of
from conventions.core.bounds import DEEPEST, is_too_deep
from conventions.core.errors import UndeliverableMessage, UnknownForm

FORM, FORMS = "x_form", (None, 1)  # a message says which form it has, where it is not the first; those that are read
DELIVERY = "conventions"  # key of a message's properties: what the process that holds it needs to know

OF_ITS_OWN = b'"__type__"'  # in JSON that kombu wrote in its own way

ENCODINGS = frozenset(["utf-8", "utf8", "us-ascii", "ascii", "binary", "base64", ""])  # those that make nothing larger


def raw_message(delivery: Delivery, limit: int | None = None) -> dict[str, Any]:
    """A message as kombu's channels hand it on.

    Args:
        delivery: how it came.
        limit: bytes of the largest message that is read at all.

    Raises:
        UnknownForm: a later release has written it.
        UndeliverableMessage: it is too large, compressed, or nested too deep.
        Exception: whatever a message of another program makes it raise.
    """
    if limit is not None and len(delivery.payload) > limit:
        raise UndeliverableMessage(
            f"the message has {len(delivery.payload):,} bytes, the limit is {limit:,}; send less, or raise "
            "CONVENTIONS_MESSAGE_LIMIT"
        )
    message: dict[str, Any] = decoded(delivery.payload)
    headers = message.get("headers") or {}
    check_form(headers)
    _refuse_packed(message, headers)
    return handed_out(message, delivery)


class UnreadableEnvelope(Exception):
    """What came is no message: it lacks a part, or has one of another type."""


def envelope_fault(message: Any) -> str | None:
    """What is wrong with a message of kombu's own, before its body is looked at; `None`: nothing is."""
    if not isinstance(message, dict):
        return f"it is a {type(message).__name__}, and no mapping"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not {"delivery_tag", "delivery_info"} <= properties.keys():
        return "it has no properties, or lacks one of them"
    if not isinstance(message.get("headers", {}), dict) or not isinstance(message.get("body", ""), str):
        return "its headers are no mapping, or its body is no text"
    if properties.get("body_encoding") == "base64":
        try:
            a2b_base64(message.get("body") or "")
        except ValueError as error:
            return f"its body is no base64: {error}"
    return None


def handed_out(message: dict[str, Any], delivery: Delivery) -> dict[str, Any]:
    """A message that was read, with what is known of its delivery."""
    headers, properties = message.get("headers") or {}, message["properties"]
    properties["delivery_tag"] = delivery.receipt
    properties["delivery_info"]["redelivered"] = delivery.deliveries > 1
    properties[DELIVERY] = delivered(delivery)
    if delivery.changes or headers.get("eta") is not None:
        # It is due now: Celery must not wait once more.
        headers = dict(headers) | delivery.changes | ({"eta": None} if "eta" in headers else {})
    message["headers"] = headers
    return message


def check_form(headers: Any) -> None:
    """Refuse a message whose headers name a form that is not known here. Raises: UnknownForm."""
    form = headers.get(FORM)
    if form not in FORMS or isinstance(form, bool):
        shown = str(form)[:20]
        raise UnknownForm(
            f"its form {shown!r} is that of a later release, and this one reads form 1: install that release"
        )


def _refuse_packed(message: dict[str, Any], headers: dict[str, Any]) -> None:
    """Refuse what may become larger when it is read: kilobytes may become gigabytes."""
    if headers.get("compression"):
        raise UndeliverableMessage(
            "the message is compressed, and only plain ones are read; send it without compression"
        )
    encoding = message.get("content-encoding")
    if encoding is not None and str(encoding).lower() not in ENCODINGS:
        raise UndeliverableMessage("the content-encoding of the message is not read; send it as utf-8")


def delivered(delivery: Delivery) -> dict[str, Any]:
    """What the process that holds a message needs to know of its delivery."""
    found = {
        "tag": tag_of(delivery.tag),
        "queue": delivery.queue,
        "receipt": delivery.receipt,
        "deliveries": delivery.deliveries,
        "alone": delivery.alone,
    }
    return found | {"changes": delivery.changes} if delivery.changes else found


def decoded(payload: bytes | str) -> Any:
    """JSON that kombu wrote; what it wrote in its own way is read in its way, which takes three times as long.

    Raises:
        ValueError: it is no JSON.
        UndeliverableMessage: it is nested too deep.
    """
    in_its_own_way = OF_ITS_OWN in payload if isinstance(payload, bytes) else OF_ITS_OWN.decode() in payload
    if not in_its_own_way:
        try:
            return from_json(payload, cache_strings="keys")
        except ValueError:  # such as half a character, which JSON may hold
            pass
    value = loads(payload)  # type: ignore[no-untyped-call]  # kombu has few types
    if is_too_deep(value):
        raise UndeliverableMessage(f"lists and mappings are nested more than {DEEPEST} deep")
    return value
