"""The page of the audit over HTTP: what it shows to whom, its pages, and the files (R22)."""

import csv
import html
import io
import json
import re
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import insert

from conventions.app import ConventionsApp
from conventions.core.time_units import local_time
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.records.audit_listing import FIELDS, PAGE
from conventions.storage.database import utc_now
from conventions.storage.tables import ExecutionRow
from tests.console.conftest import PER_CAUSE, SECRET, TASK, LogIn
from tests.console.flower_process import User
from tests.failures import failure, record

EVERY = 3 * PER_CAUSE  # executions that are there


def note(app: ConventionsApp, *entries: AuditEntry) -> None:
    """Record actions, the last one now, each a second after the one before."""
    first = utc_now() - timedelta(seconds=len(entries) - 1)
    with app.database.session() as session:
        audit.record_once(session, [(entry, first + timedelta(seconds=place)) for place, entry in enumerate(entries)])


def kinds(page: str) -> list[str]:
    """The kinds of the rows of a page."""
    return re.findall(r'<tr data-of="(\w+)"', page)


def test_executions_and_actions(operator: User, shop_app: ConventionsApp) -> None:
    """In one list, with who, what, when in the zone of the settings, the outcome and why."""
    at = utc_now() + timedelta(minutes=1)
    record(shop_app.database, failure("m1", ValueError("no such user"), task=TASK, worker="w1@host", runtime=0.0041,
                                      attempts=2, at=at, generation=1))  # fmt: skip
    note(shop_app, AuditEntry("oscar", "dead-letters edit", "m1", "typo", {"n": 1}, {"n": 2}))
    page = operator.get("/audit").text
    assert kinds(page) == ["execution", "action", *["execution"] * EVERY]
    for words in (local_time(at, "Asia/Tokyo"), "u-42", TASK.replace(".", ".<wbr>"), "attempt 2", "redrive 1", "w1@host",
                  "0.004 s", "no such user", "dead-letters edit", "typo", "&quot;n&quot;: 2"):  # fmt: skip
        assert words in page, words
    assert 'aria-current="page">Audit</a>' in page, "it is in the navigation"


def test_nothing_yet(operator: User, shop_app: ConventionsApp) -> None:
    """Says so, and offers no file."""
    with shop_app.database.session() as session:
        session.connection().exec_driver_sql("DELETE FROM conventions_executions")
    page = operator.get("/audit").text
    assert (kinds(page), "Nothing is recorded yet." in page, "as=csv" in page) == ([], True, False)
    assert "Nothing matches." in operator.get("/audit", actor="nobody").text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"of": "actions"}, 1),
        ({"of": "executions"}, EVERY),
        ({"of": "all"}, EVERY + 1),
        ({"actor": "ops"}, 1),
        ({"task": "Send"}, EVERY),
        ({"task": "send"}, 0),
        ({"queue": "mail"}, EVERY),
        ({"id": "KeyError-0"}, 1),
        ({"action": "schedule"}, 1),
        ({"outcome": "dead"}, EVERY),
        ({"outcome": "succeeded"}, 0),
        ({"worker": "nobody"}, 0),
        ({"since": "1h"}, EVERY + 1),
        ({"until": "1h"}, 0),
        ({"since": "2h", "until": "1h"}, 0),
    ],
)
def test_a_filter_in_the_url(operator: User, shop_app: ConventionsApp, words: dict[str, str], expected: int) -> None:
    """Each is kept in the form, and in the links of the page."""
    note(shop_app, AuditEntry("ops", "schedule pause", "daily-mail", "the file moves"))
    page = operator.get("/audit", **words).text
    assert len(kinds(page)) == expected
    for name, text in words.items():
        assert text == "all" or re.search(rf'name="{name}" value="{text}"|<option value="{text}" selected', page)
        assert text == "all" or not expected or re.search(rf"[?&;]{name}={text}[^\"]*as=csv", page)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/audit?since=soon&actor=kept", "since: &#x27;soon&#x27; is no time"),
        ("/audit?actor=kept&task=a&action=b", "no row is both"),
        ("/audit?actor=kept&outcome=fine", "it is one of succeeded"),
        ("/audit?actor=kept&aktor=x", "there is no filter &#x27;aktor&#x27;"),
        ("/audit?actor=kept&after=x", "go back to the first page"),
        ("/audit?actor=kept&as=xml", "there are csv, json"),
    ],
)
def test_a_filter_that_cannot_be_read(operator: User, path: str, words: str) -> None:
    """Shows no rows, says what is wrong, and keeps what was typed."""
    answer = operator.get(path)
    assert answer.status_code == 400
    assert html.unescape(words) in html.unescape(answer.text)
    assert kinds(answer.text) == []


