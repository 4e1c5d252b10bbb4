"""`MessageTemplate`: a message that Celery made, as the template for the other messages of a call.

They differ in id, arguments and what depends on those. Everything else, such as route, priority, time limits and
expiry, stays as Celery decided for the first one.
"""

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import uuid4

from conventions.broker.codec import DIGESTED, BodyForm, bytes_of, in_base64, request_digest, written_message
from conventions.broker.header_names import SIGNATURE
from conventions.broker.redis_broker import Publication
from conventions.sealing.seal_outgoing import Outgoing, OutgoingForm

OWN = ("id", "body", "kwargsrepr")  # the parts that differ between messages, beside our headers


class MessageTemplate:
    """Makes messages like one that Celery made.

    Args:
        message: as kombu wrote it.
        publication: its form for the broker.
        payload: its arguments.
        own_headers: names of the headers that differ between messages.
        outgoing: seals and signs them; `None`: nobody does.

    Raises:
        ValueError: a template cannot have this form, for example a compressed message.
    """

    def __init__(
        self,
        message: Mapping[str, Any],
        publication: Publication,
        payload: Mapping[str, Any],
        own_headers: Any,
        outgoing: Outgoing | None = None,
    ) -> None:
        self._like = publication
        self._body = BodyForm(message, payload)
        self._finishes: OutgoingForm | None = None
        if outgoing is not None:
            content = message["content-type"], message["content-encoding"]
            form = outgoing.like(message["headers"], *content, bytes_of(message["body"]))
            self._finishes = form
            if form.signs:
                own_headers = (*own_headers, SIGNATURE)
            content_now = {"content-type": form.content_type, "content-encoding": form.content_encoding}
            message = {**message, **content_now, "headers": form.headers}
        self._headers = {name: message["headers"].get(name) for name in DIGESTED}
        mark = uuid4().hex
        slots = {name: f"{mark}.{name}.{mark}" for name in (*OWN, *own_headers)}
        text = written_message(_with_slots(message, slots, own_headers))
        self._form = re.sub(rf'"{mark}\.(\w+)\.{mark}"', r"%(\1)s", text.replace("%", "%%"))

    def message(self, id: str, payload: Mapping[str, Any], shown: str, headers: Mapping[str, Any]) -> Publication:  # noqa: A002
        """A message like the first one.

        Args:
            id: its id.
            payload: its arguments, in JSON.
            shown: its arguments as logs and Flower show them.
            headers: the values of `own_headers`.
        """
        written, finishes, own_headers = self._body.written(payload), self._finishes, {**headers, "id": id}
        signature = same = ""
        if finishes is not None:
            written, signature, same = finishes.written(own_headers, written)
        body = in_base64(written)
        own: dict[str, Any] = {"id": _written(id), "body": f'"{body}"', "kwargsrepr": _written(shown)}
        for name, value in headers.items():
            own[name] = _written(value)
        if signature:
            own[SIGNATURE] = f'"{signature}"'
        return self._like._replace(tag=id, payload=self._form % own, digest=request_digest(self._headers, same or body))


def _written(value: Any) -> str:
    return (
        encode_basestring_ascii(value) if type(value) is str else json.dumps(value)
    )  # `json.dumps` is slower for the same text


def _with_slots(message: Mapping[str, Any], slots: Mapping[str, str], own_headers: Any) -> dict[str, Any]:
    headers, properties = dict(message["headers"]), dict(message["properties"])
    first = headers["id"]
    for values in (headers, properties):
        for name, value in values.items():
            if value == first and isinstance(value, str):
                values[name] = slots["id"]
        if "kwargsrepr" in values:  # Celery repeats it among the options
            values["kwargsrepr"] = slots["kwargsrepr"]
    properties["delivery_tag"] = slots["id"]
    headers |= {name: slots[name] for name in own_headers}
    return dict(message) | {"body": slots["body"], "headers": headers, "properties": properties}
