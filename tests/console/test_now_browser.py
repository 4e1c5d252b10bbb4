"""The overview in a real Chromium: it changes by itself, leaves alone what a person works in, and its links lead somewhere."""

from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conventions.app import ConventionsApp
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts
from tests.console.browser import log_in, look, text
from tests.console.flower_process import flower
from tests.recorded import append, entry, event
from tests.support import patient, wait_until
from tests.workers import Installation


@pytest.fixture(scope="module")
def open_address(shop: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(shop, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


def fail(app: ConventionsApp, number: int) -> None:
    """So many attempts of one task failed just now, and are tried again."""
    now = Counts(app.store).milliseconds()
    append(
        app.store, *(entry(event(f"m{n}", "retried", task="shop.Pay", queue="payments"), at=now) for n in range(number))
    )
    EventCounter(app.store).count_all()


def test_it_changes_by_itself(browser: Chrome, open_address: str, shop_app: ConventionsApp) -> None:
    """Within seconds, without a reload; and not where something is chosen."""
    log_in(browser, open_address)
    browser.get(f"{open_address}/")
    browser.execute_script("window.notReloaded = true")
    fail(shop_app, 30)
    wait_until(lambda: "Pay: 30 messages are retrying" in text(browser, "[data-part=findings]"), 30, "it says so")
    assert browser.execute_script("return window.notReloaded === true")
    look(browser, "now")
    links = {one.get_attribute("href") for one in browser.find_elements(By.CSS_SELECTOR, "[data-conventions-now] a")}
    assert len(links) >= 3
    for link in links:
        answer = httpx.get(str(link), auth=("alice", "secret"), timeout=patient(10))
        assert answer.status_code == 200, link


def test_a_choice_is_left_alone(browser: Chrome, open_address: str, shop_app: ConventionsApp) -> None:
    """Who copies an id from a table keeps his choice; the other parts go on."""
    log_in(browser, open_address)
    fail(shop_app, 25)
    browser.get(f"{open_address}/")
    wait_until(lambda: "shop.Pay 25 25" in text(browser, "[data-part=causes]"), 30, "it says so")
    browser.execute_script("getSelection().selectAllChildren(document.querySelector('[data-part=causes] td'))")
    fail(shop_app, 60)
    wait_until(lambda: "60 messages" in text(browser, "[data-part=findings]"), 30, "the verdict goes on")
    assert browser.execute_script("return !getSelection().isCollapsed")
    assert " 25" in text(browser, "[data-part=causes]")