def test_pages_by_their_last_row(operator: User, shop_app: ConventionsApp) -> None:
    """Each row is on one of them, also while others come; the filter stays."""
    note(shop_app, *(AuditEntry("ops", "cancel", f"a-{number}") for number in range(70)))
    found: list[str] = []
    path = "/audit?since=1h"
    while path:
        page = operator.get(path).text
        assert 'name="since" value="1h"' in page
        found += re.findall(r'(?:<code title="|data-label="To"><a [^>]*>)([^"<]+)', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = html.unescape(following[1]) if following else ""
        note(shop_app, AuditEntry("ops", "cancel", "meanwhile"))
    assert len(found) == len(set(found)) == 70 + EVERY


LINKS = (
    (AuditEntry("o", "dead-letters edit", "KeyError-0"), "/dead-letters/letters/KeyError-0"),
    (AuditEntry("o", "dead-letters discard", "KeyError-1", "x"), "/dead-letters/letters/KeyError-1"),
    (AuditEntry("o", "dead-letters discard", "group abc", "x"), "/dead-letters?group=abc"),
    (AuditEntry("o", "dead-letters note", "group a/c", "x"), "/dead-letters?group=a%2Fc"),
    (AuditEntry("o", "dead-letters discard", "a selection", "x"), ""),
    (AuditEntry("o", "dead-letters redrive", "r-1"), "/dead-letters/redrives/r-1"),
    (AuditEntry("o", "dead-letters stop", "r-2"), "/dead-letters/redrives/r-2"),
    (AuditEntry("o", "batch cancel", "b-1"), "/batches/b-1"),
    (AuditEntry("o", "batch retry-failed", "b-2"), "/batches/b-2"),
    (AuditEntry("o", "schedule pause", "日報"), "/schedules/%E6%97%A5%E5%A0%B1"),
    (AuditEntry("beat", "schedule remove", "gone"), ""),
    (AuditEntry("o", "cancel", "m 1"), "/audit?id=m+1"),
    (AuditEntry("o", "purge", "mail, long"), ""),
    (AuditEntry("o", "flower worker shutdown", "w1"), ""),
)


@pytest.mark.parametrize(("entry", "link"), LINKS, ids=[f"{one.action} {one.target}" for one, _ in LINKS])
def test_what_an_action_was_done_to(operator: User, shop_app: ConventionsApp, entry: AuditEntry, link: str) -> None:
    """Is a link to its page, where there is one."""
    note(shop_app, entry)
    page = operator.get("/audit", of="actions").text
    (cell,) = re.findall(r'<td data-label="To">(.*?)</td>', page)
    assert cell == (f'<a href="{link}">{entry.target}</a>' if link else entry.target)


def test_what_an_action_has_sent(operator: User, shop_app: ConventionsApp) -> None:
    """Is a link to all that is known of that job; and a dead one has its letter."""
    note(shop_app, AuditEntry("o", "schedule run", "daily-mail", after={"id": "KeyError-0"}),
         AuditEntry("o", "flower task send-task", TASK, after={"message_id": "KeyError-1", "outcome": "done"}))  # fmt: skip
    page = operator.get("/audit", of="actions").text
    for number in (0, 1):
        assert f'href="/audit?id=KeyError-{number}">job' in page
    note(shop_app, AuditEntry("o", "control revoke", "KeyError-2"))
    assert 'href="/audit?id=KeyError-2">KeyError-2</a>' in operator.get("/audit", of="actions").text
    page = operator.get("/audit", id="KeyError-0").text
    assert 'href="/dead-letters/letters/KeyError-0">dead</a>' in page


def test_a_viewer_sees_no_value(viewer: User, operator: User, shop_app: ConventionsApp) -> None:
    """Of an error, of an action's before and after, or of a reason; but who did what, when, and how it ended."""
    record(shop_app.database, failure("told", ValueError(f"no user {SECRET}"), task=TASK, worker="w1"))
    note(
        shop_app,
        AuditEntry(
            "oscar", "dead-letters edit", "told", f"not {SECRET}", {"id": "1"}, {"id": SECRET, "message_id": SECRET}
        ),
        AuditEntry("oscar", "dead-letters note", "group f", None, f"ask {SECRET}", SECRET),
        AuditEntry("alice", "flower task revoke", "told", None, None, {"outcome": "failed", "said": SECRET}),
        AuditEntry("oscar", "schedule run", "daily-mail", f"again for {SECRET}"),
        AuditEntry("oscar", "schedule pause", "daily-mail", "the file moves"),
    )
    shown, hidden = operator.get("/audit").text, viewer.get("/audit").text
    assert shown.count(SECRET) >= 8
    assert SECRET not in hidden
    for words in (
        "ValueError",
        "told",
        "w1",
        "dead-letters edit",
        "mail",
        "flower task revoke",
        'data-outcome="failed"',
        "•••",
    ):
        assert words in hidden, words
    assert "the file moves" in hidden, "the form of a pause says that everybody sees the reason"
    assert "as=csv" not in hidden


def test_a_file_is_for_who_sees_values(viewer: User, operator: User, admin: User, address: str, log_in: LogIn) -> None:
    """Whatever a page links."""
    for form in ("csv", "json"):
        answer = viewer.get("/audit", **{"as": form})
        assert (answer.status_code, "operator is needed" in answer.text) == (403, True)
        assert log_in(address).client.get("/audit", params={"as": form}).status_code == 401
        for user in (operator, admin):
            assert user.get("/audit", **{"as": form}).status_code == 200


def test_the_files(operator: User, shop_app: ConventionsApp) -> None:
    """Every row of the filter with every field; nothing in the CSV is a formula."""
    number = 2 * PAGE + 3
    fill(shop_app, number, "x")
    note(shop_app, AuditEntry("=1+1", "cancel", "+a", "@b", None, {"a": "=1"}))
    answer = operator.get("/audit", **{"as": "csv", "since": "1h"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="audit-\d{8}-\d{6}\.csv"', answer.headers["Content-Disposition"])
    assert answer.content.startswith(b"\xef\xbb\xbf"), "or some spreadsheets take it for another encoding"
    rows = [*csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))]
    assert tuple(rows[0]) == FIELDS
    assert len(rows) == number + EVERY + 1
    assert len({row["id"] for row in rows if row["of"] == "execution"}) == number + EVERY
    action = next(row for row in rows if row["of"] == "action")
    assert (action["actor"], action["target"], action["reason"]) == ("'=1+1", "'+a", "'@b")

    answer = operator.get("/audit", **{"as": "json", "of": "executions"})
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    found = json.loads(answer.content)
    assert [row["id"] for row in found] == [row["id"] for row in rows if row["of"] == "execution"]
    assert {tuple(row) for row in found} == {FIELDS}
    assert found[0]["at"].endswith("+09:00")
    assert json.loads(operator.get("/audit", **{"as": "json", "actor": "nobody"}).content) == []
    assert operator.get("/audit", **{"as": "csv", "since": "soon"}).status_code == 400


def test_a_row_that_nobody_can_read(operator: User, shop_app: ConventionsApp) -> None:
    """The page leaves it out and says so, and so does each file, in a row of its own."""
    with shop_app.database.session() as session:
        session.connection().exec_driver_sql(
            "UPDATE conventions_executions SET started_at = 'soon' WHERE id = (SELECT MIN(id) FROM conventions_executions)"
        )
    page = operator.get("/audit").text
    assert (len(kinds(page)), "cannot be read, since somebody has written it so" in page) == (EVERY - 1, True)
    *rows, last = json.loads(operator.get("/audit", **{"as": "json"}).content)
    assert (len(rows), last["of"], "cannot be read: see `audit verify`" in last["error_message"]) == (
        EVERY - 1,
        None,
        True,
    )
    text = operator.get("/audit", **{"as": "csv"}).content.decode("utf-8-sig")
    *_, last = csv.DictReader(io.StringIO(text))
    assert (last["actor"], "cannot be read: see `audit verify`" in last["error_message"]) == ("", True)
    with shop_app.database.session() as session:
        session.connection().exec_driver_sql("UPDATE conventions_executions SET started_at = 'soon'")
    (alone, *_) = json.loads(operator.get("/audit", **{"as": "json"}).content)
    assert "cannot be read" in alone["error_message"]


def fill(app: ConventionsApp, number: int, message: str) -> None:
    """Many executions."""
    row = {"generation": 0, "attempt": 1, "kind": "dead", "actor": "u-1", "queue": "q", "fence": 0, "error": "E"}
    now = utc_now()
    rows = [
        row | {"id": f"{one:036}", "message_id": f"many-{one}", "error_message": message, "ended_at": now - timedelta(seconds=one)}
        for one in range(number)
    ]  # fmt: skip
    with app.database.session() as session:
        session.execute(insert(ExecutionRow), rows)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_file_that_cannot_be_finished_does_not_look_whole(
    operator: User, shop_app: ConventionsApp, form: str
) -> None:
    """The connection ends before the file does."""
    fill(shop_app, 20 * PAGE, "x" * 5000)  # 50 MB, which no buffer holds

    def read_with_a_fault() -> None:
        rename = "ALTER TABLE conventions_executions RENAME TO away"
        with operator.client.stream("GET", "/audit", params={"as": form}) as answer:
            assert answer.status_code == 200
            parts = answer.iter_raw()
            assert next(parts)
            with shop_app.database.session() as session:
                session.connection().exec_driver_sql(rename)
            for _ in parts:
                pass

    try:
        with pytest.raises(httpx.RemoteProtocolError):
            read_with_a_fault()
    finally:
        with shop_app.database.session() as session:
            session.connection().exec_driver_sql("ALTER TABLE away RENAME TO conventions_executions")
    assert operator.get("/audit").status_code == 200


def test_a_visitor_who_goes_away_holds_nothing_up(operator: User, shop_app: ConventionsApp) -> None:
    """In the middle of a file."""
    fill(shop_app, 20 * PAGE, "x" * 5000)
    for _ in range(3):
        with operator.client.stream("GET", "/audit", params={"as": "csv"}) as answer:
            next(answer.iter_raw())
    assert operator.get("/audit").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/audit?actor=%00",
        "/audit?id=" + "x" * 5000,
        "/audit?after=0001-01-01T00:00:00%2B23:59~action~x",
        "/audit?after=9999-12-31T23:59:59-14:00~execution~x",
        "/audit?since=0001-01-01",
        "/audit?until=9999-12-31",
        f"/audit?since={'9' * 5000}s",
        "/audit?since=99999d",
        "/audit?task=%ff",
        "/audit?id=%F0%9F%8C%80",
        "/audit?action=%25",
    ],
)
def test_odd_addresses(operator: User, path: str) -> None:
    """Say that they are, or find nothing; none is a fault of ours."""
    assert operator.get(path).status_code in (200, 400)
