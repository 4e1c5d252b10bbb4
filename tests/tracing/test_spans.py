"""What a span says, and what a message carries, whoever wrote its headers. The spans of real workers: tests/integration/test_traces.py."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.simple_message import TOLD, plain
from conventions.broker.trace_context import TraceContext
from conventions.core.errors import BrokerUnavailable
from conventions.execution.json_log import JsonFormatter
from conventions.tracing import door
from conventions.tracing.opentelemetry_spans import OpenTelemetrySpans
from conventions.tracing.spans import Running, Sending
from tests.stored_messages import stored
from tests.workers import application, messages

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Greet(ImmediateTask):
    """Say what the baggage is."""

    idempotent_on = EVERY_ARGUMENT
    seen: ClassVar[list[Any]] = []

    def run(self, name: str) -> str:
        if name == "nobody":
            raise BusinessError("who? ask https://me:hunter2@names.example")
        self.seen.append(baggage.get_baggage("tenant"))
        return name


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of this process; its provider is gone after the test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


@pytest.fixture
def tracing(finished: InMemorySpanExporter) -> OpenTelemetrySpans:
    """Makes spans."""
    return OpenTelemetrySpans("redis://:hunter2@queue.example:6380/0")


def attempt(trace_context: TraceContext | None, redrives: int = 0) -> Running:
    """An attempt at a job."""
    return Running("shop.Charge", "m-1", "immediate", "w@1", 1, redrives, None, trace_context)


def only(finished: InMemorySpanExporter) -> ReadableSpan:
    """The one span that has ended."""
    (span,) = finished.get_finished_spans()
    return span


def test_what_a_message_carries(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """The context of the send's span; baggage only where there is some; nothing where the caller says it himself."""
    Greet.delay(name="ada")
    token = context.attach(baggage.set_baggage("tenant", "t-1"))
    Greet.apply_async(kwargs={"name": "bob"}, headers={"x-mine": "1"})
    Greet.apply_async(kwargs={"name": "eve"}, headers={"traceparent": PARENT})
    Greet.enqueue_many([{"name": "joe"}, {"name": "jim"}])
    context.detach(token)
    sent = {one.arguments["name"]: one.headers for one in messages(app)}
    ids = {str((span.attributes or {}).get("messaging.message.id")): span for span in finished.get_finished_spans()}
    for name in ("ada", "bob"):
        span = ids[sent[name]["id"]].get_span_context()
        assert span is not None
        assert sent[name]["traceparent"].startswith(f"00-{span.trace_id:032x}-{span.span_id:016x}-0")
    assert ("baggage" in sent["ada"], sent["bob"]["baggage"], sent["eve"]["traceparent"]) == (
        False,
        "tenant=t-1",
        PARENT,
    )
    assert sent["bob"]["x-mine"] == "1"
    assert sent["joe"]["traceparent"] == sent["jim"]["traceparent"]
    together = {name: headers.get("x_conventions_together") for name, headers in sent.items()}
    assert together == {"ada": None, "bob": None, "eve": None, "joe": True, "jim": True}


