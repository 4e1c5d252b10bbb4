"""Schedules in a real Chromium, with a real beat and worker: watch runs come, pause, resume, run now (R10)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys

from conventions import BusinessError, ScheduledTask
from conventions.app import ConventionsApp
from conventions.records import audit
from conventions.schedules.catch_up import Passed
from conventions.schedules.cron import cron
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from tests.console.browser import attribute, faults, link, log_in, look, one, see, steadily, text
from tests.console.conftest import give_schedule
from tests.console.flower_process import flower
from tests.support import patient, wait_until
from tests.workers import Installation, wait_for_letter


class Report(ScheduledTask):
    """Write the report of one day, once there is a file in the worker's folder that lets it."""

    def run(self, day: date) -> None:
        wait_until(Path("open").exists, 60)
        if Path("broken").exists():
            raise BusinessError(f"{day} has no <b>orders</b>")


class Tick(ScheduledTask):
    """Do nothing for one day."""

    def run(self, day: date) -> None: ...


SCHEDULE = [
    Schedule("nightly", cron("0 3 1 * *"), Report, {"day": planned_date}, overlap="skip"),
    Schedule("often", every(3), Tick, {"day": planned_date}),
]


@pytest.fixture(scope="module")
def planned(module_installation: Installation) -> Installation:
    """The installation, with the schedule of this module."""
    give_schedule(module_installation, __name__)
    return module_installation


