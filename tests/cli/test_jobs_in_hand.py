"""Jobs whose messages a worker has: those that it has not begun wait, the others run, also if the worker was killed."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.broker.delivery_names import DeliveryNames
from conventions.broker.redis_broker import HeldMessage, Sizes
from conventions.cli.job import job
from conventions.cli.now import now
from conventions.idempotency.claims import ClaimRequest, Settlement
from conventions.jobs.job import Job
from conventions.metrics import worker_reports
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from conventions.now.job_filter import JobFilter
from conventions.now.job_line import JobLine
from conventions.now.job_listing import list_jobs
from conventions.now.whole_id import whole_ids
from conventions.progress.reporter import ProgressReporter
from tests.cli.command_tasks import Send
from tests.support import wait_until

Run: TypeAlias = Callable[..., Result]

FIRST, SECOND = "700d6230-0000-4000-8000-000000000003", "800d6230-0000-4000-8000-000000000004"


@pytest.fixture
def in_hand(commands_app: ConventionsApp) -> dict[str, ClaimRequest]:
    """Two messages that a worker has read; the requests for their claims."""
    for number, id_ in enumerate((FIRST, SECOND), 1):
        Send.apply_async(kwargs={"user_id": number, "day": date(2026, 1, 5)}, task_id=id_, actor="u-7")
    found = {}
    for delivery in commands_app.broker.reserve(["mail"], 2):
        id_ = delivery.tag.decode()
        held, key = HeldMessage(id_, delivery.queue, delivery.receipt), Job.of(id_).key
        assert key is not None
        found[id_] = ClaimRequest(str(Send.name), key, delivery.receipt, id_, "f", held=held)
    assert set(found) == {FIRST, SECOND}
    return found


def lines(app: ConventionsApp, **which: object) -> dict[str, JobLine]:
    """What is listed, by id; each once."""
    found = list_jobs(app, JobFilter(**which), 10)  # type: ignore[arg-type]  # the fields
    assert found.absent == {}
    by_id = {one.id: one for one in found.lines}
    assert len(by_id) == len(found.lines)
    return by_id


def test_a_message_that_a_worker_has_not_begun_waits(
    run: Run, commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest]
) -> None:
    """It is in the list, by its argument, too, and the beginning of its id is enough."""
    assert in_hand
    found = lines(commands_app)[FIRST]
    assert (found.state, found.queue, found.actor, found.attempt) == ("queued", "mail", "u-7", 1)
    assert set(lines(commands_app, state="queued")) == {FIRST, SECOND}
    assert set(lines(commands_app, arguments=(("user_id", "2"),))) == {SECOND}
    assert lines(commands_app, state="delayed") == lines(commands_app, state="running") == {}
    assert whole_ids(commands_app, SECOND[:8]) == [SECOND]
    assert run(job, SECOND[:8]).stdout.splitlines()[0].endswith(SECOND)


def test_a_job_that_no_worker_names_runs(commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest]) -> None:
    """Its worker was killed, or has begun it just now: who asks after a minute without it would think that it is lost."""
    before = datetime.now(UTC)
    commands_app.claims.take([in_hand[FIRST]])
    found = lines(commands_app)
    assert {id_: one.state for id_, one in found.items()} == {FIRST: "running", SECOND: "queued"}
    one = found[FIRST]
    assert (one.task, one.queue, one.actor, one.worker, one.attempt) == (Send.name, "mail", "u-7", None, 1)
    assert one.at is not None
    assert abs(one.at - before) < timedelta(seconds=30)
    assert one.runtime is not None
    for which in (
        {"state": "running"},
        {"state": "running", "arguments": (("user_id", "1"),)},
        {"arguments": (("user_id", "1"),)},
    ):
        assert set(lines(commands_app, **which)) == {FIRST}
    for other in (
        {"worker": "w1@host"},
        {"state": "running", "since": datetime.now(UTC) + timedelta(hours=1)},
        {"task": "Charge"},
    ):
        assert lines(commands_app, **other) == {}
    claim = commands_app.store.key("claim", in_hand[FIRST].claim)
    commands_app.store.redis.hset(claim, "until", 1)  # its lease is over
    assert lines(commands_app)[FIRST].state == Job.of(FIRST).state == "queued"


def test_a_job_of_a_worker_that_says_nothing(
    run: Run, commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed: who asks what ran there finds it under its name, until another worker takes it."""
    request = in_hand[FIRST]
    commands_app.claims.take([request])
    of_it = RunningJob(task=str(Send.name), queue="mail", claim=request.claim)
    WorkerReports(commands_app.store).say("w1@host", WorkerReport(release="r1", running=(of_it,)))
    DeliveryNames(commands_app.store).say("w1@host", "r1")
    monkeypatch.setattr(worker_reports, "SILENT_AFTER", -1.0)
    for which in ({}, {"worker": "w1@host"}, {"release": "r1", "state": "running"}):
        assert {id_: one.worker for id_, one in lines(commands_app, **which).items() if id_ == FIRST} == {
            FIRST: "w1@host"
        }
    assert lines(commands_app, worker="w2@host") == lines(commands_app, release="r2") == {}
    said = run(job, FIRST).stdout
    assert "worker         w1@host" in said
    assert "its worker has said nothing for 0 s: another one takes the job when its lease is over" in said


