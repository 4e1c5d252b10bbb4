"""What a span says, and what a message carries, whoever wrote its headers. The spans of real workers: tests/integration/test_traces.py."""

import functools
import json
import logging
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.simple_message import TOLD, plain
from conventions.broker.trace_context import TraceContext
from conventions.core.errors import BrokerUnavailable, PayloadError
from conventions.execution.json_log import JsonFormatter
from conventions.tracing import door
from conventions.tracing.opentelemetry_spans import OpenTelemetrySpans
from conventions.tracing.spans import Running, Sending
from tests.stored_messages import stored
from tests.support import at_most, wait_until
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
    """A provider may be set after the first send, and is found soon; and the settings may forbid spans."""
    assert app.tracing is None
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    wait_until(lambda: app.tracing is not None)
    assert isinstance(app.tracing, OpenTelemetrySpans)
    assert door.TracingDoor("", wanted=False).find() is None
    provider.shutdown()


def test_two_first_jobs_at_once_have_their_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """In two threads: the second one does not go on without a span because the first one is still looking."""
    provider, looks, released = TracerProvider(), threading.Event(), threading.Event()

    def get_provider() -> TracerProvider:
        if threading.current_thread() is first:
            looks.set()
            released.wait(30)
        return provider

    monkeypatch.setattr(trace, "get_tracer_provider", get_provider)
    entrance = door.TracingDoor("", wanted=True)
    first = threading.Thread(target=entrance.find)
    first.start()
    try:
        assert looks.wait(30)
        assert entrance.find() is not None
    finally:
        released.set()
        first.join()
    provider.shutdown()


class Raising(SpanProcessor):
    """Code of somebody else that raises."""

    def __init__(self, *steps: str) -> None:
        self._steps = steps

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002  # of `SpanProcessor`
        self._raise("start")

    def on_end(self, span: Any) -> None:  # noqa: ARG002  # the same
        self._raise("end")

    def _raise(self, step: str) -> None:
        if step in self._steps:
            raise RuntimeError(f"the {step} of a span")


@pytest.mark.parametrize("steps", [("start",), ("end",), ("start", "end")])
def test_a_fault_of_a_processor_is_no_fault_of_a_job(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]
) -> None:
    """The send is made, the job runs and ends as it ends; no context is left open; the log has it once."""
    provider = TracerProvider()
    provider.add_span_processor(Raising(*steps))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    for name in ("ada", "bob"):
        Greet.delay(name=name)
    Greet.enqueue_many([{"name": "joe"}])
    assert len(messages(app)) == 3
    assert Greet.apply(kwargs={"name": "ada"}).state == "SUCCESS"
    failed = Greet.apply(kwargs={"name": "nobody"})
    assert isinstance(failed.result, BusinessError)
    assert not trace.get_current_span().get_span_context().is_valid
    provider.shutdown()


def test_a_provider_that_cannot_be_loaded(
    app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a wrong `OTEL_PYTHON_TRACER_PROVIDER`: it is said once, and nothing is traced."""

    def fail() -> None:
        raise StopIteration

    monkeypatch.setattr(trace, "get_tracer_provider", fail)
    for name in ("ada", "bob"):
        Greet.delay(name=name)
    assert len(messages(app)) == 2
    assert [record.message for record in caplog.records if "OpenTelemetry" in record.message] == [
        "OpenTelemetry: this process makes no spans: StopIteration"
    ]


def test_baggage_that_cannot_be_written(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """It stays behind; the message goes, with its trace."""
    token = context.attach(baggage.set_baggage("tenant", "\ud800"))
    Greet.delay(name="ada")
    context.detach(token)
    (sent,) = messages(app)
    assert ("traceparent" in sent.headers, "baggage" in sent.headers) == (True, False)


@pytest.mark.parametrize("value", ["\ud800", "a=" + "b" * 8200, "a  =b", "a=\t1", "ä=1", " " * 8000])
def test_hostile_baggage_is_not_read(tracing: OpenTelemetrySpans, finished: InMemorySpanExporter, value: str) -> None:
    """Nor logged; the rest counts."""
    with tracing.running(attempt(TraceContext.read({"traceparent": PARENT, "baggage": value}.get))):
        assert baggage.get_all() == {}
    assert len(only(finished).links) == 1


def test_a_generator_that_opens_spans(app: ConventionsApp, finished: InMemorySpanExporter) -> None:
    """And that is given up: no context is left in the thread."""
    tracer = trace.get_tracer("rows")

    def rows() -> Generator[dict[str, Any]]:
        for name in ("ada", 7, *"abc"):
            with tracer.start_as_current_span("row"):
                yield {"name": name}

    for send in (Greet.enqueue_many, functools.partial(Greet.enqueue_many_in, None)):
        given = rows()
        with pytest.raises((PayloadError, TypeError)):
            send(given)
        given.close()  # its own span is open until then
        assert not trace.get_current_span().get_span_context().is_valid


def test_a_context_of_the_start_of_a_worker(tracing: OpenTelemetrySpans, finished: InMemorySpanExporter) -> None:
    """Is no parent of all its jobs."""
    with (
        trace.get_tracer("web").start_as_current_span("start"),
        tracing.running(attempt(TraceContext.read({"traceparent": PARENT}.get))),
    ):
        pass
    job, _ = finished.get_finished_spans()
    assert job.parent is not None
    assert f"{job.parent.span_id:016x}" == "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sentinel://h1:1;sentinel://:secret@h2:2", {}),
        ("redis://:12345/x@host", {}),
        ("unix:///tmp/s", {}),
        ("amqp://guest:guest@mq:5672//", {"server.address": "mq", "server.port": 5672}),
    ],
)
def test_where_the_broker_is(finished: InMemorySpanExporter, address: str, shown: dict[str, Any]) -> None:
    """Nothing that may be a piece of a password."""
    with OpenTelemetrySpans(address).sending(Sending("shop.Charge", None, "m-1"), None):
        pass
    found = only(finished).attributes or {}
    assert {name: value for name, value in found.items() if name.startswith("server.")} == shown


def test_the_last_spans_wait_for_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the SDK does with its time-out."""
    begun, released, ended = threading.Event(), threading.Event(), threading.Event()

    class Hanging:
        def force_flush(self) -> None:
            begun.set()
            released.wait(30)
            ended.set()

    monkeypatch.setattr(door, "FLUSH_WITHIN", 0.1)
    monkeypatch.setattr(trace, "get_tracer_provider", Hanging)
    with at_most(0.1):
        door.send_last_spans()
    assert begun.wait(10)
    assert not ended.is_set(), "it went on without it"
    released.set()
    assert ended.wait(10)
