"""A batch in a real Chromium: watch it, find out why a chunk failed, send it again, cancel the batch (R19)."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conventions.app import ConventionsApp
from conventions.broker.batch_membership import chunk_id
from conventions.core.errors import BusinessError
from conventions.records import audit
from tests.batching import Ending
from tests.console.browser import attribute, faults, link, log_in, look, one, see, steadily, text
from tests.console.conftest import BATCH, BATCH_TASK, begin
from tests.console.flower_process import flower
from tests.failures import failure, record
from tests.support import wait_until
from tests.workers import Installation, messages

PATH = f"/batches/{BATCH}"


@pytest.fixture(scope="module")
def open_address(shop: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(shop, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


def shown_value(browser: Chrome, name: str, batch: str = BATCH) -> str:
    """What the page says of a batch now."""
    return text(browser, f"[data-batch={batch}] [data-value={name}]")


def width(browser: Chrome, part: str, batch: str = BATCH) -> float:
    """How wide a part of its bar is drawn now, in hundredths of the bar."""
    script = "return arguments[0].getBoundingClientRect().width / arguments[1].getBoundingClientRect().width"

    def measured() -> float:
        bar = one(browser, f"[data-batch={batch}] .conventions-bar")
        found: float = browser.execute_script(script, bar.find_element(By.CLASS_NAME, f"conventions-{part}"), bar)
        return found

    return round(100 * steadily(measured))


def wait_for(browser: Chrome, name: str, value: str, batch: str = BATCH) -> None:
    """Wait until the page says so by itself."""
    wait_until(lambda: shown_value(browser, name, batch) == value, 30, f"{name} is {value}")


def mark_page(browser: Chrome) -> None:
    """Leave something that a reload would take away."""
    browser.execute_script("window.notReloaded = true")


def is_marked(browser: Chrome) -> bool:
    """Whether it is still there."""
    return bool(browser.execute_script("return window.notReloaded === true"))


def bury(app: ConventionsApp, index: int) -> None:
    """The dead letter of a chunk."""
    arguments = {
        "batch_id": BATCH, "chunk_index": index, "total_chunks": 4, "items": ["a", "b"],
        "arguments": {"path": "/in.csv"},
    }  # fmt: skip
    error = BusinessError("line 4 of /in.csv has no price")
    record(app.database, failure(chunk_id(BATCH, index), error, task=f"{BATCH_TASK}.chunk", arguments=arguments))


def test_a_batch_that_runs(shop_app: ConventionsApp, open_address: str, browser: Chrome) -> None:
    """From the list to its end, without a reload."""
    ending = Ending(shop_app.store, shop_app.batches, BATCH)
    bury(shop_app, 1)
    log_in(browser, open_address)
    steadily(lambda: link(browser, "Batches").click())
    see(browser, "Newest batches")
    watch_the_list(shop_app, browser)
    steadily(lambda: one(browser, f"[data-batch={BATCH}] a").click())
    see(browser, "Import")
    watch_one(browser, ending)
    repair(shop_app, browser, ending)
    one(browser, f"form[action$='{PATH}/cancel'] input[name=reason]").send_keys("wrong file")
    steadily(lambda: link(browser, "Cancel the batch").click())
    wait_for(browser, "state", "cancelled")
    wait_until(lambda: "The batch was cancelled" in text(browser, "[role=status].alert"), 15, "it is said")
    assert text(browser, f"form[action$='{PATH}/cancel']") == "", "it is not offered any more"
    look(browser, "batch-cancelled")
    assert shop_app.batches.state(BATCH) == "cancelled"
    with shop_app.database.session() as session:
        found = [(row.actor, row.action, row.target, row.reason) for row in audit.listing(session, 9)]
    assert found == [
        ("alice", "batch cancel", BATCH, "wrong file"), ("alice", "batch retry-failed", BATCH, "prices are there"),
    ]  # fmt: skip


def watch_the_list(app: ConventionsApp, browser: Chrome) -> None:
    """Bars move, and a batch that begins meanwhile gets a row."""
    mark_page(browser)
    new = begin(app, "b2", None, sealed=False)
    new.chunk(0, "done", 1200)
    wait_for(browser, "done", "1,200", "b2")
    assert "conventions-unknown" in attribute(browser, "[data-batch=b2] .conventions-bar", "class")
    finished = begin(app, "b0-0123456789", 9000)
    for index in range(4):
        finished.chunk(index, "done", 2250)
    finished.role("finish", "done")
    begin(app, "b4", 40).chunk(0, "done", 13)
    long_ago: dict[Any, Any] = {"started_at": str(time.time() - 8000), "updated_at": str(time.time() - 800)}
    app.store.redis.hset(app.store.key("progress", "b4"), mapping=long_ago)
    wait_until(lambda: browser.find_elements(By.CSS_SELECTOR, "[data-batch=b4]"), 30, "its row is there")
    wait_for(browser, "state", "done", "b0-0123456789")
    look(browser, "batches")
    app.batches.note_is_cut("b2", chunks=4, total=4800)
    wait_for(browser, "percent", "25 %", "b2")
    wait_until(lambda: width(browser, "done", "b2") == 25, 30, "the bar is drawn")
    assert is_marked(browser)


def watch_one(browser: Chrome, ending: Ending) -> None:
    """The bar moves when a chunk joins; a chunk that fails is linked as soon as it has."""
    mark_page(browser)
    assert (shown_value(browser, "done"), width(browser, "done")) == ("0 of 7", 0)
    ending.chunk(0, "done", 2)
    wait_for(browser, "done", "2 of 7")
    wait_until(lambda: (width(browser, "done"), width(browser, "failed")) == (29, 29), 30, "the bar is drawn")
    assert attribute(browser, ".conventions-bar", "aria-valuenow") == "28"
    ending.chunk(2, "dead", 2)
    wait_until(lambda: "2" in text(browser, "#failed"), 30, "it is linked")
    assert is_marked(browser)
    assert text(browser, ".conventions-chunks").split() == ["1", "2"]
    look(browser, "batch-live")


def repair(app: ConventionsApp, browser: Chrome, ending: Ending) -> None:
    """See why it failed, send it again, and see it done."""
    steadily(lambda: one(browser, ".conventions-chunks a").click())
    see(browser, "BusinessError")
    browser.back()
    see(browser, "Import")
    one(browser, f"form[action$='{PATH}/retry-failed'] input[name=reason]").send_keys("prices are there")
    steadily(lambda: link(browser, "Send failed chunks again").click())
    wait_until(lambda: "Sent again: 1 of 2" in text(browser, "[role=status].alert"), 15, "it says what was sent")
    assert [one.id for one in messages(app)] == [chunk_id(BATCH, 1)]
    look(browser, "batch-sent-again")
    mark_page(browser)
    for index in (1, 2):
        ending.chunk(index, "done", 2)
    wait_for(browser, "done", "6 of 7")
    wait_until(lambda: not text(browser, "#failed"), 30, "nothing is left to repair, and so nothing of it is shown")
    wait_until(lambda: width(browser, "failed") == 0, 30, "the bar is drawn")
    assert is_marked(browser)
    assert faults(browser) == []
