"""Whether this process makes spans. One in which nobody has set a tracer provider pays for one look, and imports nothing for it."""

import logging
import sys
import threading
import time
from typing import Any

from conventions.core.error_text import first_line
from conventions.tracing.spans import Tracing

logger = logging.getLogger(__name__)

API = "opentelemetry.trace"
LOOK_EVERY = 0.05  # seconds: a look costs as much as a hundredth of a send
FLUSH_WITHIN = 2.0  # seconds that a process of a pool gives its last spans when it ends


def is_used() -> bool:
    """Whether somebody in this process has imported OpenTelemetry, as redis-py does where it is installed."""
    return API in sys.modules


def has_provider() -> bool:
    """Whether somebody has set a tracer provider in this process. Raises: whatever one raises that `OTEL_PYTHON_TRACER_PROVIDER` names."""
    api: Any = sys.modules.get(API)
    return api is not None and not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider)


def ids_of_open_span() -> dict[str, str]:
    """`trace_id` and `span_id` of the span that is open here, in hexadecimal digits as the W3C writes them; empty where none is."""
    api: Any = sys.modules.get(API)
    if api is None:
        return {}
    open_span = api.get_current_span().get_span_context()
    if not open_span.is_valid:
        return {}
    return {"trace_id": f"{open_span.trace_id:032x}", "span_id": f"{open_span.span_id:016x}"}


def send_last_spans(**_signal: Any) -> None:
    """Send what the tracer provider of this process, if it has one, still holds. Whatever the collector does, the process ends."""
    # In a thread: the SDK's `force_flush` does not keep to its time-out.
    flush = threading.Thread(target=_flush, name="last spans", daemon=True)
    flush.start()
    flush.join(FLUSH_WITHIN)


def _flush() -> None:
    try:
        if has_provider():
            provider: Any = sys.modules[API].get_tracer_provider()
            getattr(provider, "force_flush", bool)()
    except Exception as error:  # noqa: BLE001  # code of others
        logger.warning("OpenTelemetry: the last spans are not sent: %s", first_line(error))


class TracingDoor:
    """Finds out whether somebody has told OpenTelemetry where spans go. That may happen at any time, so it looks again until it has.

    It looks every `LOOK_EVERY` at most: what is sent or begun so soon after a provider was set may have no span.

    Args:
        broker: its address.
        wanted: whether the settings allow spans.
    """

    def __init__(self, broker: str, *, wanted: bool) -> None:
        self._broker, self._wanted = broker, wanted
        self._found: Tracing | None = None
        self._looks_at = 0.0

    def find(self) -> Tracing | None:
        """Who makes spans; `None`: nobody, or what is there cannot."""
        if self._found is None and self._wanted and time.monotonic() >= self._looks_at:
            # The next look is put off after this one: another thread, which comes meanwhile, looks as well, and does not go on without a span.
            try:
                self._look()
                self._looks_at = time.monotonic() + LOOK_EVERY
            except Exception as error:  # noqa: BLE001  # code of others: a send or a job goes on without
                self._wanted = False
                logger.warning("OpenTelemetry: this process makes no spans: %s", first_line(error))
        return self._found

    def _look(self) -> None:
        if has_provider():
            from conventions.tracing.opentelemetry_spans import OpenTelemetrySpans  # noqa: PLC0415  # an extra

            self._found = OpenTelemetrySpans(self._broker)
