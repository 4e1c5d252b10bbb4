"""Spans of real senders and workers, as they arrive at a service that collects them, in each pool and on each broker."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.otlp_receiver import PROVIDER, Receiver, Seen, receiving
from tests.rabbitmq_servers import Rabbit
from tests.support import wait_until
from tests.workers import ROOT, Installation, wait_for_letter

TASKS = "tests.integration.traces_tasks"


class Traced:
    """An installation whose processes send their spans to a receiver."""

    def __init__(self, one: Installation, receiver: Receiver) -> None:
        self.one, self.receiver = one, receiver
        (one.folder / "traced.py").write_text(PROVIDER + "\nfrom installed import app\n", encoding="utf-8")

    def send(self, body: str, setup: str = "") -> Any:
        """Run these lines in a span called `request`; returns what they leave in `told`."""
        lines = "\n".join(f"        {line}" for line in body.splitlines())
        program = (
            f"{PROVIDER}\nimport json\nfrom opentelemetry import baggage, context\nfrom installed import app\n{setup}\n"
            f"from {TASKS} import *\napp.set_current()\ntold = None\n"
            "context.attach(baggage.set_baggage('tenant', 'ada'))\n"
            f"with trace.get_tracer('web').start_as_current_span('request'):\n    if True:\n{lines}\n"
            "provider.force_flush()\nprint(json.dumps(told))\n"
        )
        return json.loads(self.one.python(program, **self.receiver.variables))

    def worker(self, *arguments: str, **variables: str) -> Any:
        """A worker."""
        return self.one.worker(*arguments, app="traced", **self.receiver.variables | variables)

    def wait(self, many: int, name: str, **attributes: Any) -> list[Seen]:
        """The spans of this name, once there are so many."""
        try:
            wait_until(lambda: len(self.receiver.named(name, **attributes)) >= many, 30, name)
        except AssertionError:
            raise AssertionError(f"{name}: {self.receiver.spans}") from None
        found = self.receiver.named(name, **attributes)
        assert len(found) == many, found
        return found

    def only(self, name: str, **attributes: Any) -> Seen:
        """The one span of this name."""
        return self.wait(1, name, **attributes)[0]


@pytest.fixture(params=["redis", "rabbitmq"])
def traced(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Iterator[Traced]:
    """On either broker."""
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    if request.param == "rabbitmq":
        rabbit: Rabbit = request.getfixturevalue("rabbit")
        settings |= {"broker_url": rabbit.url_of(rabbit.add_host()), "redis_url": valkey_url}
    with receiving() as receiver:
        yield Traced(Installation(tmp_path, [TASKS], **settings), receiver)


@pytest.fixture
def on_redis(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[Traced]:
    """On Redis."""
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    with receiving() as receiver:
        yield Traced(Installation(tmp_path, [TASKS], **settings), receiver)


def name_of(step: str, task: str) -> str:
    """The name of a span."""
    return f"{step} {TASKS}.{task}"


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_one_job_is_one_trace(traced: Traced, pool: str) -> None:
    """Request, send, each attempt: parent and child, in all pools; with what the conventions of messaging want."""
    one = traced
    with one.worker("--pool", pool, "-c", "2") as worker:
        id_ = one.send("told = Trace.delay(number=1, failures=1).id")
        request, send = one.only("request"), one.only(name_of("send", "Trace"))
        first, second = sorted(
            one.wait(2, name_of("process", "Trace")), key=lambda span: span.attributes["conventions.attempt"]
        )
        assert {span.trace for span in (send, first, second)} == {request.trace}
        assert (send.parent, first.parent, second.parent) == (request.id, send.id, send.id)
        assert (send.kind, first.kind, first.links, second.links) == ("producer", "consumer", (send.id,), (send.id,))
        common = {"messaging.system": "celery", "messaging.message.id": id_, "messaging.destination.name": "immediate"}
        assert send.attributes.items() >= (common | {"messaging.operation.type": "send"}).items()
        assert second.attributes.items() >= (common | {"messaging.operation.type": "process"}).items()
        assert second.attributes["messaging.client.id"].startswith("worker0@")
        assert (first.attributes["conventions.outcome"], second.attributes["conventions.outcome"]) == (
            "retried",
            "succeeded",
        )
        assert (first.failed, second.failed) == (True, False)
        assert first.attributes["error.type"] == f"{TASKS}.AwayError", "not that of a copy that can be pickled"
        (event,) = first.events
        assert "https://…@pay.example" in event["exception.message"]
        assert "hunter2" not in json.dumps(event)
        assert second.attributes["conventions.waited"] >= 0
        worker.wait_for("baggage of 1: ada")


def test_what_follows_a_job_is_in_its_trace(traced: Traced) -> None:
    """The next step of a chain is sent by the job before it; an errback, after it; both are in the trace of the request."""
    one = traced
    with one.worker("-c", "2"):
        one.send("from celery import chain\nchain(Trace.s(number=1), Told.s()).apply_async()")
        request, before = one.only("request"), one.only(name_of("process", "Trace"))
        step, after = one.only(name_of("send", "Told")), one.only(name_of("process", "Told"))
        assert (step.parent, after.parent) == (before.id, step.id)
        assert {span.trace for span in (before, step, after)} == {request.trace}
        one.receiver.spans.clear()
        one.send("Dies.apply_async(kwargs={'number': 1}, link_error=Told.si(2))")
        request, dead = one.only("request"), one.only(name_of("process", "Dies"))
        assert (dead.attributes["conventions.outcome"], dead.failed) == ("dead", True)
        errback = one.only(name_of("send", "Told"))
        assert (errback.parent, one.only(name_of("process", "Told")).parent) == (dead.id, errback.id)
        assert {span.trace for span in (dead, errback)} == {request.trace}


def test_many_messages_of_one_call_begin_their_own_traces(traced: Traced) -> None:
    """They link to the one span of their send. So do the chunks of a batch, and a dead letter that is sent again."""
    one = traced
    with one.worker("-c", "2"), one.one.application() as app:
        ids = one.send("told = Trace.enqueue_many([{'number': number} for number in range(30)])")
        send, jobs = one.only(name_of("send", "Trace")), one.wait(30, name_of("process", "Trace"))
        assert (send.attributes["messaging.batch.message_count"], send.failed) == (30, False)
        assert {job.attributes["messaging.message.id"] for job in jobs} == set(ids)
        assert len({job.trace for job in jobs} | {send.trace}) == 31
        assert {(job.parent, job.links) for job in jobs} == {("", (send.id,))}
        one.send("Cut.delay()")
        split, cut = one.only(name_of("process", "Cut")), one.only(name_of("send", "Cut.chunk"))
        assert (cut.parent, cut.attributes["messaging.batch.message_count"]) == (split.id, 4)
        assert {chunk.links for chunk in one.wait(4, name_of("process", "Cut.chunk"))} == {(cut.id,)}
        id_ = one.send("told = Dies.delay(number=1).id")
        send, first = one.only(name_of("send", "Dies")), one.only(name_of("process", "Dies"))
        wait_for_letter(app, id_)
        one.one.run("dead-letters", "redrive", id_, "--yes", "--reason", "a test")
        again = one.only(name_of("process", "Dies"), conventions__redrives=1)
        assert (again.links, again.parent, again.trace != first.trace) == ((send.id,), "", True)


def test_a_send_in_a_transaction(traced: Traced) -> None:
    """The span is of the call; the relay sends later, and adds none."""
    one = traced
    with one.worker("-c", "1"), one.one.application() as app:
        url = app.database.url.render_as_string(hide_password=False)
        one.send(
            "with Session(engine) as session, session.begin():\n    Trace.enqueue_in(session, number=1)\n"
            "    Trace.enqueue_many_in(session, [{'number': 2}, {'number': 3}])",
            f"from sqlalchemy import create_engine\nfrom sqlalchemy.orm import Session\nengine = create_engine({url!r})",
        )
        request = one.only("request")
        each, many = sorted(
            one.wait(2, name_of("create", "Trace")), key=lambda span: "messaging.message.id" not in span.attributes
        )
        jobs = one.wait(3, name_of("process", "Trace"))
        assert (each.parent, many.parent, each.trace) == (request.id, request.id, request.trace)
        assert sorted((job.parent, job.links) for job in jobs) == sorted(
            [(each.id, (each.id,)), ("", (many.id,)), ("", (many.id,))]
        )
        assert one.receiver.named(name_of("send", "Trace")) == []


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_last_spans_of_a_worker_arrive(on_redis: Traced, pool: str) -> None:
    """Also those of the processes of a pool, which end without what Python does at the end of others."""
    one = on_redis
    with one.worker("--pool", pool, "-c", "2", OTEL_BSP_SCHEDULE_DELAY="600000") as worker:
        one.send("for number in range(20):\n    Trace.delay(number=number)")
        wait_until(lambda: worker.output.count("succeeded in") == 20, 30, "all have run")
        assert one.receiver.named(name_of("process", "Trace")) == []
        assert worker.stop() == 0
        one.wait(20, name_of("process", "Trace"))


def test_beside_the_instrumentation_of_celery(on_redis: Traced) -> None:
    """Its spans and ours are one trace, each around the other's."""
    one = on_redis
    instrument = (
        "from opentelemetry.instrumentation.celery import CeleryInstrumentor\nCeleryInstrumentor().instrument()\n"
    )
    (one.one.folder / "traced.py").write_text(f"{PROVIDER}{instrument}\nfrom installed import app\n", encoding="utf-8")
    with one.worker("-c", "1"):
        one.send("Trace.delay(number=1, failures=1)\nTrace.enqueue_many([{'number': 2}, {'number': 3}])", instrument)
        jobs = [one.only(name_of("process", "Trace"), conventions__attempt=2)]
        jobs += one.wait(3, name_of("process", "Trace"), conventions__attempt=1)
        theirs = {span.id: span for span in one.wait(4, f"run/{TASKS}.Trace")}
        published = {span.id: span for span in one.wait(3, f"apply_async/{TASKS}.Trace")}
        ours = {span.id for span in one.wait(2, name_of("send", "Trace")) if "messaging.message.id" in span.attributes}
        request = one.only("request")
        assert all(job.parent in theirs and job.trace == request.trace for job in jobs)
        assert {theirs[job.parent].parent for job in jobs} == published.keys()
        assert {span.parent for span in published.values()} == ours | {request.id}


