"""The pages of jobs, queues, alerts and tasks over HTTP: what they show to whom, and what their forms do (R13, R14, R22)."""

import html
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from celery import chain

from conventions.alerts.alert_store import AlertStore
from conventions.alerts.episode import Episode
from conventions.alerts.finding import Finding
from conventions.app import ConventionsApp
from conventions.broker.delivery_names import DeliveryNames
from conventions.broker.redis_broker import HeldMessage, Publication
from conventions.console.jobs import changes
from conventions.core.time_units import local_time
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.idempotency.claims import ClaimRequest
from conventions.jobs.facts import State
from conventions.jobs.job import Job
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Pauses, Target
from conventions.progress.reporter import ProgressReporter
from conventions.records import audit, executions
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import JournalEntry
from conventions.storage.database import utc_now
from conventions.storage.tables import AttemptLogRow, DeadLetterRow
from tests.cli.command_tasks import Charge, Send
from tests.console.conftest import BATCH, PER_CAUSE, SECRET, TASK, LogIn
from tests.console.flower_process import User
from tests.recorded import FAILURE, append, drain, entry, event, recorder
from tests.stored_messages import stored
from tests.support import wait_until
from tests.workers import forget

DAY = date(2026, 1, 5)


def text_of(page: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def actions(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The actions that wait in the journal, but for that of the fixture: who, what, which, why."""
    found = []
    redis: Any = app.store.redis
    for raw in redis.xrange(app.store.key("journal")):
        if b"deed" in raw[1]:
            deed = json.loads(raw[1][b"deed"])
            found.append((deed["actor"], deed["action"], deed["target"], deed["reason"]))
    return found[1:]


# Jobs.


def test_a_job_that_waits(operator: User, shop_app: ConventionsApp) -> None:
    """Where and why, by whom, with its arguments, and what comes after it."""
    first = chain(Send.si(user_id=7, day=DAY), Charge.si(order_id=8)).apply_async().parent
    page = operator.get(f"/jobs/{first.id}")
    shown = text_of(page.text)
    assert page.status_code == 200
    for words in (
        "queued",
        "it is the next one of the queue mail",
        "Send",
        '"user_id": 7',
        "After it",
        str(Charge.name),
    ):
        assert words in shown, words
    assert "data-conventions-still" not in page.text, "it changes by itself"
    assert "mail" in text_of(operator.get("/jobs", state="queued").text)


def test_one_clock_on_the_page_of_a_job(operator: User, shop_app: ConventionsApp) -> None:
    """Why it waits, what it has logged, and what was done to it: all in the zone of the settings."""
    sent = Send.delay(user_id=7, day=DAY)
    PauseActions(shop_app.store).pause(Target("queue", "mail"), "u-1", "the bank is down")
    pause = Pauses(shop_app.store).read().pauses[Target("queue", "mail")]
    at = datetime(2026, 11, 25, 20, 0, 1, 45_000, tzinfo=UTC)
    failed = event(sent.id, "retried", task=TASK, queue="mail", token="t1")
    line = json.dumps(
        {"time": at.isoformat(timespec="milliseconds"), "level": "INFO", "logger": "shop", "message": "charged"}
    )
    after = {"until": at.isoformat()}
    with shop_app.database.session() as session:
        executions.record(session, [JournalEntry(b"1-1", failed, 0, utc_now())])
        session.add(
            AttemptLogRow(
                message_id=sent.id,
                generation=0,
                attempt=failed.attempt,
                token="t1",
                lines=line,
                left_out=0,
                at=utc_now(),
            )
        )
        audit.record(session, AuditEntry("u-2", "alerts silence", sent.id, "why", None, after))
    shown = text_of(operator.get(f"/jobs/{sent.id}").text)
    assert f"its queue is paused by u-1 since {local_time(pause.since, 'Asia/Tokyo')}: the bank is down" in shown
    assert "2026-11-26 05:00:01.045 JST INFO shop charged" in shown
    assert '"until": "2026-11-26 05:00:01 JST"' in shown
    assert '"until": "2026-11-26 05:00:01 JST"' in text_of(operator.get("/audit", id=sent.id).text)
    assert "UTC" not in shown
    assert "+00:00" not in shown


def test_a_dead_job(operator: User) -> None:
    """Its letter is one click away, with the error and what was done."""
    shown = text_of(operator.get("/jobs/KeyError-0").text)
    for words in ("dead", "correct and redrive it", "KeyError", SECRET, "u-42"):
        assert words in shown, words


def test_a_running_attempt_has_its_worker_and_its_release(operator: User, shop_app: ConventionsApp) -> None:
    """As its worker says; *Now* says how many it has done, where it knows no total."""
    sent = Send.delay(user_id=7, day=DAY)
    (delivery,) = shop_app.broker.reserve(["mail"], 1)
    key, held = Job.of(sent.id).key, HeldMessage(sent.id, delivery.queue, delivery.receipt)
    assert key is not None
    request = ClaimRequest(TASK, key, delivery.receipt, sent.id, "f", held=held)
    shop_app.claims.take([request])
    running = (RunningJob(task=TASK, queue="mail", claim=request.claim),)
    WorkerReports(shop_app.store).say("w1@host", WorkerReport(release="r1", running=running))
    DeliveryNames(shop_app.store).say("w1@host", "r1")
    shown = text_of(operator.get(f"/jobs/{sent.id}").text)
    assert "Runs at w1@host, release r1" in shown
    assert "w1@host release r1" in shown.partition("running attempt 1, began ")[2]
    reporter = ProgressReporter(shop_app.store, sent.id, keep=timedelta(hours=1), on_report=lambda: None)
    reporter.advance(1234)
    reporter.close()
    wait_until(lambda: re.search(r'data-label="Done">1,234</td>', operator.get("/").text), 10, "Now shows how many")


def test_who_redrove_a_job(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """On its page, with a way to the redrive; why, only for those who see values."""
    with shop_app.database.session() as session:
        order = RedriveOrder(Filter(error="KeyError"), "oscar", "the shop is back")
        id_ = redrive_rows.start(session, order).id
        letter = session.get_one(DeadLetterRow, "KeyError-0")
        letter.state, letter.redrive_id, letter.answer = "redriving", id_, None
    page = operator.get("/jobs/KeyError-0").text
    assert f"oscar dead-letters redrive {id_[:8]} the shop is back" in text_of(page)
    assert f'href="/dead-letters/redrives/{id_}"' in page
    assert "the shop is back" not in operator.get("/jobs/KeyError-1").text, "it is not sent yet"
    assert "the shop is back" not in viewer.get("/jobs/KeyError-0").text


def test_a_viewer_sees_no_values(viewer: User, shop_app: ConventionsApp) -> None:
    """Neither on the page of a job, nor by a guess; nor can he end anything."""
    sent = Send.delay(user_id=471147114711, day=DAY)
    page = viewer.get(f"/jobs/{sent.id}")
    assert "471147114711" not in page.text
    assert "•••" in page.text
    assert "conventions-action-form" not in page.text
    assert SECRET not in viewer.get("/jobs/KeyError-0").text
    with shop_app.database.session() as session:
        audit.record_once(session, [(AuditEntry("u-9", "dead-letters edit", "KeyError-0", "for Anna"), utc_now())])
    assert "for Anna" not in viewer.get("/jobs/KeyError-0").text
    key = stored(shop_app.broker.store, sent.id)["payload"].partition(b'"x_key": "')[2].partition(b'"')[0].decode()
    assert key
    assert key not in page.text, "it is made of the arguments"
    assert "address" not in text_of(viewer.get("/jobs", state="dead").text)
    assert viewer.get("/jobs", arg="user_id=471147114711").status_code == 403
    for path, form in (
        (f"/jobs/{sent.id}/cancel", {"reason": "x"}),
        ("/queues/pauses", {"kind": "queue", "name": "mail", "reason": "x"}),
        ("/alerts/silences", {"rule": "backlog", "until": "2h", "reason": "x"}),
    ):
        assert viewer.post(path, form).status_code == 403, path
    assert Job.of(sent.id).state == "queued"
    assert actions(shop_app) == []


def test_a_job_is_cancelled(operator: User, shop_app: ConventionsApp) -> None:
    """With a reason; the audit has who."""
    sent = Send.delay(user_id=7, day=DAY)
    refused = operator.post(f"/jobs/{sent.id}/cancel", {"reason": " "})
    assert (refused.status_code, "say why" in refused.text, Job.of(sent.id).state) == (422, True, "queued")
    done = operator.send(f"/jobs/{sent.id}/cancel", {"reason": "the wrong user"})
    assert "It is cancelled: it will not run." in done
    assert actions(shop_app) == [("oscar", "cancel", sent.id, "the wrong user")]
    forced = operator.send("/jobs/KeyError-0/cancel", {"reason": "x", "force": "1"})
    assert "It has ended, or was not sent yet." in forced
    assert operator.post(f"/jobs/{sent.id}/cancel", {"reason": "x"}, token=False).status_code == 403


def test_a_batch_is_cancelled_and_not_ended_by_force(operator: User, shop_app: ConventionsApp) -> None:
    """Its chunks are jobs of their own."""
    refused = operator.send(f"/jobs/{BATCH}/cancel", {"reason": "x", "force": "1"})
    assert "Nothing was changed: it is a batch" in text_of(refused)
    assert (shop_app.batches.state(BATCH), actions(shop_app)) == ("running", [])
    assert "Its chunks that wait will not run" in text_of(operator.send(f"/jobs/{BATCH}/cancel", {"reason": "x"}))
    assert shop_app.batches.state(BATCH) == "cancelled"
    assert actions(shop_app) == [("oscar", "cancel", BATCH, "x")]
    assert "It has ended, or was not sent yet." in operator.send(f"/jobs/{BATCH}/cancel", {"reason": "x"})


@pytest.mark.parametrize("id_", ["nobody", "a/b c?d", "<script>", "ü" * 40])
def test_an_unknown_job(operator: User, id_: str) -> None:
    """Is said to be unknown, whatever its id."""
    page = operator.get(f"/jobs/{quote(id_, safe='')}")
    assert page.status_code == 200
    assert "unknown" in text_of(page.text)
    assert "<script>" not in page.text.partition("<h1>")[2].partition("<script src")[0]


def test_an_id_that_no_job_can_have(operator: User) -> None:
    """No page, and no error of the server."""
    assert operator.get(f"/jobs/{'x' * 300}").status_code == 404
    assert operator.get("/jobs/a%00b").status_code in (400, 404)
    assert operator.post(f"/jobs/{'x' * 300}/cancel", {"reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, 3 * PER_CAUSE + 2),
        ({"state": "dead"}, 3 * PER_CAUSE),
        ({"state": "queued"}, 2),
        ({"state": "delayed"}, 0),
        ({"state": "running"}, 0),
        ({"task": "Charge"}, 1),
        ({"queue": "mail"}, 3 * PER_CAUSE + 1),
        ({"actor": "u-42", "state": "dead"}, 3 * PER_CAUSE),
        ({"actor": "nobody"}, 0),
        ({"arg": "order_id=8"}, 1),
        ({"arg": "user_id=1"}, PER_CAUSE),
        ({"worker": "nobody"}, 0),
        ({"release": "nothing"}, 0),
        ({"since": "1h", "state": "queued"}, 2),
        ({"until": "1h"}, 0),
    ],
)
def test_a_search(operator: User, shop_app: ConventionsApp, words: dict[str, str], expected: int) -> None:
    """Over what waits and what has ended, by any filter."""
    Send.delay(user_id=7, day=DAY)
    Charge.delay(order_id=8)
    page = operator.get("/jobs", **words)
    assert page.status_code == 200
    assert len(re.findall(r'data-label="Job"', page.text)) == expected
    for name, text in words.items():
        assert re.search(rf'name="{name}" value="{re.escape(text)}"|<option value="{text}" selected', page.text), name


@pytest.mark.parametrize("words", [{"state": "fine"}, {"arg": "x"}, {"since": "soon"}])
def test_a_search_that_cannot_be_read(operator: User, words: dict[str, str]) -> None:
    """Says what is wrong, and keeps what was typed."""
    page = operator.get("/jobs", **words, task="Charge")
    assert page.status_code == 400
    assert 'name="task" value="Charge"' in page.text
    assert 'role="alert"' in page.text


def test_the_search_box_leads_on(operator: User, shop_app: ConventionsApp) -> None:
    """An id to its page, an argument and anybody's name to a list."""
    sent = Send.delay(user_id=7, day=DAY)
    assert 'action="/search/jobs"' in operator.get("/").text
    for asked, address in (
        (sent.id, f"/jobs/{sent.id}"),
        ("KeyError-0", "/jobs/KeyError-0"),
        ("user_id=7", "/jobs?arg=user_id%3D7"),
        ("u-42", "/jobs?actor=u-42"),
    ):
        answer = operator.get("/jobs", q=asked)
        assert (answer.status_code, answer.headers["location"]) == (303, address)
        assert operator.post("/search/jobs", {"q": asked}).headers["location"] == address


def test_what_another_program_wrote_ends_no_page(operator: User, shop_app: ConventionsApp) -> None:
    """Half characters in its task, or no message at all."""
    payload = '{"headers": {"id": "odd", "task": "\\ud800", "x_actor": "\\udc00"}, "body": "!", "properties": {}}'
    shop_app.broker.publish([Publication("odd", "mail", payload, 4), Publication("odd-2", "mail", "no message", 4)])
    for path in ("/jobs", "/jobs/odd", "/jobs/odd-2", "/queues", "/"):
        assert operator.get(path).status_code == 200, path


# Queues.


def test_queues(operator: User, shop_app: ConventionsApp) -> None:
    """In place of Flower's broker page; each with its numbers, and a link to what is in it."""
    for number in range(3):
        Send.delay(user_id=number, day=DAY)
    page = operator.get("/queues").text
    assert 'aria-current="page">Queues</a>' in page
    assert ">Broker</a>" not in page
    row = re.compile(r'queue=mail">mail</a>.{,200}data-label="Ready">3<', re.DOTALL)
    wait_until(
        lambda: row.search(operator.get("/queues").text), 10, "it is counted: visitors share one look for a moment"
    )
    assert operator.get("/broker").status_code == 200, "old links lead somewhere"


def test_a_queue_is_paused_and_resumed(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """By its form, with who, why and until when; everybody sees it, as the form says."""
    Send.delay(user_id=1, day=DAY)
    form = {"kind": "queue", "name": "mail", "reason": "the bank is down", "until": "2036-11-25 09:00", "do": "pause"}
    done = operator.send("/queues/pauses", form)
    assert "The queue mail is paused. No worker runs." in text_of(done)
    pause = Pauses(shop_app.store).read().pauses[Target("queue", "mail")]
    assert (pause.actor, pause.reason, str(pause.until)) == ("oscar", "the bank is down", "2036-11-25 00:00:00+00:00")
    for user in (operator, viewer):
        for path in ("/queues", "/"):
            page = user.get(path).text
            assert "paused" in text_of(page)
            assert "the bank is down" in page
    again = operator.send("/queues/pauses", form | {"do": "resume", "reason": ""})
    assert "The queue mail runs again." in text_of(again)
    assert Pauses(shop_app.store).read().pauses == {}
    assert "was not paused" in operator.send("/queues/pauses", form | {"do": "resume"})
    assert [one[:3] for one in actions(shop_app)] == [
        ("oscar", "queue pause", "mail"),
        ("oscar", "queue resume", "mail"),
    ]


def test_a_pause_in_place_of_another_one(operator: User, admin: User, shop_app: ConventionsApp) -> None:
    """Says whose it was, why, and until when; the audit has it as what was before."""
    form = {"kind": "queue", "name": "mail", "reason": "the bank is down", "until": "2036-11-25 09:00", "do": "pause"}
    Send.delay(user_id=1, day=DAY)
    assert "takes the place" not in operator.send("/queues/pauses", form)
    done = text_of(admin.send("/queues/pauses", form | {"reason": "mine", "until": ""}))
    assert (
        "The queue mail is paused. This takes the place of a pause by oscar until 2036-11-25 09:00:00 JST: the bank is down."
        in done
    )
    redis: Any = shop_app.store.redis
    last = json.loads(redis.xrevrange(shop_app.store.key("journal"), count=1)[0][1][b"deed"])
    before = {"actor": "oscar", "reason": "the bank is down", "until": "2036-11-25T00:00:00+00:00"}
    assert (last["before"], last["after"]) == (before, {"reason": "mine", "until": None})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": "mial"}, "there is no queue mial (did you mean mail?)"),
        ({"name": "mial", "do": "resume"}, "there is no queue mial (did you mean mail?)"),
        ({"kind": "task", "name": "Nothing"}, "there is no task Nothing"),
        ({"kind": "worker", "name": "nobody@h"}, "there is no worker nobody@h"),
        ({"kind": "server"}, "say what, and which"),
        ({"name": ""}, "say what, and which"),
        ({"reason": " "}, "say why it is paused"),
        ({"until": "soon"}, "'soon' is no length of time"),
        ({"until": "2020-01-01"}, "is not in the future"),
        ({"do": "resum"}, "say whether to pause or to resume"),
    ],
)
def test_a_pause_that_is_refused(operator: User, shop_app: ConventionsApp, change: dict[str, str], fault: str) -> None:
    """Says what is wrong, and changes nothing."""
    form = {"kind": "queue", "name": "mail", "reason": "x", "do": "pause"} | change
    answer = operator.post("/queues/pauses", form)
    assert answer.status_code == 422
    assert fault in text_of(answer.text)
    assert Pauses(shop_app.store).read().pauses == {}


@pytest.mark.thorough
def test_a_worker_and_a_task_are_paused(operator: User, shop_app: ConventionsApp) -> None:
    """A worker that does not say that it follows is named."""
    WorkerReports(shop_app.store).say("w1@host", WorkerReport(processes=1, queues=("mail",)))
    form = {"kind": "task", "name": TASK, "reason": "x", "do": "pause"}
    assert "Not all workers follow yet: w1@host." in text_of(operator.send("/queues/pauses", form))
    WorkerReports(shop_app.store).say("w1@host", WorkerReport(processes=1, pauses=9))
    worker = {"kind": "worker", "name": "w1@host", "reason": "x", "do": "pause"}
    assert "All workers follow." in text_of(operator.send("/queues/pauses", worker))
    assert {*Pauses(shop_app.store).read().pauses} == {Target("task", TASK), Target("worker", "w1@host")}


def test_the_last_part_of_a_name_pauses_its_task(operator: User, shop_app: ConventionsApp) -> None:
    """And resumes it."""
    form = {"kind": "task", "name": "Charge", "reason": "x", "do": "pause"}
    assert f"The task {Charge.name} is paused." in text_of(operator.send("/queues/pauses", form))
    resumed = operator.send("/queues/pauses", form | {"do": "resume"})
    assert f"The task {Charge.name} runs again." in text_of(resumed)
    assert Pauses(shop_app.store).read().pauses == {}


def test_an_alias_pauses_its_task(operator: User, shop_app: ConventionsApp) -> None:
    """Under the name that workers look for; and resumes it."""
    form = {"kind": "task", "name": "old.charge", "reason": "x", "do": "pause"}
    assert f"The task {Charge.name} is paused." in text_of(operator.send("/queues/pauses", form))
    assert {*Pauses(shop_app.store).read().pauses} == {Target("task", str(Charge.name))}
    resumed = operator.send("/queues/pauses", form | {"do": "resume"})
    assert f"The task {Charge.name} runs again." in text_of(resumed)
    assert Pauses(shop_app.store).read().pauses == {}


# Alerts.


def episode(number: int, *, fired: bool = True) -> Episode:
    """A queue that is too long."""
    finding = Finding(
        "backlog", f"q{number}", "warning", f"q{number}: 1,000 messages wait", "add workers", "/queues", detail=SECRET
    )
    return Episode(f"e{number}", finding, 1_790_000_000.0, 1_790_000_030.0 if fired else None)


def test_alerts(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """What fires, what is pending, and who judges; texts that may hold values are an operator's."""
    store = AlertStore(shop_app.store)
    assert "Nothing was found by who judged last." in text_of(operator.get("/alerts").text)
    assert store.lead("beat@h", 60)
    assert store.save("beat@h", 60, {one.finding.key: one for one in (episode(1), episode(2, fired=False))}, [], [])
    page = operator.get("/alerts").text
    shown = text_of(page)
    for words in (
        "1 alert fires",
        "beat@h judges",
        "q1: 1,000 messages wait",
        "add workers",
        "pending",
        SECRET,
        "No receiver is set",
    ):
        assert words in shown, words
    assert 'href="/queues"' in page
    assert "the alert began" not in shown
    assert SECRET not in viewer.get("/alerts").text


def test_an_alert_says_since_when_and_whether_it_is_seen(viewer: User, shop_app: ConventionsApp) -> None:
    """Since when it is so, when it was first seen, and that its words are not of now."""
    store, one = AlertStore(shop_app.store), episode(1)
    since = replace(one.finding, since=1_789_999_000.0)
    assert store.lead("beat@h", 60)
    assert store.save("beat@h", 60, {since.key: replace(one, finding=since, away_since=1_790_000_060.0)}, [], [])
    shown = text_of(viewer.get("/alerts").text)
    times = [
        datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(shop_app.settings.timezone)).strftime("%H:%M:%S")
        for at in (1_789_999_000, 1_790_000_000, 1_790_000_060)
    ]
    wanted = (
        f"since .*{times[0]}.*; the alert began .*{times[1]}.*. Not seen since .*{times[2]}.*: these words are of then"
    )
    assert re.search(wanted, shown)


def test_an_alert_is_silenced(operator: User, shop_app: ConventionsApp) -> None:
    """For a while, with a reason; and told again."""
    form = {"rule": "backlog", "subject": "q1", "until": "2h", "reason": "a large import"}
    assert "Nobody is told of backlog q1 until then." in text_of(operator.send("/alerts/silences", form))
    (silence,) = AlertStore(shop_app.store).silences(utc_now())
    assert (silence.key, silence.reason, silence.actor) == ("backlog q1", "a large import", "oscar")
    assert timedelta(hours=1, minutes=59) < silence.until - utc_now() <= timedelta(hours=2)
    for change, fault in (
        ({"rule": "x"}, "say which rule"), ({"until": "soon"}, "'soon' is no length of time"), ({"until": "2020-01-01"}, "not in the future"),
        ({"reason": ""}, "say why"),
    ):  # fmt: skip
        answer = operator.post("/alerts/silences", form | change)
        assert (answer.status_code, fault in text_of(answer.text)) == (422, True), fault
    doubt = text_of(operator.send("/alerts/silences", form | {"subject": "archve"}))
    assert "This silences nothing now: no queue 'archve' is known" in doubt
    assert operator.send("/alerts/silences", {"end": "backlog archve"})
    assert "told of backlog q1 again" in text_of(operator.send("/alerts/silences", {"end": "backlog q1"}))
    assert AlertStore(shop_app.store).silences(utc_now()) == []


# Tasks.


def test_a_task(operator: User, shop_app: ConventionsApp) -> None:
    """Its rules, its last hour, its failures."""
    now = Counts(shop_app.store).milliseconds()
    entries = [
        entry(event(f"n{number}", "succeeded", task=TASK, queue="mail", runtime=1.5, wait=0.5), at=now)
        for number in range(4)
    ]
    append(shop_app.store, *entries, entry(event("n9", "dead", task=TASK, queue="mail"), at=now))
    EventCounter(shop_app.store).count_all()
    drain(recorder(shop_app.store, shop_app.database))
    shown = text_of(operator.get(f"/tasks/{TASK}").text)
    for words in ("Send one mail to one user a day", "user_id, day", "5 times at the most", "20 %", "1.500 s", "n9"):
        assert words in shown, words
    unknown = operator.get("/tasks/gone.Task")
    assert (unknown.status_code, "No such task is registered here." in text_of(unknown.text)) == (200, True)
    assert "Pause" not in text_of(unknown.text), "there is nothing to pause"
    assert "Pause…" in shown
    assert operator.get("/tasks").status_code == 200, "Flower's own page"


def test_a_task_by_a_part_of_its_name(operator: User, shop_app: ConventionsApp) -> None:
    """Leads to it; where several are called so, they are named."""
    for part in ("Send", "command_tasks.Send"):
        answer = operator.get(f"/tasks/{part}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/tasks/{TASK}")
    several = sorted(name for name in shop_app.tasks if name.endswith(".Send"))
    assert several == [TASK]
    answer = operator.get("/tasks/charge")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/tasks/{Charge.name}"), "of an alias"
    page = operator.get("/tasks/Named")
    assert (page.status_code, "Several tasks are called so." in text_of(page.text)) == (200, True)
    links = re.findall(r'<li><a href="/tasks/([^"]+)">', page.text)
    assert links == ["tests.cli.command_tasks.Named", "tests.cli.command_tasks.Remark"]
    for nobody in ("end", "ommand_tasks.Send", "Send."):
        assert "No such task is registered here." in text_of(operator.get(f"/tasks/{nobody}").text), nobody


def test_nothing_yet(operator: User, shop_app: ConventionsApp) -> None:
    """Each page says so."""
    forget(shop_app.store)
    with shop_app.database.session() as session:
        for table in ("dead_letters", "executions", "audit"):
            session.connection().exec_driver_sql(f"DELETE FROM conventions_{table}")
    for path, words in (
        ("/jobs", "Nothing runs, waits or is recorded yet."), ("/queues", "Nothing is paused."), ("/alerts", "None yet."),
        (f"/tasks/{TASK}", "Nothing ended within the hour."),
    ):  # fmt: skip
        assert operator.get(path).status_code == 200
        wait_until(lambda path=path, words=words: words in text_of(operator.get(path).text), 10, path)  # type: ignore[misc]  # a lambda


def test_nobody_without_a_role_sees_them(address: str, log_in: LogIn) -> None:
    """As of all pages."""
    nobody, stranger = log_in(address, "nobody:n"), log_in(address)
    for path in ("/jobs", "/jobs/KeyError-0", "/queues", "/alerts", f"/tasks/{TASK}"):
        assert (nobody.get(path).status_code, stranger.get(path).status_code) == (403, 401), path


@pytest.mark.parametrize(
    ("state", "ago", "changing"),
    [("running", None, True), ("dead", 1, True), ("dead", 60, False), ("unknown", None, False)],
)
def test_when_a_page_stands_still(state: State, ago: int | None, changing: bool) -> None:
    """Some time after the end: what was done to a job is recorded a moment later."""
    ended = None if ago is None else utc_now() - timedelta(seconds=ago)
    assert changes(Job("m1", state, ended_at=ended)) == changing


def test_the_beginning_of_an_id(operator: User) -> None:
    """As lists show it: it leads to the job; one that several ids begin with leads nowhere."""
    sent = Send.apply_async(kwargs={"user_id": 8, "day": "2026-01-05"}, countdown=600).id
    found = operator.client.get("/jobs", params={"q": sent[:8]}, follow_redirects=False)
    assert (found.status_code, found.headers["Location"]) == (303, f"/jobs/{sent}")
    assert operator.client.get(f"/jobs/{sent[:8]}", follow_redirects=False).headers["Location"] == f"/jobs/{sent}"
    assert "This is shorter than an id" in operator.get("/jobs/KeyErr").text


def test_a_receiver_that_takes_nothing(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """Is named on the page of alerts; what it answered is for those who see values."""
    store = AlertStore(shop_app.store)
    store.refuse("webhook", "HTTPError: HTTP Error 302: Found", 1_800_000_000.0)
    # A look is fresh for 1.5 s.
    wait_until(lambda: "Alerts do not arrive" in operator.get("/").text, 10, "Now says it")
    for user, sees in ((operator, True), (viewer, False)):
        page = text_of(user.get("/alerts").text)
        assert "webhook has taken nothing since 2027-01-15 17:00:00 JST" in page
        assert ("302" in page) == sees
        said = "Alerts do not arrive: webhook has taken nothing since 2027-01-15 17:00:00 JST"
        assert said in text_of(user.get("/").text)
        assert ("302" in text_of(user.get("/").text)) == sees
    store.accept("webhook")
    assert "has taken nothing" not in operator.get("/alerts").text
    wait_until(lambda: "has taken nothing" not in operator.get("/").text)


def test_now_says_how_many_of_the_dead_were_sent_again(operator: User, shop_app: ConventionsApp) -> None:
    """And what it counts, as the page of dead letters does."""
    with shop_app.database.session() as session:
        letter = session.get_one(DeadLetterRow, "KeyError-0")
        letter.state = "redriven"
        cause = replace(FAILURE, error="KeyError", fingerprint=letter.fingerprint)
    before = int(utc_now().timestamp() * 1000) - 60_000
    append(shop_app.store, entry(event("m1", "dead", task=TASK, failure=cause), at=before))
    EventCounter(shop_app.store).count_all()
    wait_until(lambda: "0 0 1 1 sent again" in text_of(operator.get("/").text), 10, "Now shows it")
    shown = text_of(operator.get("/").text)
    assert "Dead: deaths from then on, also of letters that people have sent again" in shown