def test_single_sends_still_come_from_a_template(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """Each has a context of its own."""
    for name in ("ada", "bob", "eve"):
        Greet.delay(name=name)
    assert len({one.headers["traceparent"] for one in messages(app)}) == 3
    assert len(finished.get_finished_spans()) == 3


def test_a_short_job_is_read_with_its_context(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """The fast lane reads it without a full parse."""
    id_ = Greet.delay(name="ada").id
    read = plain(stored(app.broker.store, id_)["payload"])
    assert read is not None
    told = dict(zip(TOLD, read.told, strict=True))
    found = TraceContext.read(told.get)
    assert found is not None
    assert found.headers["traceparent"] == messages(app)[0].headers["traceparent"]
    assert not found.together


def test_a_job_that_runs_here(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """By `apply`, its span is below that of its caller, and its baggage is the caller's."""
    del Greet.seen[:]
    tracer = trace.get_tracer("web")
    token = context.attach(baggage.set_baggage("tenant", "t-1"))
    with tracer.start_as_current_span("request") as request:
        Greet.apply(kwargs={"name": "ada"})
        Greet.apply(kwargs={"name": "nobody"})
    context.detach(token)
    done, failed, _ = finished.get_finished_spans()
    assert Greet.seen == ["t-1"]
    for span, outcome in ((done, "succeeded"), (failed, "dead")):
        assert span.parent == request.get_span_context()
        assert (span.attributes or {})["conventions.outcome"] == outcome
    assert (done.status.is_ok, failed.status.is_ok) == (True, False)
    assert (failed.attributes or {})["error.type"] == "conventions.BusinessError"
    assert "hunter2" not in failed.to_json()


def test_a_send_that_fails(finished: InMemorySpanExporter, tmp_path: Path) -> None:
    """Its span has failed, and the span around it goes on."""
    with (
        application(broker_url=f"unix://{tmp_path / 'nobody'}", broker_timeout=0.2),
        trace.get_tracer("web").start_as_current_span("request") as request,
        pytest.raises(BrokerUnavailable),
    ):
        Greet.delay(name="ada")
    send, outer = finished.get_finished_spans()
    assert (send.parent, send.status.is_ok, outer.status.is_ok) == (request.get_span_context(), False, True)
    assert (send.attributes or {})["error.type"] == "conventions.BrokerUnavailable"


@pytest.mark.parametrize(
    "headers",
    [{}, {"traceparent": 5}, {"traceparent": ["00"]}, {"traceparent": "00-0-0-0"}, {"traceparent": PARENT[:-4]},
     {"traceparent": PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)}, {"tracestate": "a=b"}],
)  # fmt: skip
def test_headers_that_say_nothing(
    tracing: OpenTelemetrySpans, finished: InMemorySpanExporter, headers: dict[str, Any]
) -> None:
    """Any program may write a header: the job runs, in a trace of its own."""
    with tracing.running(attempt(TraceContext.read(headers.get))):
        pass
    span = only(finished)
    assert (span.parent, list(span.links)) == (None, [])


@pytest.mark.parametrize(
    ("headers", "redrives", "is_child"),
    [({}, 0, True), ({"x_conventions_together": True}, 0, False), ({}, 1, False),
     ({"x_conventions_together": "yes", "tracestate": 7, "baggage": None}, 0, True)],
)  # fmt: skip
def test_parent_or_link(
    tracing: OpenTelemetrySpans, finished: InMemorySpanExporter, headers: dict[str, Any], redrives: int, is_child: bool
) -> None:
    """Each links to its send. What was sent alone is its child, too."""
    fields = {"traceparent": PARENT, "tracestate": "congo=t61", "baggage": "tenant=t-1"} | headers
    with tracing.running(attempt(TraceContext.read(fields.get), redrives)):
        assert baggage.get_baggage("tenant") == ("t-1" if fields["baggage"] else None)
    span = only(finished)
    assert [f"{link.context.span_id:016x}" for link in span.links] == ["b7ad6b7169203331"]
    assert (span.parent is not None) == is_child
    assert baggage.get_baggage("tenant") is None
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_attributes_say_no_secret(tracing: OpenTelemetrySpans, finished: InMemorySpanExporter) -> None:
    """Where the broker is, and neither its password, nor arguments, nor who sends."""
    with tracing.sending(Sending("shop.Charge", "immediate", "m-1"), None):
        pass
    span = only(finished)
    assert dict(span.attributes or {}) == {
        "messaging.system": "celery", "server.address": "queue.example", "server.port": 6380,
        "messaging.operation.name": "send", "messaging.operation.type": "send", "messaging.destination.name": "immediate",
        "messaging.message.id": "m-1", "conventions.task": "shop.Charge",
    }  # fmt: skip


def test_lines_of_the_log_name_the_span(tracing: OpenTelemetrySpans) -> None:
    """Where they are JSON, and only within one."""
    record = logging.makeLogRecord({"name": "shop", "msg": "hello"})
    assert "trace_id" not in json.loads(JsonFormatter().format(record))
    with tracing.sending(Sending("shop.Charge", None, "m-1"), None) as span:
        line = json.loads(JsonFormatter().format(record))
        assert str(span.headers["traceparent"]).startswith(f"00-{line['trace_id']}-{line['span_id']}-0")


def test_no_provider_no_spans(app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked each time: a provider may be set after the first send; and the settings may forbid spans."""
    assert app.tracing is None
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    assert isinstance(app.tracing, OpenTelemetrySpans)
    assert door.TracingDoor("", wanted=False).find() is None
    provider.shutdown()
