"""Live pages in a real Chromium while Flower stands still, is gone, or no longer knows the visitor: they say that they are old."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conventions.app import ConventionsApp
from tests.console.browser import SCREENSHOTS, faults, link, log_in, text
from tests.console.conftest import BATCH
from tests.console.flower_process import Running, running_flower
from tests.support import wait_until
from tests.workers import Installation

OLD = re.compile(r"Not renewed since \d\d:\d\d:\d\d\. It is tried again\.")
PAGES = [
    "/",
    "/queues",
    "/alerts",
    "/schedules",
    "/schedules/daily-mail",
    "/batches",
    f"/batches/{BATCH}",
    "/tasks/shop.Pay",
]


@pytest.fixture(scope="module")
def running(shop: Installation) -> Iterator[Running]:
    """A Flower that can be stopped."""
    with running_flower(shop, FLOWER_BASIC_AUTH="alice:secret") as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left_in_its_log(browser: Chrome) -> Iterator[None]:
    """A server that is away is what these tests are about, and no fault of a page that comes later."""
    yield
    faults(browser)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still meanwhile: it takes connections, and answers nothing."""
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(pid, signal.SIGCONT)


def banner(browser: Chrome) -> str:
    """What a page says of its age."""
    return " ".join(one.text for one in browser.find_elements(By.CSS_SELECTOR, ".conventions-stale[role=status]"))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_says_that_it_is_old_while_flower_stands_still(
    browser: Chrome, running: Running, shop_app: ConventionsApp, path: str
) -> None:
    """And no more once Flower goes on; without a reload."""
    log_in(browser, running.address)
    browser.get(f"{running.address}{path}")
    browser.execute_script("window.notReloaded = true")
    assert banner(browser) == ""
    with stopped(running.pid):
        wait_until(lambda: OLD.fullmatch(banner(browser)), 30, "it says so")
        if SCREENSHOTS:
            browser.save_screenshot(f"{SCREENSHOTS}/old{path.replace('/', '-')}.png")
    wait_until(lambda: banner(browser) == "", 60, "it is renewed")
    assert browser.execute_script("return window.notReloaded === true")


def test_a_request_that_hangs_is_given_up(browser: Chrome, running: Running, shop_app: ConventionsApp) -> None:
    """And sent again: a connection that hangs for good keeps no page old."""
    log_in(browser, running.address)
    browser.get(f"{running.address}/")
    browser.execute_script(
        "window.given = 0; var one = window.fetch;"
        "window.fetch = function (path, how) { how.signal.addEventListener('abort', function () { window.given += 1; }); return one(path, how); };"
    )
    with stopped(running.pid):
        wait_until(lambda: browser.execute_script("return window.given >= 2"), 60, "two were given up")
    wait_until(lambda: banner(browser) == "", 60, "it is renewed")


def test_flower_ends_and_comes_back(browser: Chrome, shop: Installation, shop_app: ConventionsApp) -> None:
    """The page waits for it, and asks who is no longer known to log in again."""
    with running_flower(shop, FLOWER_BASIC_AUTH="alice:secret") as first:
        log_in(browser, first.address)
        browser.get(f"{first.address}/")
        verdict = text(browser, "h1")
        os.killpg(first.pid, signal.SIGKILL)
        wait_until(lambda: OLD.fullmatch(banner(browser)), 30, "it says so")
        assert text(browser, "h1") == verdict, "what was known stays"
    port = urlsplit(first.address).port or 0
    with running_flower(shop, port=port, FLOWER_BASIC_AUTH="alice:secret"):
        wait_until(lambda: banner(browser) == "", 60, "it is renewed")
    with running_flower(shop, port=port, FLOWER_BASIC_AUTH="alice:other"):
        wait_until(lambda: banner(browser).endswith(" Log in again"), 60, "it asks for a login")
        assert banner(browser).startswith("Not renewed since ")
        href = link(browser, "Log in again").get_attribute("href")
        assert str(href).startswith(first.address)


def test_what_has_ended_is_not_old(browser: Chrome, running: Running, shop_app: ConventionsApp) -> None:
    """A page that changes no more asks for nothing, so it says nothing."""
    log_in(browser, running.address)
    browser.get(f"{running.address}/dead-letters")
    assert browser.find_elements(By.CSS_SELECTOR, ".conventions-stale") == []