def test_a_running_attempt_has_its_worker_and_its_release(
    run: Run, commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its worker says, also one that says nothing more; and of a function, which has no attempt here, as the report of its worker says."""
    request = in_hand[FIRST]
    commands_app.claims.take([request])
    (before,) = json.loads(run(job, FIRST, "--json").stdout)["history"]
    assert (before["outcome"], before["worker"], before["release"]) == ("running", None, None)
    jobs = (
        RunningJob(task=str(Send.name), queue="mail", claim=request.claim),
        RunningJob(task="shop.sweep", id="f1", since=1.0),
    )
    WorkerReports(commands_app.store).say("w1@host", WorkerReport(release="r1", running=jobs))
    DeliveryNames(commands_app.store).say("w1@host", "r1")
    for silent_after in (worker_reports.SILENT_AFTER, -1.0):
        monkeypatch.setattr(worker_reports, "SILENT_AFTER", silent_after)
        said = run(job, FIRST).stdout
        assert "worker         w1@host\n" in said
        assert said.count("release r1") == 1
        assert ", worker w1@host, release r1\n" in said.partition("attempt 1      running, began ")[2]
        (attempt,) = json.loads(run(job, FIRST, "--json").stdout)["history"]
        assert (attempt["outcome"], attempt["worker"], attempt["release"]) == ("running", "w1@host", "r1")
        if silent_after > 0:
            assert "worker         w1@host\nrelease        r1\n" in _without_reason(run(job, "f1").stdout)


def _without_reason(said: str) -> str:
    return "".join(line for line in said.splitlines(keepends=True) if not line.startswith("waits because"))


@pytest.mark.parametrize(("total", "shown"), [(None, "1,234"), (2000, "61 %")])
def test_how_much_of_a_running_job_is_done(
    run: Run, commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest], total: int | None, shown: str
) -> None:
    """In percent of its total; without one, how many."""
    request = in_hand[FIRST]
    commands_app.claims.take([request])
    of_it = RunningJob(task=str(Send.name), queue="mail", claim=request.claim)
    WorkerReports(commands_app.store).say("w1@host", WorkerReport(running=(of_it,)))
    reporter = ProgressReporter(commands_app.store, FIRST, keep=timedelta(hours=1), on_report=lambda: None)
    if total is not None:
        reporter.total = total
    reporter.advance(1234)
    reporter.close()
    (row,) = [line for line in run(now).stdout.splitlines() if FIRST in line]
    assert shown in row.partition("w1@host")[2]


def test_a_job_that_two_workers_name_is_listed_once(
    commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest]
) -> None:
    """The one that was killed said so last a moment ago; another one has it now. Nobody has it once its lease is over."""
    request = in_hand[FIRST]
    commands_app.claims.take([request])
    report = WorkerReport(running=(RunningJob(task=str(Send.name), queue="mail", claim=request.claim),))
    for name in ("w2@host", "w1@host"):
        WorkerReports(commands_app.store).say(name, report)
        assert wait_until(
            lambda: WorkerReports(commands_app.store).listing()[0].age > 0.01
        )  # its time has milliseconds
    assert lines(commands_app)[FIRST].worker == "w1@host"
    commands_app.store.redis.hset(commands_app.store.key("claim", request.claim), "until", 1)
    assert lines(commands_app)[FIRST].state == "queued"


def test_a_job_that_has_ended_is_in_hand_no_more(
    commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest]
) -> None:
    """Its worker has only to acknowledge its message."""
    request = in_hand[FIRST]
    commands_app.claims.take([request])
    assert commands_app.claims.settle([Settlement(request, "done", None, action="keep")]) == ["recorded"]
    assert set(lines(commands_app)) == {SECOND}


def test_jobs_of_one_group_run_one_by_one(commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest]) -> None:
    """The claims of all were granted together; those behind the first one have not begun."""
    with closing(commands_app.claims.ask(list(in_hand.values()), together=True)) as asked:
        commands_app.claims.answers(asked)
    states = {id_: one.state for id_, one in lines(commands_app).items()}
    assert states == {id_: str(Job.of(id_).state) for id_ in in_hand}
    assert sorted(states.values()) == ["queued", "running"]


def test_a_job_that_is_given_back_meanwhile_is_listed_once(
    commands_app: ConventionsApp, in_hand: dict[str, ClaimRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was running when the running ones were read, and waits when the waiting ones are."""
    request = in_hand[FIRST]
    assert request.held is not None
    held = request.held._replace(claim=request.claim, token=request.token)
    commands_app.claims.take([request])
    sizes, given_back = commands_app.broker.sizes, list[int]()

    def between(queue: str) -> Sizes:
        given_back.append(commands_app.broker.give_back([held]))
        return sizes(queue)

    monkeypatch.setattr(commands_app.broker, "sizes", between)
    assert {id_: one.state for id_, one in lines(commands_app).items()} == {FIRST: "running", SECOND: "queued"}
    assert sum(given_back) == 1
    assert {id_: one.state for id_, one in lines(commands_app).items()} == {FIRST: "queued", SECOND: "queued"}
