"""Whether this process makes spans. One in which nobody has set a tracer provider pays for one look, and imports nothing for it."""

import sys
from typing import Any

from conventions.tracing.spans import Tracing

API = "opentelemetry.trace"
FLUSH = 2000  # milliseconds that a process of a pool gives its last spans when it ends


def is_used() -> bool:
    """Whether somebody in this process has imported OpenTelemetry, as redis-py does where it is installed."""
    return API in sys.modules


def has_provider() -> bool:
    """Whether somebody has set a tracer provider in this process."""
    api: Any = sys.modules.get(API)
    return api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


def ids_of_open_span() -> dict[str, str]:
    """`trace_id` and `span_id` of the span that is open here, in hexadecimal digits as the W3C writes them; empty where none is."""
    if not has_provider():
        return {}
    open_span = sys.modules[API].get_current_span().get_span_context()
    if not open_span.is_valid:
        return {}
    return {"trace_id": f"{open_span.trace_id:032x}", "span_id": f"{open_span.span_id:016x}"}


def send_last_spans(**_signal: Any) -> None:
    """Send what the tracer provider of this process, if it has one, still holds."""
    if is_used():
        flush = getattr(sys.modules[API].get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(FLUSH)


class TracingDoor:
    """Finds out whether somebody has told OpenTelemetry where spans go. That may happen at any time, so it is asked until it has.

    Args:
        broker: its address.
        wanted: whether the settings allow spans.
    """

    def __init__(self, broker: str, *, wanted: bool) -> None:
        self._broker, self._wanted = broker, wanted
        self._found: Tracing | None = None

    def find(self) -> Tracing | None:
        """Who makes spans; `None`: nobody."""
        if self._found is None and self._wanted and has_provider():
            from conventions.tracing.opentelemetry_spans import OpenTelemetrySpans  # noqa: PLC0415  # an extra

            self._found = OpenTelemetrySpans(self._broker)
        return self._found
