"""The pages of schedules over HTTP: what they show, and what their forms do (R10, R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import html
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET
from zoneinfo import ZoneInfo

import pytest

from conventions.app import ConventionsApp
from conventions.console.hidden_values import HIDDEN
from conventions.console.run_line import ICONS
from conventions.records import audit, executions
from conventions.records.journal import JournalEntry
from conventions.schedules.beat_liveness import Beats
from conventions.schedules.catch_up import Passed
from conventions.schedules.cron import cron
from conventions.schedules.redbeat_entry import definition_of
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_state import Run, State
from conventions.schedules.schedule_store import Schedules
from tests.beat_fixtures import Beat, beat  # noqa: F401  # fixtures
from tests.cli.command_tasks import Send
from tests.console.conftest import BATCH, PAUSED, SECRET
from tests.console.flower_process import User
from tests.console.planned import (
    BROKEN_ARGUMENT,
    BROKEN_CALENDAR,
    CHARGE,
    COUNT,
    DAILY,
    IMPORT,
    SCHEDULE,
)
from tests.failures import failure, record
from tests.recorded import event
from tests.workers import Installation, messages

ONE = f"/schedules/{DAILY.name}"
TOKYO = ZoneInfo("Asia/Tokyo")
FIRST = datetime(2026, 10, 1, 0, 0, tzinfo=UTC)  # 09:00 in Tokyo
HOUR = timedelta(hours=1)


@pytest.fixture
def app(shop_app: ConventionsApp) -> ConventionsApp:
    """The application whose beats are those of this test."""
    return shop_app


@contextmanager
def broken(operator: User, shop: Installation, name: str) -> Iterator[None]:
    """Let a function of the schedule raise within the block, after Flower has read the schedule, which it does once."""
    operator.get("/schedules")
    (shop.folder / name).touch()
    yield
    (shop.folder / name).unlink()


def state_of(app: ConventionsApp, name: str = DAILY.name) -> State:
    """What Redis knows of a schedule."""
    return Schedules(app.store).read([name])[1][name]


def history(app: ConventionsApp, name: str = DAILY.name) -> list[Run]:
    """Its history, the newest first."""
    return Schedules(app.store).history(name, 99)


def remember(app: ConventionsApp, run: Run, name: str = DAILY.name) -> str:
    """Add a line to the history; returns its id."""
    Schedules(app.store).record(name, run)
    return run.id


def ran(app: ConventionsApp, day: int, kind: str, name: str = DAILY.name, runtime: float = 3.0) -> str:
    """One slot for each day, a tenth of a second late, and how its message ended; returns its id."""
    planned = FIRST + timedelta(days=day)
    id_ = remember(app, Run(planned, planned + timedelta(seconds=0.1), f"run-{day}", "beat"), name)
    if kind == "dead":
        record(app.database, failure(id_, runtime=runtime, at=planned + timedelta(seconds=30.1)))
    elif kind:
        with app.database.session() as session:
            executions.record(session, [JournalEntry(b"1-1", event(id_, kind, runtime=runtime), 1, planned, None)])
    return id_


def due(app: ConventionsApp, listed: Schedule, ago: timedelta) -> None:
    """Let the last slot that was sent be so long ago."""
    state = Schedules(app.store)
    state.enter(listed.name, definition_of(listed, TOKYO), state.now() - ago, None)


def row(page: str, name: str = DAILY.name) -> str:
    """The row of a schedule in the list."""
    found = re.search(rf'<tr data-schedule="{name}".*?</tr>', page, re.DOTALL)
    assert found, name
    return found[0]


def recent_runs(text: str) -> list[tuple[str, str]]:
    """The icons of the last runs, the oldest first: which icon, and its text."""
    strip = re.search(r'<ol class="conventions-recent-runs".*?</ol>', text, re.DOTALL)
    assert strip
    icons = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", strip[0], re.DOTALL)]
    assert all(one.findtext("title") == one.get("aria-label") for one in icons)
    return [(one.get("class", "").rpartition("-")[2], one.get("aria-label", "")) for one in icons]


def audited(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        return [(one.actor, one.action, one.target, one.reason) for one in reversed(audit.listing(session, 99))]


def live_values(user: User, path: str = "/schedules") -> dict[str, Any]:
    """What a page asks for again and again: its schedules and beats, by id."""
    answer = user.get(path, **{"as": "json"})
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in (*answer.json()["schedules"], *answer.json()["beats"])}


def test_the_list(viewer: User, app: ConventionsApp, beat: Beat) -> None:
    """In the order of the file, in words, with the next slot in the zone of the settings, and who beats."""
    page = viewer.get("/schedules").text
    assert re.findall(r'<tr data-schedule="([^"]+)"', page) == [one.name for one in SCHEDULE]
    assert page.count("not seen yet") == len(SCHEDULE)
    assert re.search(r'role="alert" data-if="leaderless" ><span data-value="fault">No beat runs', page)
    before = datetime.now(UTC)
    beat(*SCHEDULE).tick()
    page = viewer.get("/schedules").text
    assert "not seen yet" not in page
    assert 'data-if="leaderless" hidden' in page
    assert re.search(rf'data-beat="{socket.gethostname()}:{os.getpid()}" data-state="leads"', page)
    for text in ("At 09:00 every day", "0 9 * * *", "tests.<wbr>cli.<wbr>command_tasks.<wbr>Send", f'href="{ONE}"'):
        assert text in row(page)
    slots = [DAILY.when.next_slot(at, TOKYO) for at in (before, datetime.now(UTC))]
    assert any(slot and slot.strftime("%Y-%m-%d 09:00 JST") in row(page) for slot in slots)
    assert "only japanese_business_days" in row(page, "import")
    assert "every 1h" in row(page, "charge")
    assert "Asia/Tokyo" in page


def test_beats_that_do_not_beat(viewer: User, app: ConventionsApp) -> None:
    """Are said to; one that stands by alone leads to nothing either."""
    beats = Beats(app.store)
    beats.tick("a:1", leads=False)
    found = live_values(viewer)
    assert found["*"]["is"] == {"leaderless": True}
    assert "No beat leads now" in found["*"]["texts"]["fault"]
    assert found["a:1"]["state"] == "stands by"
    beats.tick("b:2", leads=True)
    assert live_values(viewer)["*"]["is"] == {"leaderless": False}
    for name in ("a:1", "b:2"):
        app.store.redis.hset(app.store.key("beats"), name, "1:1000:1000")
    for path in ("/schedules", ONE):
        page = viewer.get(path).text
        assert re.search(r'data-if="leaderless" ><span[^>]*>No beat looks at the schedule', page)
    assert 'data-beat="b:2" data-state="silent"' in viewer.get("/schedules").text


OUTCOMES = {
    "succeeded": "succeeded in 3 s, sent 0.1 s late",
    "dead": "dead after 30 s, sent 0.1 s late",
    "cancelled": "cancelled after 3 s, sent 0.1 s late",
    "retried": "retrying after 3 s, sent 0.1 s late",
    "duplicate": "duplicate after 3 s, sent 0.1 s late: a job with the same key ran before",
    "": "unknown, sent 0.1 s late",
}


def test_outcomes(viewer: User, app: ConventionsApp) -> None:
    """An icon and a sentence for each run, the oldest first. A dead run links to its letter."""
    for day, kind in enumerate(OUTCOMES):
        ran(app, day, kind)
    for path in ("/schedules", ONE):
        page = viewer.get(path).text
        found = recent_runs(row(page) if path == "/schedules" else page)
        assert [icon for icon, _ in found] == [
            "succeeded",
            "dead",
            "cancelled",
            "retrying",
            "cancelled",
            "unknown",
        ]
        assert [text for _, text in found] == [
            f"2026-10-0{day} 09:00 JST: {text}" for day, text in enumerate(OUTCOMES.values(), 1)
        ]
        assert re.search(
            r'<a href="/dead-letters/letters/run-1"><svg class="conventions-run-icon conventions-run-icon-dead"', page
        )
    assert viewer.get("/dead-letters/letters/run-1").status_code == 200
    assert "fails" not in row(viewer.get("/schedules").text), "one went well after those that failed"


def test_a_schedule_whose_runs_fail_looks_so(viewer: User, app: ConventionsApp) -> None:
    """In the list, and on its page."""
    for day, kind in enumerate(("succeeded", "dead", "dead", "dead")):
        ran(app, day, kind)
    listed = row(viewer.get("/schedules").text)
    assert 'data-state="failing"' in listed
    for page in (listed, viewer.get(ONE).text):
        assert "its last 3 runs failed" in page


def test_runs_that_go_on(viewer: User, app: ConventionsApp) -> None:
    """Are where their messages are."""
    for day in (0, 1):
        id_ = ran(app, day, "")
        app.tasks[Send.name].apply_async(kwargs={"user_id": 1, "day": "2026-10-01"}, task_id=id_)
    for held in ("receipts", "started"):
        app.broker.store.redis.hset(app.broker.store.key(held), "run-1", "r")
    assert [icon for icon, _ in recent_runs(row(viewer.get("/schedules").text))] == ["waiting", "running"]


def test_slots_that_were_not_sent(operator: User, viewer: User, app: ConventionsApp) -> None:
    """Say why, and which they were; what may hold an argument is not for everybody."""
    passed = Passed(FIRST, FIRST + timedelta(days=2), 3)
    single = Passed(FIRST, FIRST, 1)
    remember(app, Run(FIRST, FIRST, "", "beat", "skipped", note="run-0"))
    remember(app, Run.without_message("missed", passed, FIRST, "beat"))
    remember(app, Run.without_message("paused", single, FIRST, "alice", "the <b>shop</b> moves"))
    remember(app, Run.without_message("failed", single, FIRST, "beat", f"KeyError: {SECRET}"))
    found = recent_runs(row(operator.get("/schedules").text))
    assert [icon for icon, _ in found] == ["skipped", "missed", "paused", "failed"]
    texts = [text.partition(": ")[2] for _, text in found]
    assert texts[0] == "skipped: run-0 had not ended"
    assert found[1][1].startswith("2026-10-01 09:00 JST to 2026-10-03 09:00 JST, 3 slots: missed")
    assert texts[2] == "paused: paused by alice: the <b>shop</b> moves"
    assert texts[3] == f"failed: its message could not be made: KeyError: {SECRET}"
    assert "<b>" not in operator.get(ONE).text
    for path in ("/schedules", ONE):
        page = viewer.get(path).text
        assert "its message could not be made" in page
        assert SECRET not in page


def test_every_icon_has_a_shape_of_its_own(viewer: User, app: ConventionsApp) -> None:
    """Without any color; and the list says what each means."""
    assert len(set(ICONS.values())) == len(ICONS)
    legend = re.search(r'<ul class="conventions-legend".*?</ul>', viewer.get("/schedules").text, re.DOTALL)
    assert legend
    assert re.findall(r"</svg> (\w+)</li>", legend[0]) == list(ICONS)


def test_twenty_marks_at_the_most(viewer: User, app: ConventionsApp) -> None:
    """And fifty lines on the schedule's own page."""
    for day in range(55):
        ran(app, day, "")
    found = recent_runs(row(viewer.get("/schedules").text))
    assert [text[:10] for _, text in (found[0], found[-1])] == ["2026-11-05", "2026-11-24"]
    page = viewer.get(ONE).text
    assert len(recent_runs(page)) == len(found) == 20
    assert page.count('data-label="Planned"') == 50


