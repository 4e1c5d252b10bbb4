"""A message as kombu's channels and our processes have it, made of a `Delivery`."""

from typing import Any

from kombu.utils.json import loads
from pydantic_core import from_json

from conventions.delivery import Delivery
from conventions.errors import UnknownForm

FORM, FORMS = "x_form", (None, 1)  # a message says which form it has, where it is not the first; those that are read
DELIVERY = "conventions"  # key of a message's properties: what the process that holds it needs to know

OF_ITS_OWN = b'"__type__"'  # in JSON that kombu wrote in its own way


def raw_message(delivery: Delivery) -> dict[str, Any]:
    """A message as kombu's channels hand it on.

    Raises:
        UnknownForm: a later release has written it.
        Exception: what a message of another program makes it raise.
    """
    message: dict[str, Any] = decoded(delivery.payload)
    headers, properties = message.get("headers") or {}, message["properties"]
    check_form(headers)
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


def delivered(delivery: Delivery) -> dict[str, Any]:
    """What the process that holds a message needs to know of its delivery."""
    found = {
        "tag": delivery.tag.decode(),
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
    """
    in_its_own_way = OF_ITS_OWN in payload if isinstance(payload, bytes) else OF_ITS_OWN.decode() in payload
    if not in_its_own_way:
        try:
            return from_json(payload, cache_strings="keys")
        except ValueError:  # such as half a character, which JSON may hold
            pass
    return loads(payload)  # type: ignore[no-untyped-call]  # kombu has few types
