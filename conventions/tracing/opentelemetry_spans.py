"""`OpenTelemetrySpans`: spans by the semantic conventions of messaging, and the W3C headers of a message.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/, but for the name of a span: it ends with the task, and not with the queue.
Most applications have a handful of queues, and a trace that says `process immediate` says nothing.

A provider, a sampler or a processor is code of others, and what is in a context may be anything. So where a step of it
raises, the send or the job goes on without (`_quietly`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from conventions.broker.header_names import TOGETHER
from conventions.broker.trace_context import TraceContext
from conventions.core.error_text import describe, first_line
from conventions.tracing.spans import JobSpan, NoSpan, Running, Sending, SendSpan

logger = logging.getLogger(__name__)

T = TypeVar("T")

SCOPE = "conventions"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"

# Whatever OTEL_PROPAGATORS says: both ends are ours, and these names can be headers of every broker.
_TRACE, _BAGGAGE = TraceContextTextMapPropagator(), W3CBaggagePropagator()


class OpenTelemetrySpans:
    """Makes spans by the tracer provider of this process.

    Args:
        broker: its address; a password in it is not read.
    """

    def __init__(self, broker: str) -> None:
        self._tracer = trace.get_tracer(SCOPE, schema_url=SCHEMA)
        self._common = {"messaging.system": "celery", **_server(broker)}

    @contextmanager
    def sending(self, call: Sending, after: JobSpan | None) -> Iterator[SendSpan]:
        """See `Tracing`.

        The span of a call that sends several is not the open one meanwhile: the caller's own code, which makes the messages, may open and close
        spans between them, in an order that is not ours.
        """
        opened = _quietly(lambda: self._open_send(call, after))
        if opened is None:
            yield NoSpan()
            return
        try:
            yield opened
        except BaseException as error:
            opened.failed(error)
            raise
        finally:
            opened.close()

    @contextmanager
    def running(self, attempt: Running) -> Iterator[JobSpan]:
        """See `Tracing`.

        A span that is open already is the parent, if it is of this job: of another instrumentation, or of who runs it here. Else the send is. A
        message that was sent with many others, or long ago, begins a trace of its own, which links to the send: a trace with a million
        spans helps nobody.
        """
        opened = _quietly(lambda: self._open_run(attempt))
        if opened is None:
            yield NoSpan()
            return
        try:
            yield opened
        finally:
            opened.close()

    def _open_send(self, call: Sending, after: JobSpan | None) -> "_Opened":
        within = contexts.get_current()
        if isinstance(after, _Opened) and not _span_in(within).is_valid:
            within = after.inside
        attributes = self._common | _known(
            {
                "messaging.operation.name": call.step,
                "messaging.operation.type": call.step,
                "messaging.destination.name": call.queue,
                "messaging.message.id": call.message_id,
                "conventions.task": call.task,
            }
        )
        opened = self._open(
            call.task, call.step, SpanKind.PRODUCER, within, attributes=attributes, attach=call.message_id is not None
        )
        _quietly(lambda: _TRACE.inject(opened.headers, opened.inside))
        if call.message_id is None:
            opened.headers[TOGETHER] = True
        _quietly(lambda: _BAGGAGE.inject(opened.headers, opened.inside))
        return opened

    def _open_run(self, attempt: Running) -> "_Opened":
        within, links = self._parent_of(attempt.trace, apart=attempt.redrives > 0)
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
        return self._open(attempt.task, "process", SpanKind.CONSUMER, within, attributes=attributes, links=links)

    def _parent_of(self, sent: TraceContext | None, *, apart: bool) -> tuple[Context, Sequence[Link]]:
        here = contexts.get_current()
        if sent is None:
            return here, ()
        of_send = _TRACE.extract(sent.headers, Context())
        creation = _span_in(of_send)
        of_send = _quietly(lambda: _BAGGAGE.extract(sent.headers, of_send)) or of_send
        links = [Link(creation)] if creation.is_valid else []
        is_open = _span_in(here)
        if is_open.is_valid and (is_open.trace_id == creation.trace_id or not creation.is_valid):
            return here, links
        if sent.together or apart:
            return trace.set_span_in_context(trace.INVALID_SPAN, of_send), links
        return of_send, links

    def _open(
        self,
        task: str,
        step: str,
        kind: SpanKind,
        within: Context,
        *,
        attributes: Mapping[str, Any],
        links: Sequence[Link] = (),
        attach: bool = True,
    ) -> "_Opened":
        span = self._tracer.start_span(
            f"{step} {task}", context=within, kind=kind, attributes=dict(attributes), links=list(links)
        )
        return _Opened(task, span, trace.set_span_in_context(span, within), attach=attach)


class _Opened:
    """A span of ours, of a send or of a job.

    Attributes:
        inside: the context in which it is the open one.
        headers: what messages carry of it.
    """

    def __init__(self, task: str, span: Span, inside: Context, *, attach: bool) -> None:
        self._task, self._span, self.inside = task, span, inside
        self.headers: dict[str, Any] = {}
        self._token = contexts.attach(inside) if attach else None

    def sent(self, messages: int) -> None:
        """See `SendSpan`."""
        _quietly(lambda: self._span.set_attribute("messaging.batch.message_count", messages))

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """See `JobSpan`."""
        _quietly(lambda: self._span.set_attribute("conventions.outcome", outcome))
        if error is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Note an error."""
        _quietly(lambda: _note_error(self._span, self._task, error))

    def close(self) -> None:
        """It has ended."""
        if (token := self._token) is not None:
            _quietly(lambda: contexts.detach(token))
        _quietly(self._span.end)


_told = set[str]()


def _quietly(step: Callable[[], T]) -> T | None:
    """Take a step; `None` where it raises. The log has each kind of fault once for each process."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001  # code of others
        if (kind := type(error).__name__) not in _told:
            _told.add(kind)
            logger.warning("OpenTelemetry: a span is not made, or lacks something: %s", first_line(error))
        return None


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


def _span_in(context: Context) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _server(address: str) -> dict[str, Any]:
    """Where the broker is. Nothing is said of several servers, as with Sentinel, or of an address that can be read in two ways."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if ";" in address or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return {}
    return _known({"server.address": host, "server.port": port})