def test_a_run_by_hand(viewer: User, app: ConventionsApp) -> None:
    """Has no slot, and so no lag."""
    remember(app, Run(None, FIRST + timedelta(seconds=5), "x", "alice", note="asked for <i>it</i>"))
    page = viewer.get("/schedules").text
    assert recent_runs(row(page)) == [("unknown", "2026-10-01 09:00:05 JST, by hand: unknown: asked for <i>it</i>")]
    assert "by hand" in re.sub(r"<svg.*?</svg>", "", row(page), flags=re.DOTALL)
    assert "<i>" not in page
    assert "<i>" not in viewer.get(ONE).text


def test_runs_of_a_batch_lead_to_it(viewer: User, app: ConventionsApp) -> None:
    """Dead ones too, as it knows which letter says why; one that never began a batch leads to its letter."""
    remember(app, Run(FIRST, FIRST, BATCH, "beat"), IMPORT.name)
    ran(app, 1, "dead", IMPORT.name)
    page = viewer.get("/schedules").text
    assert [icon for icon, _ in recent_runs(row(page, IMPORT.name))] == ["running", "dead"]
    found = re.findall(r'<li><a href="([^"]+)"', row(page, IMPORT.name))
    assert found == [f"/batches/{BATCH}", "/dead-letters/letters/run-1"]


