"""Tables in a real Chromium, with long names and large numbers: no number breaks, and a name breaks at a sign or a capital alone."""

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Publication
from conventions.metrics.event_counter import EventCounter
from conventions.metrics.read_counts import Counts
from conventions.metrics.worker_reports import RunningJob, WorkerReport, WorkerReports
from tests.console.browser import FITS, SCREENSHOTS, faults, log_in, resize
from tests.console.flower_process import flower
from tests.failures import failure, record
from tests.recorded import append, entry, event
from tests.support import wait_until
from tests.workers import Installation

TASK = "shop.payments.nightly_reconciliation.ReconcileMonthlyStatements"
QUEUE = "payments-reconciliation_europe"
WORKER = "system-worker-12@web-frontend-03.example.com"
RELEASE = "4f1c2a9d8e7b6a5c4d3e2f1a0b9c8d7e6f5a4b3c"
WIDTHS = ((1280, 1000), (900, 1000), (600, 1000), (360, 800))
PAGES = {"now": "/", "jobs": "/jobs", "queues": "/queues", "letters": "/dead-letters", "task": f"/tasks/{TASK}"}
SHOWN = "return document.querySelector('.conventions').textContent.includes(arguments[0])"
LARGE = "document.querySelectorAll('td.conventions-number').forEach((one) => { if (one.textContent.trim()) { one.textContent = '1,234,567'; } });"
# Pieces of names and numbers in tables that stand in two lines. What people and errors say may break as text does.
BROKEN = r"""
const broken = [];
const spoken = ".conventions-message, .conventions-cause, .conventions-muted, pre, time";
document.querySelectorAll(".conventions-table td, .conventions-table th").forEach((cell) => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest(spoken)) { continue; }
    for (const word of node.textContent.matchAll(/[^\s]+/g)) {
      const isNumber = /^[\d.,:]+%?$/.test(word[0]);
      const pieces = isNumber ? [[word[0], 0]] : [];
      if (!isNumber) { for (const one of word[0].matchAll(/[^.@_\/:-]+[.@_\/:-]*/g)) { pieces.push([one[0], one.index]); } }
      for (const [text, at] of pieces) {
        const range = document.createRange();
        range.setStart(node, word.index + at);
        range.setEnd(node, word.index + at + text.length);
        const lines = new Set([...range.getClientRects()].filter((one) => one.width > 0).map((one) => Math.round(one.top)));
        if (lines.size > 1) { broken.push(`${cell.getAttribute("data-label")}: ${text}`); }
      }
    }
  }
});
return broken;
"""


@pytest.fixture(scope="module")
def open_address(shop: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(shop, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


@pytest.fixture
def crowded_app(shop_app: ConventionsApp) -> ConventionsApp:
    """An application whose names are long: a task, a queue, a worker, a release, a sender."""
    now = Counts(shop_app.store).milliseconds()
    values = {"task": TASK, "queue": QUEUE, "worker": WORKER, "release": RELEASE, "actor": "system"}
    append(shop_app.store, *(entry(event(f"m{n}", "retried", **values), at=now) for n in range(3)))
    EventCounter(shop_app.store).count_all()
    record(
        shop_app.database,
        *(failure(f"long-{n}", ValueError("x" * 300), task=TASK, queue=QUEUE, actor="system") for n in range(3)),
    )
    payload = f'{{"headers": {{"id": "waits", "task": "{TASK}", "x_actor": "system"}}, "body": "W1tdLHt9LHt9XQ==", "properties": {{}}}}'
    shop_app.broker.publish([Publication("waits", QUEUE, payload, 4)])
    running = RunningJob(id="0f8fad5b-d9cb-469f-a165-70867728950e", task=TASK)
    WorkerReports(shop_app.store).say(
        WORKER, WorkerReport(queues=(QUEUE, "mail"), release=RELEASE, processes=8, running=(running,), busy={TASK: 1})
    )
    return shop_app


@pytest.mark.parametrize("name", PAGES)
def test_numbers_and_names_stay_whole(
    browser: Chrome, open_address: str, crowded_app: ConventionsApp, name: str
) -> None:
    """In each width; and no table is wider than the page."""
    log_in(browser, open_address)
    for size in WIDTHS:
        resize(browser, size, dark=False)
        browser.get(f"{open_address}{PAGES[name]}")
        wait_until(lambda: browser.execute_script(SHOWN, QUEUE), 15, "the names are there")
        browser.execute_script(LARGE)
        if SCREENSHOTS:
            browser.save_screenshot(f"{SCREENSHOTS}/breaks-{name}-{size[0]}.png")
        assert browser.execute_script(BROKEN) == [], f"{name} at {size}"
        assert browser.execute_script(FITS), f"{name} at {size}"
    assert faults(browser) == []