@pytest.fixture(scope="module")
def address(planned: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(planned, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


@contextmanager
def beating(installation: Installation) -> Iterator[None]:
    """A beat for the block, which ends in order."""
    with (installation.folder / "beat.log").open("w") as log:
        process = subprocess.Popen(
            installation.celery("beat", "--pidfile="), cwd=installation.folder,
            env=installation.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield
        process.terminate()
        process.wait(timeout=patient(20))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def icons(browser: Chrome, name: str) -> list[str]:
    """The icons of a schedule, the oldest first."""
    selector = f"[data-schedule={name}] .conventions-recent-runs svg"
    script = f"return [...document.querySelectorAll('{selector}')].map((one) => one.getAttribute('class'))"
    classes: list[str] = browser.execute_script(script)
    return [one.rpartition("-")[2] for one in classes]


def mark_page(browser: Chrome) -> None:
    """Leave something that a reload would take away."""
    browser.execute_script("window.notReloaded = true")


def is_marked(browser: Chrome) -> bool:
    """Whether it is still there."""
    return bool(browser.execute_script("return window.notReloaded === true"))


def history_before(app: ConventionsApp) -> None:
    """Slots of the schedule that were not sent."""
    state, now = Schedules(app.store), datetime.now(UTC)
    passed = Passed(now - timedelta(days=90), now - timedelta(days=60), 2)
    for run in (
        Run.without_message("missed", passed, now, "beat"),
        Run.without_message("paused", Passed(now, now, 1), now, "alice", "the shop moves"),
        Run(now, now, "", "beat", "skipped", note="a-run"),
        Run.without_message("failed", Passed(now, now, 1), now, "beat", "KeyError: 'orders'"),
    ):
        state.record("nightly", run)


def test_schedules(live_app: ConventionsApp, planned: Installation, address: str, browser: Chrome) -> None:
    """From the list to a run by hand, whose icon appears and changes without a reload."""
    log_in(browser, address)
    steadily(lambda: link(browser, "Schedules").click())
    see(browser, "What runs when")
    assert "No beat runs" in text(browser, "[role=alert]")
    look(browser, "schedules-without-beat")
    history_before(live_app)
    with beating(planned):
        watch_the_list(browser)
        steadily(lambda: one(browser, "[data-schedule=often] a").click())
        see(browser, "often")
        look(browser, "schedule-often")
    steadily(lambda: link(browser, "Schedules").click())
    steadily(lambda: one(browser, "[data-schedule=nightly] a").click())
    see(browser, "nightly")
    pause_and_resume(live_app, browser)
    run_now(live_app, planned.folder, browser)
    with live_app.database.session() as session:
        found = [(row.actor, row.action, row.reason) for row in reversed(audit.listing(session, 9, target="nightly"))]
    assert [one for one in found if one[0] == "alice"] == [
        ("alice", "schedule pause", "the shop moves"),
        ("alice", "schedule resume", "it has moved"),
        ("alice", "schedule run", "the boss asks"),
        ("alice", "schedule run", "the boss asks"),
    ]


def watch_the_list(browser: Chrome) -> None:
    """A beat that begins to lead is there, and each run gets an icon, without a reload."""
    mark_page(browser)
    wait_until(lambda: not text(browser, "[data-beat='*']"), 40, "nothing is wrong any more")
    wait_until(lambda: "leads" in text(browser, ".conventions-beats"), 40, "it leads")
    wait_until(lambda: icons(browser, "often")[:2] == ["succeeded", "succeeded"], 60, "two runs succeeded")
    assert "not seen yet" not in text(browser, "tbody")
    assert is_marked(browser)
    look(browser, "schedules")


def pause_and_resume(app: ConventionsApp, browser: Chrome) -> None:
    """With a reason, which is needed; what is typed stays while the page renews itself."""
    steadily(lambda: link(browser, "Pause").click())
    assert browser.execute_script("return document.querySelector('form[action$=pause] :invalid').name") == "reason"
    form = "form[action$='/nightly/pause'] input[name=reason]"
    one(browser, form).send_keys("the shop moves")
    version = attribute(browser, "[data-conventions-live]", "data-version")
    Schedules(app.store).note_fault("nightly", "KeyError: 'orders'")
    wait_until(lambda: attribute(browser, "[data-conventions-live]", "data-version") != version, 30, "it is renewed")
    assert "KeyError" in text(browser, "[data-part=facts]")
    assert attribute(browser, form, "value") == "the shop moves"
    assert steadily(lambda: browser.switch_to.active_element == one(browser, form))
    one(browser, form).send_keys(Keys.ENTER)
    wait_until(lambda: "The schedule is paused" in text(browser, "[role=status].alert"), 15, "it is said")
    assert "by alice: the shop moves" in text(browser, "[data-part=facts]")
    assert "None until it is resumed" in text(browser, "[data-part=slots]")
    look(browser, "schedule-paused")
    one(browser, "form[action$='/nightly/resume'] input[name=reason]").send_keys("it has moved")
    steadily(lambda: link(browser, "Resume").click())
    wait_until(lambda: "runs again" in text(browser, "[role=status].alert"), 15, "it is said")
    assert text(browser, "form[action$='/nightly/resume']") == "", "it is not offered any more"
    assert text(browser, "p.conventions-schedule-state") == "fails its last run failed", "of which the history tells"


def run_now(app: ConventionsApp, folder: Path, browser: Chrome) -> None:
    """One that goes on is in the way, until it is told to run beside it; then both end."""
    press_run(browser)
    wait_until(lambda: "It was sent now" in text(browser, "[role=status].alert"), 15, "it is said")
    mark_page(browser)
    wait_until(lambda: icons(browser, "nightly")[-1] == "running", 30, "it runs")
    press_run(browser)
    wait_until(lambda: "has not ended" in text(browser, "#fault"), 15, "it is said")
    assert not is_marked(browser)
    mark_page(browser)
    look(browser, "schedule-still-runs")
    steadily(lambda: one(browser, "input[name=beside]").click())
    steadily(lambda: one(browser, "form[action$='/nightly/run'] button").click())
    wait_until(lambda: "It was sent now" in text(browser, "[role=status].alert"), 15, "it is said")
    mark_page(browser)
    assert len(icons(browser, "nightly")) == 6
    (folder / "broken").touch()
    (folder / "open").touch()
    wait_until(lambda: icons(browser, "nightly")[-2:] == ["dead", "dead"], 40, "both are dead")
    assert is_marked(browser)
    look(browser, "schedule-dead")
    id_ = Schedules(app.store).history("nightly", 1)[0].id
    wait_for_letter(app, id_)
    steadily(lambda: one(browser, ".conventions-recent-runs li:last-child a").click())
    see(browser, "BusinessError")
    assert faults(browser) == []


def press_run(browser: Chrome) -> None:
    """Ask for a run, with the keyboard."""
    one(browser, "form[action$='/nightly/run'] input[name=reason]").send_keys("the boss asks", Keys.ENTER)