def test_lag_and_overdue(viewer: User, app: ConventionsApp) -> None:
    """How late the last one was sent, and for how long the next one waits; a paused one is not overdue."""
    remember(app, Run(FIRST, FIRST + timedelta(seconds=83), "x", "beat"))
    assert re.search(r'data-label="Lag">1 min 23 s', viewer.get("/schedules").text)
    assert live_values(viewer)["charge"]["is"] == {"overdue": False, "paused": False}
    due(app, CHARGE, 3 * HOUR)
    due(app, IMPORT, timedelta(minutes=1))
    for path, text in (("/schedules", row), ("/schedules/charge", None)):
        found = live_values(viewer, path)["charge"]
        assert found["is"] == {"overdue": True, "paused": False}
        assert re.fullmatch(r"overdue 2 h( \d+ min)?", found["texts"]["overdue"])
        page = viewer.get(path).text
        assert 'data-value="overdue" >overdue 2 h' in (text(page, "charge") if text else page)
    assert live_values(viewer)[PAUSED]["is"] == {"overdue": False, "paused": True}


def test_another_version(viewer: User, app: ConventionsApp, beat: Beat) -> None:
    """Beat has read a time that this file does not have; the other schedules are as they are."""
    other = Schedule("daily-mail", cron("30 9 * * *"), Send, {"user_id": 7, "day": planned_date})
    beat(other, *SCHEDULE[1:]).tick()
    page = viewer.get("/schedules").text
    assert "differs from beat" in row(page)
    assert page.count("differs from beat") == 1
    assert "differs from beat" in viewer.get(ONE).text