def test_the_document_has_these_lines() -> None:
    """What the processes of these tests do is what a team is told to do."""
    assert f"```python\n{PROVIDER}```\n" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def test_it_can_be_turned_off(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """`CONVENTIONS_TRACING=false`: no span of ours, and no header."""
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "tracing": False}
    with receiving() as receiver:
        one = Traced(Installation(tmp_path, [TASKS], **settings), receiver)
        with one.worker("-c", "1") as worker:
            one.send("Trace.delay(number=1)")
            worker.wait_for("baggage of 1: None")
            assert worker.stop() == 0
        assert [span.name for span in receiver.spans] == ["request"]


def test_a_process_without_a_provider_imports_nothing(installation: Installation, tmp_path: Path) -> None:
    """Who does not trace pays nothing for it."""
    (tmp_path / "plain_tasks.py").write_text(
        "import sys\nfrom pathlib import Path\nfrom conventions import ImmediateTask\n\n\n"
        'class Imports(ImmediateTask):\n    """Say what is imported."""\n\n    idempotent_on = ("path",)\n\n    def run(self, path: Path) -> None:\n'
        '        path.write_text(str(sorted(name for name in sys.modules if "opentelemetry_spans" in name)))\n'
    )
    one = Installation(tmp_path, ["plain_tasks"], **installation.settings)
    with one.worker("-c", "1"):
        told = one.python(
            "import sys\nfrom installed import app\napp.set_current()\nfrom plain_tasks import Imports\n"
            f"Imports.delay(path={str(tmp_path / 'imported')!r})\nprint([name for name in sys.modules if 'opentelemetry_spans' in name])"
        )
        path = tmp_path / "imported"
        wait_until(lambda: path.exists() and path.read_text(), 30, "it has run")
        assert (told.strip(), path.read_text()) == ("[]", "[]")
