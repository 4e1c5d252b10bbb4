"""What RabbitMQ can carry of a message of a task, and what it must not do with it."""

import struct
from typing import Any

from amqp.exceptions import AMQPError  # type: ignore[import-untyped]  # it has no types
from amqp.serialization import dumps  # type: ignore[import-untyped]  # the same

from conventions.core.errors import PayloadError

ID_LIMIT = 255  # bytes: AMQP's short text


def make_fit(msg: Any, limit: int) -> None:
    """Refuse a message of a task that AMQP cannot carry or no worker reads, and let RabbitMQ keep one that is too late: a worker records it.

    Raises:
        PayloadError: AMQP cannot carry it, or its body has more bytes than the limit.
    """
    msg.properties.pop("expiration", None)
    headers = msg.properties.get("application_headers") or {}
    size = len(msg.body.encode() if isinstance(msg.body, str) else msg.body)
    if size > limit:
        raise PayloadError(
            f"{headers['task']}: the message has {size:,} bytes with all that follows it, the limit is {limit:,}; store the data, pass its id, "
            "and look it up in run"
        )
    try:
        dumps("Fss", [headers, msg.properties.get("correlation_id"), msg.properties.get("reply_to")])
    except (struct.error, AMQPError, ValueError, TypeError, OverflowError) as error:
        id_ = str(headers.get("id") or "")
        what = (
            f"an id of {len(id_.encode())} bytes, of which it takes 255"
            if len(id_.encode()) > ID_LIMIT
            else f"its headers ({error})"
        )
        raise PayloadError(f"{headers['task']}: RabbitMQ cannot carry {what}") from error