def test_a_fault(operator: User, viewer: User, app: ConventionsApp) -> None:
    """Is shown; its text, which may hold an argument, not to everybody."""
    Schedules(app.store).note_fault(DAILY.name, f"KeyError: <b>{SECRET}")
    for path in ("/schedules", ONE):
        assert f"the last try to send it failed: KeyError: &lt;b&gt;{SECRET}" in operator.get(path).text
        found = viewer.get(path).text
        assert "the last try to send it failed" in found
        assert SECRET not in found


def test_a_calendar_that_raises(operator: User, shop: Installation, app: ConventionsApp) -> None:
    """Hides its own slots, and not the other schedules."""
    with broken(operator, shop, BROKEN_CALENDAR):
        pages = [operator.get(path) for path in ("/schedules", f"/schedules/{COUNT.name}")]
    assert [page.status_code for page in pages] == [200, 200]
    for page in pages:
        assert "its slots cannot be told: LookupError: &lt;b&gt;" in page.text
    assert "cannot be told" not in row(pages[0].text)
    assert "cannot be told" not in operator.get("/schedules").text


def test_one(operator: User, app: ConventionsApp) -> None:
    """Its times, its rules in words, its arguments, its next slots, its history."""
    ran(app, 0, "dead")
    page = operator.get(ONE).text
    assert "At 09:00 every day" in page
    assert "latest: of slots that passed while no beat ran, the last one" in page
    assert "a slot is sent however late it is" in page
    assert "allow: a run begins beside one that has not ended" in page
    assert '"day": "planned_date()"' in html.unescape(page)
    slots = re.search(r'<ol class="conventions-slots">(.*?)</ol>', page)
    assert slots
    found = re.findall(r'datetime="([^"]+)"', slots[1])
    assert len(found) == 5
    assert all(one.endswith("T09:00:00+09:00") for one in found)
    table = page[page.index('aria-labelledby="history"') :]
    for text in ("2026-10-01 09:00 JST", "2026-10-01 09:00:00 JST", "0.1 s", "dead", "3 s", "beat", "run-0"):
        assert text in table
    page = operator.get(f"/schedules/{PAUSED}").text
    for text in (
        "none: of slots",
        "at most 2 h late",
        "skip: a slot is skipped",
        "None until it is resumed",
        "by u-42",
    ):
        assert text in page
    assert "at most 1 min late" in operator.get("/schedules/count").text


