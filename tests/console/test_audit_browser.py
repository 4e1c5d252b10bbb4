"""The page of the audit in a real Chromium: it filters while somebody types, and fits every screen (R22)."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from sqlalchemy import insert

from conventions.app import ConventionsApp
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import utc_now
from conventions.storage.tables import ExecutionRow
from tests.console.browser import faults, link, log_in, look, one, see, steadily, text
from tests.console.conftest import TASK
from tests.console.flower_process import flower
from tests.failures import failure, record
from tests.support import wait_until
from tests.workers import Installation

HEADING = "What ran, and who did what"
ROWS = "tr[data-of]"


@pytest.fixture(scope="module")
def one_login(shop: Installation) -> Iterator[str]:
    """A Flower with one login."""
    with flower(shop, FLOWER_BASIC_AUTH="alice:secret") as address:
        yield address


def rows(browser: Chrome) -> int:
    """How many rows are shown."""
    return len(browser.find_elements(By.CSS_SELECTOR, ROWS))


def fill(app: ConventionsApp) -> None:
    """Jobs and actions as on a busy day."""
    now = utc_now()
    row = {"generation": 0, "attempt": 1, "actor": "taro.yamada@example.com", "queue": "immediate", "fence": 0,
           "task": "tasks.customer_communication.SendWelcomeEmail", "worker": "celery@worker-7f9c8d5b6-x2x4z"}  # fmt: skip
    executions = [
        row | {"id": f"{number:036}", "message_id": f"0f8fad5b-d9cb-469f-a165-{number:012}", "runtime": number / 100,
               "kind": "retried" if number % 9 == 0 else "succeeded", "ended_at": now - timedelta(seconds=number * 7)}
        for number in range(200)
    ]  # fmt: skip
    with app.database.session() as session:
        session.execute(insert(ExecutionRow), executions)
        audit.record_once(
            session,
            [
                (AuditEntry("hanako", "dead-letters edit", "KeyError-0", "the customer moved", {"address": "1 Main Street"},
                            {"address": "2 Side Street"}), now - timedelta(seconds=3)),
                (AuditEntry("hanako", "schedule pause", "daily-mail", "the file moves until the supplier has its new server",
                            None, {"until": None}), now - timedelta(seconds=20)),
                (AuditEntry("alice", "flower worker shutdown", "celery@gone", None, None,
                            {"outcome": "failed", "status": 404}), now - timedelta(seconds=40)),
                (AuditEntry("alice", "batch cancel", "b1", "wrong file"), now - timedelta(seconds=60)),
            ],
        )  # fmt: skip
    record(app.database, failure("a-letter", ConnectionError("the supplier answered: 503 " + "busy " * 60), task=TASK,
                                 worker="celery@worker-7f9c8d5b6-x2x4z", runtime=31.5, generation=1))  # fmt: skip


def test_nothing_one_and_many_rows(shop_app: ConventionsApp, one_login: str, browser: Chrome) -> None:
    """Fit every screen; the pages follow each other."""
    log_in(browser, one_login)
    with shop_app.database.session() as session:
        session.connection().exec_driver_sql("DELETE FROM conventions_executions")
    steadily(lambda: link(browser, "Audit").click())
    see(browser, HEADING)
    assert "Nothing is recorded yet." in text(browser, "[data-conventions-results]")
    look(browser, "audit-nothing")
    record(shop_app.database, failure("m1", task=TASK))
    browser.get(f"{one_login}/audit")
    assert rows(browser) == 1
    look(browser, "audit-one")
    fill(shop_app)
    browser.get(f"{one_login}/audit")
    assert rows(browser) == 50
    browser.find_element(By.CSS_SELECTOR, "td details summary").click()
    look(browser, "audit-many")
    one(browser, "a[rel=next]").send_keys(Keys.ENTER)  # a click would come while the page still scrolls
    wait_until(lambda: "after=" in browser.current_url, 15, "the next page")
    assert rows(browser) == 50
    steadily(lambda: link(browser, "First page").send_keys(Keys.ENTER))
    wait_until(lambda: "after=" not in browser.current_url, 15, "the first page")


def test_the_filter_follows_the_keys(shop_app: ConventionsApp, one_login: str, browser: Chrome) -> None:
    """The rows and the address change while somebody types; a filter that is none says so at once."""
    fill(shop_app)
    log_in(browser, one_login)
    browser.get(f"{one_login}/audit")
    field = one(browser, "input[name=actor]")
    field.send_keys("hanako")
    wait_until(lambda: rows(browser) == 2, 15, "her actions alone")
    assert browser.current_url.endswith("/audit?actor=hanako")
    assert browser.switch_to.active_element == field, "one can go on typing"
    one(browser, "input[name=task]").send_keys("Send")
    wait_until(lambda: rows(browser) == 0, 15, "she has sent nothing")
    one(browser, "details.conventions-more summary").click()
    one(browser, "input[name=action]").send_keys("x")
    wait_until(lambda: "no row is both" in text(browser, "[data-conventions-results]"), 15, "it says why")
    assert all("status of 400" in entry for entry in faults(browser)), "a filter that is refused is one of our answers"
    look(browser, "audit-fault")
    browser.get(f"{one_login}/audit?of=actions")
    assert one(browser, "select[name=of]").get_attribute("value") == "actions"
    steadily(lambda: link(browser, "2h").click())
    wait_until(lambda: "since=2h" in browser.current_url, 15, "the last two hours")
    assert "of=actions" in browser.current_url
    assert faults(browser) == []


def test_without_a_script(shop_app: ConventionsApp, one_login: str, browser: Chrome) -> None:
    """The form is one: it is sent by its button."""
    fill(shop_app)
    log_in(browser, one_login)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"{one_login}/audit")
        one(browser, "input[name=actor]").send_keys("hanako")
        steadily(lambda: one(browser, "form button").click())
        wait_until(lambda: "actor=hanako" in browser.current_url and rows(browser) == 2, 15, "her actions alone")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
