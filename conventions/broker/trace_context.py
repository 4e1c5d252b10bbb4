"""`TraceContext`: in which trace a message was sent, as its headers say (W3C Trace Context, W3C Baggage)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from conventions.broker.header_names import TOGETHER, TRACEPARENT, TRACING


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
        if type(field(TRACEPARENT)) is not str:
            return None
        headers = {name: value for name in TRACING if type(value := field(name)) is str}
        return cls(headers, field(TOGETHER) is True)