def test_a_viewer_sees_no_argument(viewer: User, operator: User) -> None:
    """But their names, and what keeps the viewer from changing anything."""
    assert SECRET in operator.get(f"/schedules/{PAUSED}").text
    page = viewer.get(f"/schedules/{PAUSED}").text
    assert SECRET not in page
    assert HIDDEN in page
    assert "path" in page
    assert "<form" not in page
    assert "Your role is not enough" in page


def test_a_page_hears_of_what_is_new(viewer: User, app: ConventionsApp) -> None:
    """By a version, which the passing of time alone does not change."""

    def versions() -> tuple[str, str]:
        listed, one = (viewer.get(path, **{"as": "json"}).json()["version"] for path in ("/schedules", ONE))
        return listed, one

    Beats(app.store).tick("a:1", leads=True)
    before = versions()
    assert f'data-version="{before[0]}"' in viewer.get("/schedules").text
    assert f'data-version="{before[1]}"' in viewer.get(ONE).text
    assert versions() == before
    ran(app, 0, "")
    again = versions()
    assert all(new != old for new, old in zip(again, before, strict=True))
    record(app.database, failure("run-0"))
    ended = versions()
    assert all(new != old for new, old in zip(ended, again, strict=True))


def test_pause_and_resume(operator: User, app: ConventionsApp, beat: Beat) -> None:
    """Beat sends nothing meanwhile, whoever paused it is told to everybody, and what passed is not sent later."""
    due(app, CHARGE, 2 * HOUR)
    answer = operator.post("/schedules/charge/pause", {"reason": " prices <b>change</b> "})
    assert answer.status_code == 303
    pause = state_of(app, "charge").pause
    assert pause
    assert (pause.reason, pause.actor, pause.until) == ("prices <b>change</b>", "oscar", None)
    scheduler = beat(*SCHEDULE)
    scheduler.tick()
    assert messages(app) == []
    page = operator.get(answer.headers["Location"]).text
    assert "The schedule is paused" in page
    assert "by oscar: prices &lt;b&gt;change&lt;/b&gt;" in page
    assert "<b>" not in page + operator.get("/schedules").text
    answer = operator.post("/schedules/charge/resume", {"reason": "they are right"})
    assert "The schedule runs again" in operator.get(answer.headers["Location"]).text
    assert state_of(app, "charge").pause is None
    scheduler.tick()
    assert messages(app) == []
    (line,) = history(app, "charge")
    assert (line.what, line.actor, line.note) == ("paused", "oscar", "prices <b>change</b>")
    assert line.count in (2, 3)  # three where an hour begins just now
    app.store.redis.hset(Schedules(app.store).key("charge"), "cursor", int((datetime.now(UTC) - HOUR).timestamp()))
    scheduler.tick()
    assert {one.headers["x_schedule"] for one in messages(app)} == {"charge"}
    assert audited(app) == [
        ("oscar", "schedule pause", "charge", "prices <b>change</b>"),
        ("oscar", "schedule resume", "charge", "they are right"),
    ]
    page = operator.get("/schedules/charge").text
    assert "they are right" in page[page.index("What was done") :]


def test_a_pause_with_an_end(operator: User, app: ConventionsApp) -> None:
    """Is read in the zone of the settings, and told in it; another pause takes its place."""
    tomorrow = (datetime.now(TOKYO) + timedelta(days=1)).strftime("%Y-%m-%d")
    form = {"reason": "it moves", "until": f"{tomorrow}T08:30"}
    assert operator.post(f"{ONE}/pause", form).status_code == 303
    pause = state_of(app).pause
    assert pause
    assert pause.until == datetime.fromisoformat(f"{tomorrow}T08:30+09:00")
    page = operator.get("/schedules").text
    assert "until <time" in row(page)
    assert f"{tomorrow} 08:30 JST" in row(page)
    assert f"{tomorrow} 09:00 JST" in row(page), "the next run"
    assert operator.post(f"{ONE}/pause", {"reason": "for longer"}).status_code == 303
    assert "for longer" in row(operator.get("/schedules").text)
    with app.database.session() as session:
        before, after = ((one.before, one.after) for one in audit.listing(session, 9))
    assert (before[0]["reason"], before[1]["reason"]) == ("it moves", "for longer")
    assert after[0] is None


