"""`OpenTelemetrySpans`: spans by the semantic conventions of messaging, and the W3C headers of a message.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/, but for the name of a span: it ends with the task, and not with the queue.
Most applications have a handful of queues, and a trace that says `process immediate` says nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from conventions.broker.header_names import TOGETHER
from conventions.broker.trace_context import TraceContext
from conventions.core.error_text import describe
from conventions.tracing.spans import JobSpan, Running, Sending, SendSpan

SCOPE = "conventions"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"

# Whatever OTEL_PROPAGATORS says: both ends are ours, and these names can be headers of every broker.
_W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


class OpenTelemetrySpans:
    """Makes spans by the tracer provider of this process.

    Args:
        broker: its address; a password in it is not read.
    """

    def __init__(self, broker: str) -> None:
        self._tracer = trace.get_tracer(SCOPE, schema_url=SCHEMA)
        self._common = {"messaging.system": "celery", **_server(broker)}

    @contextmanager
    def sending(self, call: Sending, after: TraceContext | None) -> Iterator[SendSpan]:
        """See `Tracing`."""
        within = contexts.get_current()
        if after is not None and not _is_open():
            within = _W3C.extract(after.headers, within)
        attributes = self._common | _known(
            {
                "messaging.operation.name": call.step,
                "messaging.operation.type": call.step,
                "messaging.destination.name": call.queue,
                "messaging.message.id": call.message_id,
                "conventions.task": call.task,
            }
        )
        name = f"{call.step} {call.task}"
        with self._span(name, SpanKind.PRODUCER, within, attributes, ()) as (span, inside):
            headers: dict[str, Any] = {}
            _W3C.inject(headers, inside)
            if call.message_id is None:
                headers[TOGETHER] = True
            try:
                yield _SendSpan(span, headers)
            except BaseException as error:
                _note_error(span, call.task, error)
                raise

    @contextmanager
    def running(self, attempt: Running) -> Iterator[JobSpan]:
        """See `Tracing`.

        A span that is open already is of another instrumentation of this job, or of who runs it here, and is the parent. Else the send is. A
        message that was sent with many others, or long ago, begins a trace of its own, which links to the send: a trace with a million
        spans helps nobody.
        """
        within = contexts.get_current()
        links: list[Link] = []
        if (sent := attempt.trace) is not None:
            of_send = _W3C.extract(sent.headers, Context())
            creation = trace.get_current_span(of_send).get_span_context()
            links = [Link(creation)] if creation.is_valid else []
            if not _is_open():
                is_apart = sent.together or attempt.redrives > 0
                within = trace.set_span_in_context(trace.INVALID_SPAN, of_send) if is_apart else of_send
        attributes = self._common | _known(
            {
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": attempt.queue,
                "messaging.message.id": attempt.message_id,
                "messaging.client.id": attempt.worker,
                "conventions.task": attempt.task,
                "conventions.attempt": attempt.attempt,
                "conventions.redrives": attempt.redrives,
                "conventions.waited": attempt.waited,
            }
        )
        with self._span(f"process {attempt.task}", SpanKind.CONSUMER, within, attributes, links) as (span, _):
            yield _JobSpan(span, attempt.task)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, within: Context, attributes: Mapping[str, Any], links: Any
    ) -> Iterator[tuple[Span, Context]]:
        span = self._tracer.start_span(name, context=within, kind=kind, attributes=attributes, links=links)
        inside = trace.set_span_in_context(span, within)
        token = contexts.attach(inside)
        try:
            yield span, inside
        finally:
            contexts.detach(token)
            span.end()


class _SendSpan:
    def __init__(self, span: Span, headers: Mapping[str, object]) -> None:
        self._span, self.headers = span, headers

    def sent(self, messages: int) -> None:
        self._span.set_attribute("messaging.batch.message_count", messages)


class _JobSpan:
    def __init__(self, span: Span, task: str) -> None:
        self._span, self._task = span, task

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        self._span.set_attribute("conventions.outcome", outcome)
        if error is not None:
            _note_error(self._span, self._task, error)


def _note_error(span: Span, task: str, error: BaseException) -> None:
    """Note it without the secrets that the span's own method would repeat."""
    if not span.is_recording():
        return
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = describe(task, error)
    span.set_attribute("error.type", name)
    span.set_status(Status(StatusCode.ERROR, text.error_message))
    said = {"type": name, "message": text.error_message, "stacktrace": text.traceback}
    span.add_event("exception", {f"exception.{part}": value for part, value in said.items()})


def _is_open() -> bool:
    return trace.get_current_span().get_span_context().is_valid


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _server(address: str) -> dict[str, Any]:
    """Where the broker is. Of several servers, as with Sentinel, nothing is said."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    return _known({"server.address": host, "server.port": port})
