"""What Prometheus reads: zeros for what is known, nothing for what cannot be read, names by its conventions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.queue_level import QueueLevel
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.known_series import known_names, known_series
from conventions.metrics.prometheus_metrics import _of_queues
from conventions.metrics.prometheus_server import text_of
from conventions.metrics.series import Series
from conventions.metrics.series_bound import MOST, OTHERS
from conventions.metrics.state_now import Levels, QueueNow
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from conventions.pauses.pause import Pause
from conventions.pauses.pause_store import Target
from conventions.records.journal import KINDS
from conventions.storage.database import Database
from tests.recorded import append, drain, entry, event, recorder


class Idle(ImmediateTask):
    """Has not run yet."""

    queue_name = "idle"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


def families(app: ConventionsApp) -> dict[str, Metric]:
    """All metrics, by name."""
    return {one.name: one for one in text_string_to_metric_families(text_of(app).decode())}


def values(family: Metric, ending: str = "") -> dict[Any, Any]:
    """The samples of one name, by their labels."""
    wanted = family.name + ending
    return {tuple(sorted(one.labels.items())): one.value for one in family.samples if one.name == wanted}


def labels(**names: str) -> Any:
    """The labels of a sample."""
    return tuple(sorted(names.items()))


def test_what_is_known_says_zero(app: ConventionsApp) -> None:
    """Each kind of outcome, each bucket, each queue; before anything ran."""
    found = families(app)
    attempts = values(found["conventions_attempts"], "_total")
    assert Series(Idle.name, "idle") in known_series(app)
    assert {attempts[labels(task=Idle.name, queue="idle", outcome=kind)] for kind in KINDS} == {0}
    runs = values(found["conventions_attempt_run_seconds"], "_bucket")
    assert runs[labels(task=Idle.name, queue="idle", le="+Inf")] == 0
    assert "idle" in known_names(app)
    for state in ("ready", "delayed", "in_flight"):
        assert values(found["conventions_queue_messages"])[labels(queue="idle", state=state)] == 0
    for name in ("parked_messages", "retrying_messages", "oldest_seconds", "consumers"):
        assert values(found[f"conventions_queue_{name}"])[labels(queue="idle")] == 0
    assert values(found["conventions_journal_events"]) == {(): 0}


def test_running_jobs_are_those_of_the_last_reports(app: ConventionsApp) -> None:
    """0 for each registered task; also short ones, which have ended since; those of a silent worker are not known."""
    name = str(Idle.name)
    assert values(families(app)["conventions_running_jobs"])[labels(task=name)] == 0
    job = RunningJob(task=name, claim=f"{name}:ended")
    WorkerReports(app.store).say("w1", WorkerReport(processes=2, running=(job, job), busy={name: 2}))
    WorkerReports(app.store).say("w2", WorkerReport(processes=2, busy={name: 1, "elsewhere": 1}))
    running = values(families(app)["conventions_running_jobs"])
    assert (running[labels(task=name)], running[labels(task="elsewhere")]) == (3, 1)
    assert [one.busy.total() for one in WorkerReports(app.store).listing()] == [2, 2]
    app.store.redis.hset(
        app.store.key("workers"), "w1", b"1 " + WorkerReport(busy={name: 2}).model_dump_json().encode()
    )
    assert values(families(app)["conventions_running_jobs"])[labels(task=name)] == 1


def test_buckets_are_cumulative(app: ConventionsApp) -> None:
    """With their sum, in seconds."""
    append(app.store, *(entry(event(f"m{n}", runtime=seconds)) for n, seconds in enumerate((0.004, 0.02, 40, 1e6))))
    EventCounter(app.store).count_all()
    found = families(app)["conventions_attempt_run_seconds"]
    buckets = {dict(key)["le"]: value for key, value in values(found, "_bucket").items() if dict(key)["task"] == "Send"}
    assert [buckets[bound] for bound in ("0.005", "0.01", "0.025", "30.0", "60.0", "21600.0", "+Inf")] == [
        1,
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    assert values(found, "_sum")[labels(task="Send", queue="mail")] == pytest.approx(1_000_040.024)
    assert values(found, "_count")[labels(task="Send", queue="mail")] == 4


def test_what_cannot_be_read_is_absent(app: ConventionsApp) -> None:
    """And one metric says which part that is."""
    app.database = Database("postgresql://nobody@127.0.0.1:1/none")
    found = families(app)
    assert "conventions_dead_letters" not in found
    unreadable = values(found["conventions_part_unreadable"])
    assert (unreadable[labels(part="letters")], unreadable[labels(part="queues")]) == (1, 0)


def test_names_and_units(app: ConventionsApp) -> None:
    """As Prometheus wants them; no host is a label."""
    append(app.store, entry(event(kind="dead", worker="celery@secret-host", release="r1", runtime=1)))
    EventCounter(app.store).count_all()
    text = text_of(app).decode()
    assert "secret-host" not in text
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("conventions_")
        assert family.documentation.endswith(".")
        assert not (family.type == "gauge" and family.name.endswith("_total"))
        for sample in family.samples:
            assert {*sample.labels} <= {
                "task",
                "queue",
                "outcome",
                "error",
                "le",
                "state",
                "part",
                "schedule",
                "server",
            }


def test_many_queue_names(app: ConventionsApp) -> None:
    """A bounded number of them one by one, those with the most messages; the others together, and how many these are. Nothing is lost."""
    for number in range(MOST + 30):
        for _ in range(2 if number >= 30 else 1):
            Idle.apply_async(kwargs={"number": number}, queue=f"q{number:03}")
    Idle.apply_async(kwargs={"number": 0}, queue=OTHERS)  # a name as any other
    append(app.store, *(entry(event(f"m{n}", "dead", queue=f"q{n:03}", runtime=1.0)) for n in range(MOST + 30)))
    EventCounter(app.store).count_all()
    drain(recorder(app.store, app.database))
    text = text_of(app).decode()
    found = {one.name: one for one in text_string_to_metric_families(text)}
    ready = values(found["conventions_queue_messages"])
    by_queue = {dict(key)["queue"]: value for key, value in ready.items() if dict(key)["state"] == "ready"}
    assert len(by_queue) == MOST + 1
    assert "q030" in by_queue
    assert "q000" not in by_queue
    assert by_queue[OTHERS] == 31
    assert sum(by_queue.values()) == 2 * MOST + 31
    consumers = values(found["conventions_queue_consumers"])
    assert consumers[labels(queue=OTHERS)] == 0
    runs = values(found["conventions_attempt_run_seconds"], "_count")
    assert sum(runs.values()) == MOST + 30
    assert len(runs) <= 2 * MOST + 1
    assert runs[labels(task=OTHERS, queue=OTHERS)] == 30
    letters = values(found["conventions_dead_letters"])
    assert (len(letters), letters[labels(task=OTHERS, queue=OTHERS)]) == (MOST + 1, 30)
    others = {dict(key)["part"]: value for key, value in values(found["conventions_others"]).items()}
    assert (others["counts"], others["letters"], others["running"]) == (30, 30, 0)
    assert others["queues"] == 31 + len({*known_names(app)})
    samples = [line.rpartition(" ")[0] for line in text.splitlines()]
    assert len(samples) == len(set(samples))


def test_counters_of_others_only_grow(app: ConventionsApp) -> None:
    """Who is named does not change, however much the others run: a change would look like new attempts."""
    for round_ in (1, 5):
        append(
            app.store,
            *(
                entry(event(f"m{round_}-{n}-{again}", queue=f"q{n:03}"))
                for n in range(MOST + 30)
                for again in range(round_ if n >= MOST else 1)
            ),
        )
        EventCounter(app.store).count_all()
        attempts = values(families(app)["conventions_attempts"], "_total")
        assert attempts[labels(task="Send", queue="q000", outcome="succeeded")] == (1 if round_ == 1 else 2)
        assert attempts[labels(task=OTHERS, queue=OTHERS, outcome="succeeded")] == (30 if round_ == 1 else 30 + 150)


def test_few_names_have_no_others(app: ConventionsApp) -> None:
    """As ever: also one that is named so."""
    append(app.store, entry(event("m1", queue=OTHERS)))
    EventCounter(app.store).count_all()
    found = families(app)
    attempts = values(found["conventions_attempts"], "_total")
    assert attempts[labels(task="Send", queue=OTHERS, outcome="succeeded")] == 1
    assert labels(task=OTHERS, queue=OTHERS, outcome="succeeded") not in attempts
    assert set(values(found["conventions_others"]).values()) == {0}


def test_queues_together_have_the_fewest_consumers_of_those_that_need_one() -> None:
    """So that an alert tells of one without a worker; not of one that is empty, or that people have paused."""

    def served(*queues: QueueNow, pauses: Mapping[Target, Pause] | None = None) -> float:
        busy = [QueueNow(f"a{n:03}", QueueLevel(ready=100), 0, 1) for n in range(MOST)]
        levels = Levels(
            datetime.now(UTC), queues={one.name: one for one in (*busy, *queues)}, pauses=pauses, letters=None
        )
        (found,) = [one for one in _of_queues(levels, {}) if one.name == "conventions_queue_consumers"]
        return float(values(found)[labels(queue=OTHERS)])

    empty, fine = QueueNow("empty", QueueLevel(ready=0), 0, 0), QueueNow("fine", QueueLevel(ready=1), 0, 2)
    alone = QueueNow("alone", QueueLevel(ready=0, delayed=1), 0, 0)
    assert served(empty, fine) == 2
    assert served(empty, fine, alone) == 0
    many = {Target("queue", f"a{n:03}"): Pause("why", "u-1", datetime.now(UTC)) for n in range(MOST)}
    assert served(fine, alone, pauses=many | {Target("queue", "alone"): Pause("why", "u-1", datetime.now(UTC))}) == 2