@pytest.mark.parametrize(
    ("form", "fault"),
    [
        ({"reason": ""}, "say why it is paused"),
        ({"reason": " \t"}, "say why it is paused"),
        ({"until": "2099-01-01T00:00"}, "say why it is paused"),
        ({"reason": "moves", "until": "2020-01-01T00:00"}, "is not in the future"),
        ({"reason": "moves", "until": "0001-01-01T00:00"}, "is not in the future"),
        ({"reason": "moves", "until": "<b>tomorrow"}, "&lt;b&gt;tomorrow"),
    ],
)
def test_a_pause_that_cannot_be(operator: User, app: ConventionsApp, form: dict[str, str], fault: str) -> None:
    """Says why, keeps what was typed, and changes nothing."""
    answer = operator.post(f"{ONE}/pause", form)
    assert answer.status_code == 422
    assert "Nothing was changed: " in answer.text
    assert fault in answer.text
    assert "<b>" not in answer.text
    if form.get("reason", "").strip():
        assert (
            f'name="reason" maxlength="500" placeholder="needed; everybody sees it" value="{form["reason"]}"'
            in answer.text
        )
    wrong = re.findall(r'name="(\w+)"[^>]*aria-invalid="true" aria-describedby="fault"', answer.text)
    assert wrong == ["until" if form.get("reason", "").strip() else "reason"]
    assert state_of(app) == State(None, None, None)
    assert audited(app) == []


def test_resume_what_is_not_paused(operator: User, app: ConventionsApp) -> None:
    """Changes nothing."""
    answer = operator.post(f"{ONE}/resume", {"reason": "why"})
    assert "it was not paused" not in operator.get(ONE).text
    assert "the schedule was not paused" in operator.get(answer.headers["Location"]).text
    assert audited(app) == []
    assert re.search(r'action="/schedules/daily-mail/resume" data-if="paused" hidden', operator.get(ONE).text)
    assert re.search(
        rf'action="/schedules/{PAUSED}/resume" data-if="paused" >', operator.get(f"/schedules/{PAUSED}").text
    )


def test_run_now(operator: User, app: ConventionsApp) -> None:
    """One message, with the arguments of the latest slot, in the name of the one who asked for it."""
    answer = operator.post(f"{ONE}/run", {"reason": "asked <b>for</b>"})
    assert answer.status_code == 303
    (message,) = messages(app)
    latest = DAILY.when.latest_slot(datetime.now(UTC), TOKYO)
    assert latest
    assert message.arguments == {"user_id": 7, "day": latest.date().isoformat()}
    assert (message.headers["x_actor"], message.headers["x_schedule"]) == ("oscar", "daily-mail")
    (line,) = history(app)
    assert (line.id, line.planned_at, line.actor, line.note) == (message.id, None, "oscar", "asked <b>for</b>")
    assert audited(app) == [("oscar", "schedule run", "daily-mail", "asked <b>for</b>")]
    page = operator.get(answer.headers["Location"]).text
    assert "It was sent now" in page
    ((icon, text),) = recent_runs(page)
    assert (icon, text.partition(" JST")[2]) == ("waiting", ", by hand: waiting: asked <b>for</b>")
    assert "<b>" not in page


def test_run_now_from_two_pages(operator: User, app: ConventionsApp) -> None:
    """Runs once: the second page was opened before the first one's run. It says so, and can be sent again."""
    forms = [{"by_hand": value} for value in re.findall(r'name="by_hand" value="([^"]*)"', operator.get(ONE).text * 2)]
    assert forms == [{"by_hand": "none"}] * 2
    assert operator.post(f"{ONE}/run", forms[0]).status_code == 303
    refused = operator.post(f"{ONE}/run", forms[1])
    assert refused.status_code == 409
    assert "Nothing was sent: oscar ran it by hand since you opened this page, at " in refused.text
    (message,) = messages(app)
    again = {"by_hand": re.findall(r'name="by_hand" value="([^"]*)"', refused.text)[0]}
    assert again == {"by_hand": message.id}
    assert operator.post(f"{ONE}/run", again).status_code == 303
    assert len(messages(app)) == 2


