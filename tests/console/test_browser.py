"""An incident in a real Chromium: find the cause, edit one letter, redrive the rest, and watch it (R18)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from conventions import BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from tests.console.browser import faults, link, log_in, look, one, see, steadily, text
from tests.console.flower_process import flower
from tests.support import wait_until
from tests.workers import Installation, letters

JOBS = 12  # of each cause


class Deliver(ImmediateTask):
    """Deliver one order, unless the shop is broken."""

    idempotent_on = ("order_id",)
    retry_policy = RetryPolicy(attempts=1)

    def run(self, order_id: int, address: str, folder: str) -> None:
        """Write one line; the file `fixed` mends what is broken, but for an address that is none."""
        if address == "unknown":
            raise BusinessError(f"order {order_id} has no address")
        if not (Path(folder) / "fixed").exists():
            look_up(order_id)
        with (Path(folder) / "delivered").open("a") as file:
            file.write(f"{order_id}\n")


def look_up(order_id: int) -> None:
    """Two causes."""
    if order_id % 2:
        raise ValueError("the stock service answered: <html>busy</html>")
    raise KeyError("warehouse")


@pytest.fixture(scope="module")
def address(module_installation: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(module_installation, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


def wait_for_state(browser: Chrome, state: str) -> dict[str, str]:
    """Watch a redrive until it is in this state; returns its values."""
    wait_until(lambda: text(browser, "[data-value=state]") == state, 60, f"the redrive is {state}")

    def live_values() -> dict[str, str]:
        found = browser.find_elements(By.CSS_SELECTOR, "[data-value]")
        return {str(element.get_attribute("data-value")): element.text for element in found}

    return steadily(live_values)


def test_an_incident(live_app: ConventionsApp, address: str, browser: Chrome, tmp_path: Path) -> None:
    """Someone who never saw the code finds out why, corrects one job, and sends the rest when it is fixed."""
    folder, every = str(tmp_path), 2 * JOBS + 1
    for number in range(2 * JOBS):
        Deliver.delay(order_id=number, address="1 Main Street", folder=folder)
    Deliver.delay(order_id=100, address="unknown", folder=folder)
    wait_until(lambda: len(letters(live_app)) == every, 40)
    log_in(browser, address)

    find_the_causes(browser, every)
    steadily(lambda: link(browser, f"Redrive all {every}").click())
    see(browser, f"Send {every} dead letters again?")
    look(browser, "confirm")
    one(browser, "input[name=reason]").send_keys("is it back?", Keys.ENTER)
    sent = int(wait_for_state(browser, "stopped")["sent"])
    assert 1 <= sent <= 5, (
        "the canary failed, and the others were left"
    )  # a slow machine sends it in parts, and stops after one
    look(browser, "stopped")

    (tmp_path / "fixed").touch()
    browser.get(f"{address}/dead-letters?error=BusinessError")
    browser.find_element(By.CSS_SELECTOR, "section[aria-labelledby=letters] td a").click()
    correct_the_address(browser)
    assert (tmp_path / "delivered").read_text() == "100\n"
    send_the_rest(browser, address)
    delivered = (tmp_path / "delivered").read_text().split()
    assert sorted(map(int, delivered)) == [*range(2 * JOBS), 100], "each once"
    browser.get(f"{address}/dead-letters")
    see(browser, "0 dead")
    browser.get(f"{address}/dead-letters/redrives")
    look(browser, "redrives")


def find_the_causes(browser: Chrome, every: int) -> None:
    """From the navigation of Flower to the groups."""
    steadily(lambda: link(browser, "Dead letters").click())
    see(browser, f"{every} dead")
    causes = browser.find_elements(By.CSS_SELECTOR, "section[aria-labelledby=groups] tbody tr")
    assert [row.find_element(By.TAG_NAME, "strong").text for row in causes][-1] == "BusinessError"
    numbers = [row.find_element(By.CSS_SELECTOR, "td.conventions-number").text for row in causes]
    assert numbers == [str(JOBS), str(JOBS), "1"]
    look(browser, "letters")


def correct_the_address(browser: Chrome) -> None:
    """First with a number that is none: it says so, and keeps what was typed."""
    look(browser, "letter")
    field = one(browser, "#argument-address")
    field.clear()
    field.send_keys("2 Side Street")
    number = one(browser, "#argument-order_id")
    number.clear()
    number.send_keys("one hundred")
    steadily(lambda: one(browser, "button[value=redrive]").click())
    wait_until(lambda: browser.find_elements(By.ID, "faults"), 15, "the faults are shown")
    assert text(browser, "#fault-order_id")
    look(browser, "editor")
    assert one(browser, "#argument-address").get_attribute("value") == "2 Side Street"
    number = one(browser, "#argument-order_id")
    assert number.get_attribute("value") == "one hundred"
    number.clear()
    number.send_keys("100")
    steadily(lambda: one(browser, "button[value=redrive]").click())
    assert wait_for_state(browser, "finished")["succeeded"] == "1"


def send_the_rest(browser: Chrome, address: str) -> None:
    """Two that are selected, then all that are left."""
    browser.get(f"{address}/dead-letters?error=KeyError")
    for box in browser.find_elements(By.CSS_SELECTOR, "input[name=id]")[:2]:
        box.click()
    steadily(lambda: link(browser, "Redrive 2").click())
    see(browser, "Send 2 dead letters again?")
    steadily(lambda: link(browser, "Redrive 2").click())
    assert wait_for_state(browser, "finished")["succeeded"] == "2"
    left = 2 * JOBS - 2
    browser.get(f"{address}/dead-letters")
    steadily(lambda: link(browser, f"Redrive all {left}").click())
    steadily(lambda: link(browser, f"Redrive {left}").click())
    assert wait_for_state(browser, "finished")["succeeded"] == str(left)
    look(browser, "finished")


def test_the_keyboard_is_enough(live_app: ConventionsApp, address: str, browser: Chrome, tmp_path: Path) -> None:
    """The search has a key, and from it every button is reached by Tab and used by Enter and Space."""
    Deliver.delay(order_id=200, address="unknown", folder=str(tmp_path))
    wait_until(lambda: letters(live_app, text="order 200"), 40)
    log_in(browser, address)
    browser.get(f"{address}/dead-letters")
    one(browser, "body").send_keys("/")
    browser.switch_to.active_element.send_keys("order 200", Keys.ENTER)
    wait_until(lambda: "text=order" in browser.current_url, 15, "the filter is in the URL")
    see(browser, "1 dead")

    def tab_to(selector: str) -> WebElement:
        target = one(browser, selector)
        for _ in range(80):
            if browser.switch_to.active_element == target:
                return target
            browser.switch_to.active_element.send_keys(Keys.TAB)
        raise AssertionError(f"{selector} is not reached by Tab")

    one(browser, "body").send_keys("/")
    tab_to("input[name=id]").send_keys(Keys.SPACE)
    assert link(browser, "Redrive 1").is_enabled()
    tab_to("section[aria-labelledby=letters] td a").send_keys(Keys.ENTER)
    see(browser, "BusinessError")
    tab_to("button[value=save]").send_keys(Keys.ENTER)
    wait_until(lambda: "Nothing was different" in text(browser, ".conventions"), 15, "saved by the keyboard")
    assert faults(browser) == []
