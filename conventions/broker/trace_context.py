"""`TraceContext`: in which trace a message was sent, as its headers say (W3C Trace Context, W3C Baggage)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from conventions.broker.header_names import TOGETHER, TRACEPARENT, TRACING

# Characters, by the W3C. Of longer ones OpenTelemetry would log the whole, or read for milliseconds.
_LONGEST = dict(zip(TRACING, (64, 512, 8192), strict=True))


class TraceContext(NamedTuple):
    """What a job's span needs of its message.

    Attributes:
        headers: `traceparent`, and `tracestate` and `baggage` where the message has them.
        together: whether one call sent it together with others.
    """

    headers: Mapping[str, str]
    together: bool

    @classmethod
    def read(cls, field: Callable[[str], Any]) -> Self | None:
        """Read it from the fields of a request; `None`: nobody traced the send. Any program may have written them."""
        parent = field(TRACEPARENT)
        if parent is None or not _is_plain(TRACEPARENT, parent):  # most messages have none
            return None
        headers = {name: value for name in TRACING if _is_plain(name, value := field(name))}
        return cls(headers, field(TOGETHER) is True)


def _is_plain(name: str, value: Any) -> bool:
    return (
        type(value) is str
        and len(value) <= _LONGEST[name]
        and value.isascii()
        and value.isprintable()
        and "  " not in value
    )