def test_run_now_in_the_same_moment(operator: User, app: ConventionsApp) -> None:
    """Before the first one's run is in the history: the second page is told who runs it."""
    app.store.redis.set(app.store.key("schedule", "by_hand", "daily-mail"), "some-id\x1fu-7", px=60_000)
    refused = operator.post(f"{ONE}/run", {"by_hand": "none"})
    assert refused.status_code == 409
    assert "Nothing was sent: u-7 ran it by hand in the same moment" in refused.text
    assert messages(app) == []
    assert audited(app) == []


def test_a_pause_in_place_of_another_one(operator: User, app: ConventionsApp) -> None:
    """Says whose it was, and why."""
    page = operator.send(f"/schedules/{PAUSED}/pause", {"reason": "mine"})
    assert "The schedule is paused. This takes the place of a pause by u-42: the file moves." in page
    assert "takes the place" not in operator.send("/schedules/charge/pause", {"reason": "mine"})


def test_run_beside_one_that_has_not_ended(operator: User, app: ConventionsApp) -> None:
    """Only where somebody says so; also while it is paused."""
    assert 'name="beside"' not in operator.get(f"/schedules/{PAUSED}").text
    assert operator.post(f"/schedules/{PAUSED}/run").status_code == 303
    (first,) = messages(app)
    answer = operator.post(f"/schedules/{PAUSED}/run", {"reason": "again"})
    assert answer.status_code == 409
    assert "Nothing was sent: an earlier run has not ended" in answer.text
    assert f"<code>{first.id}</code>" in answer.text
    assert 'type="checkbox" name="beside"' in answer.text
    assert 'value="again"' in answer.text
    assert len(messages(app)) == len(audited(app)) == 1
    assert (
        operator.post(f"/schedules/{PAUSED}/run", {"reason": "again", "beside": "1", "by_hand": first.id}).status_code
        == 303
    )
    assert len(messages(app)) == len(audited(app)) == 2


def test_a_run_whose_arguments_cannot_be_made(operator: User, shop: Installation, app: ConventionsApp) -> None:
    """Is said, and leaves nothing that a later one would wait for."""
    with broken(operator, shop, BROKEN_ARGUMENT):
        answer = operator.post("/schedules/charge/run", {"reason": "why"})
    assert answer.status_code == 422
    assert "its message cannot be made: LookupError: no &lt;b&gt;orders" in answer.text
    assert (messages(app), audited(app), history(app, "charge")) == ([], [], [])
    assert operator.post("/schedules/charge/run", {"reason": "why"}).status_code == 303


def test_a_schedule_that_is_not_there(operator: User) -> None:
    """The page of errors, with the way back to the schedules."""
    for path in (
        "/schedules/none",
        "/schedules/%00",
        "/schedules/<b>",
        "/schedules/..%2f..%2fetc",
        "/schedules/" + "x" * 5000,
    ):
        for words in ({}, {"as": "json"}):
            answer = operator.get(path, **words)
            assert (answer.status_code, "All schedules" in answer.text, "<b>" in answer.text) == (404, True, False)
    for action in ("pause", "resume", "run"):
        assert operator.post(f"/schedules/none/{action}", {"reason": "why"}).status_code == 404
        assert operator.get(f"{ONE}/{action}").status_code == 405


def test_redis_that_does_not_do_it(operator: User, app: ConventionsApp) -> None:
    """Is said, with no traceback."""
    app.store.redis.set(Schedules(app.store).key(DAILY.name), "no hash")
    for answer in (operator.get("/schedules"), operator.get(ONE), operator.post(f"{ONE}/pause", {"reason": "why"})):
        assert (answer.status_code, "Redis does not answer" in answer.text) == (503, True)
        assert "Traceback" not in answer.text
    assert audited(app) == []
