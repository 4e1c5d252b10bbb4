"""The pages of jobs, queues and alerts in a real Chromium: they change by themselves, fit every width, and take forms."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from conventions.app import ConventionsApp
from conventions.pauses.pause_store import Pauses, Target
from tests.console.browser import OTHERS, WIDE, faults, log_in, look, one, resize, text
from tests.console.flower_process import flower
from tests.integration.pauses_tasks import Hold, Note
from tests.support import wait_until
from tests.workers import Installation

PHONE = OTHERS[-1]


@pytest.fixture(scope="module")
def held(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """An installation with jobs that wait for a file."""
    folder = tmp_path_factory.mktemp("held")
    packages = ["tests.integration.pauses_tasks"]
    return Installation(folder, packages, broker_url=valkey_url, database_url=new_database(folder))


@pytest.fixture(scope="module")
def held_app(held: Installation) -> Iterator[ConventionsApp]:
    """Its application, the current one."""
    with held.application() as app:
        app.load_tasks()
        yield app


@pytest.fixture(scope="module")
def address(held: Installation) -> Iterator[str]:
    """A Flower with one login, who may do everything."""
    with flower(held, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


def test_a_job_from_its_queue_to_its_end(
    browser: Chrome, address: str, held: Installation, held_app: ConventionsApp
) -> None:
    """Without a reload; and its page changes no more once it has ended."""
    log_in(browser, address)
    sent = Hold.delay(folder=held.folder, number=1)
    browser.get(f"{address}/jobs/{sent.id}")
    assert "queued" in text(browser, "h1")
    look(browser, "job")
    browser.execute_script("window.notReloaded = true")
    with held.worker("-c", "1"):
        wait_until(lambda: "running" in text(browser, "h1"), 30, "it runs")
        wait_until(lambda: "worker0@" in text(browser, "[data-part=facts]"), 30, "where it runs")
        (held.folder / "go").touch()
        wait_until(lambda: "succeeded" in text(browser, "h1"), 30, "it has ended")
        wait_until(lambda: "attempt 1" in text(browser, "[data-part=attempts]"), 30, "its attempt")
    assert browser.execute_script("return window.notReloaded === true")
    assert faults(browser) == []


def test_a_job_is_found_and_ended_by_force(
    browser: Chrome, address: str, held: Installation, held_app: ConventionsApp
) -> None:
    """By the search box of the overview, and by the button of its page."""
    (held.folder / "go").unlink(missing_ok=True)
    ran = held.folder / "ran"
    ran.touch()
    sent = Hold.delay(folder=held.folder, number=2)
    with held.worker("-c", "1"):
        wait_until(lambda: "hold 2" in ran.read_text(), 30, "it runs")
        log_in(browser, address)
        browser.get(f"{address}/")
        search = one(browser, ".conventions-search input[name=q]")
        search.send_keys(sent.id)
        one(browser, ".conventions-search button").click()
        wait_until(lambda: browser.current_url.endswith(f"/jobs/{sent.id}"), 15, "its page")
        one(browser, ".conventions-action-form input[name=reason]").send_keys("it hangs")
        one(browser, ".conventions-action-form button[name=force]").click()
        wait_until(lambda: "has ended it by force" in text(browser, ".conventions"), 30, "it is over")
        wait_until(lambda: "revoked" in text(browser, "h1"), 30, "it says so")
        look(browser, "job-forced")


def test_a_queue_is_paused_from_its_row(browser: Chrome, address: str, held_app: ConventionsApp) -> None:
    """The button of the row fills the form; the row then shows who paused it."""
    log_in(browser, address)
    browser.get(f"{address}/queues")
    link = wait_until(
        lambda: next((a for a in browser.find_elements(By.CSS_SELECTOR, "a[href*='name=apart']")), None), 15, "its row"
    )
    link.click()
    wait_until(lambda: one(browser, "input[name=name]").get_attribute("value") == "apart", 15, "the form is filled")
    assert Select(one(browser, "select[name=kind]")).first_selected_option.text == "queue"
    one(browser, "input[name=reason]").send_keys("the bank is down")
    one(browser, "button[value=pause]").click()
    wait_until(lambda: "The queue apart is paused" in text(browser, ".conventions"), 30, "it says so")
    assert Target("queue", "apart") in Pauses(held_app.store).read().pauses
    wait_until(lambda: "by alice" in text(browser, "[data-part=queues]"), 15, "the row has it")
    look(browser, "queues")
    one(browser, "input[name=name]").clear()
    one(browser, "input[name=name]").send_keys("apart")
    one(browser, "button[value=resume]").click()
    wait_until(lambda: "runs again" in text(browser, ".conventions"), 30, "it is resumed")


def test_the_other_pages(browser: Chrome, address: str, held: Installation, held_app: ConventionsApp) -> None:
    """They fit every width, by day and by night."""
    for number in range(3):
        Note.delay(folder=held.folder, number=number)
    log_in(browser, address)
    for name, path in (("jobs", "/jobs"), ("alerts", "/alerts"), ("task", f"/tasks/{Note.name}")):
        browser.get(f"{address}{path}")
        look(browser, name)
        assert faults(browser) == []


def test_filters_are_folded_on_a_phone(browser: Chrome, address: str, held_app: ConventionsApp) -> None:
    """What was found comes first; a page that was asked for with a filter shows it, and so does every wide one."""
    log_in(browser, address)
    looks = ((PHONE, "", False), (PHONE, "?said=x&task=", False), (PHONE, "?task=Note", True), (WIDE, "", True))
    of_letters = (
        (PHONE, "?state=dead&queue=&arg=", False),
        (PHONE, "?state=discarded", True),
    )  # as its form sends them
    for path, more in (("/jobs", ()), ("/audit", ()), ("/dead-letters", of_letters)):
        for size, query, is_shown in (*looks, *more):
            resize(browser, size, dark=False)
            browser.get(f"{address}{path}{query}")
            assert one(browser, "form[role=search] input[name=task]").is_displayed() == is_shown, (path, size, query)
    resize(browser, PHONE, dark=False)
    browser.get(f"{address}/jobs")
    one(browser, "[data-conventions-fold] > summary").click()
    wait_until(one(browser, "form[role=search] input[name=task]").is_displayed, 15, "it unfolds")
    browser.get(f"{address}/jobs")
    resize(browser, WIDE, dark=False)
    wait_until(one(browser, "form[role=search] input[name=task]").is_displayed, 15, "a phone that is turned")
