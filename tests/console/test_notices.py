"""What a form answers: it leads to a page, which says once what was done; a reload does nothing (R22)."""

import re

import pytest

from conventions.alerts.alert_store import AlertStore
from conventions.app import ConventionsApp
from conventions.console.notice import COOKIE, LARGEST, Notice
from conventions.dead_letters import groups
from conventions.dead_letters.filter import Filter
from conventions.pauses.pause_store import Pauses
from conventions.storage.database import utc_now
from tests.console.conftest import BATCH, PAUSED, LogIn
from tests.console.flower_process import User

LETTER = "/dead-letters/letters/KeyError-0"
PAUSE = {"kind": "queue", "name": "mail", "reason": "the bank is down", "until": "2h", "do": "pause"}
SILENCE = {"rule": "backlog", "subject": "q1", "until": "2h", "reason": "a large import"}
FORMS = [
    ("/jobs/KeyError-0/cancel", {"reason": "x"}, "/jobs/KeyError-0", "It has ended, or was not sent yet."),
    ("/queues/pauses", PAUSE, "/queues", "The queue mail is paused. No worker runs."),
    ("/queues/pauses", PAUSE | {"do": "resume"}, "/queues", "Nothing was changed: the queue mail was not paused."),
    ("/alerts/silences", SILENCE, "/alerts", "Nobody is told of backlog q1 until then."),
    ("/alerts/silences", {"end": "backlog <b>"}, "/alerts", "backlog &lt;b&gt; was not silent."),
    (LETTER, {"argument:user_id": "1", "argument:day": '"2026-01-06"', "do": "save"}, LETTER, "The arguments were changed."),
    ("/dead-letters/discard", {"count": "9", "reason": "why"}, "/dead-letters", "9 letters were given up."),
    (f"/batches/{BATCH}/cancel", {"reason": "why"}, f"/batches/{BATCH}", "The batch was cancelled."),
    (f"/batches/{BATCH}/retry-failed", {}, f"/batches/{BATCH}", "Sent again: 0 of 1 failed chunks."),
    ("/schedules/daily-mail/pause", {"reason": "why"}, "/schedules/daily-mail", "The schedule is paused."),
    (f"/schedules/{PAUSED}/resume", {"reason": "why"}, f"/schedules/{PAUSED}", "The schedule runs again."),
    ("/schedules/daily-mail/run", {"reason": "why"}, "/schedules/daily-mail", "It was sent now;"),
]  # fmt: skip


def said(page: str) -> str:
    """The notices of a page."""
    return " ".join(re.findall(r'<p class="alert alert-\w+" role="status">([^<]*)</p>', page))


@pytest.mark.parametrize(("path", "form", "leads_to", "words"), FORMS)
def test_a_form_leads_to_a_page_that_says_once_what_was_done(
    admin: User, path: str, form: dict[str, str], leads_to: str, words: str
) -> None:
    """The address says nothing of it: neither what was written, nor what was done."""
    answer = admin.post(path, form)
    assert answer.status_code == 303, answer.text
    address = answer.headers["Location"]
    assert re.fullmatch(re.escape(leads_to) + r"\?said=[\w-]{11}", address)
    assert words not in said(admin.get(leads_to).text), "another page, or a script, asks meanwhile"
    page = admin.get(address)
    assert (page.status_code, words in said(page.text)) == (200, True)
    again = admin.get(address)
    assert (again.status_code, words in said(again.text)) == (200, False)


def test_a_note(operator: User, shop_app: ConventionsApp) -> None:
    """Leads to the letters of its group."""
    with shop_app.database.session(read_only=True) as session:
        group = groups.groups(session, Filter(), 1)[0].fingerprint
    address = operator.post(f"/dead-letters/notes/{group}", {"note": "known"}).headers["Location"]
    assert address.startswith(f"/dead-letters?group={group}&said=")
    assert [said(operator.get(address).text) for _ in range(2)] == ["The note was written.", ""]


def test_a_form_that_is_refused_stays_filled(operator: User, shop_app: ConventionsApp) -> None:
    """It is answered by its page, with what is wrong; nothing was changed."""
    for path, form in (
        ("/queues/pauses", PAUSE | {"until": "<b>soon"}),
        ("/alerts/silences", SILENCE | {"until": "<b>soon"}),
    ):
        answer = operator.post(path, form)
        assert (answer.status_code, COOKIE in answer.cookies) == (422, False)
        assert "Nothing was changed: &#x27;&lt;b&gt;soon&#x27; is no length of time" in said(answer.text).replace(
            "&#39;", "&#x27;"
        )
        assert 'name="until" value="&lt;b&gt;soon"' in answer.text
        assert f'name="reason" value="{form["reason"]}"' in answer.text
        assert said(operator.get(path.rpartition("/")[0]).text) == ""
    assert Pauses(shop_app.store).read().pauses == {}
    assert AlertStore(shop_app.store).silences(utc_now()) == []


def test_nobody_else_reads_it(operator: User, address: str, log_in: LogIn, shop_app: ConventionsApp) -> None:
    """Nor can words be put into a link, or into a cookie."""
    path = operator.post("/queues/pauses", PAUSE).headers["Location"]
    token = path.rpartition("=")[2]
    other = log_in(address, "vera:v")
    assert said(other.get(path).text) == ""
    for words in ("paused", "<script>", ""):
        assert said(other.get("/queues", said=words).text) == ""
    other.client.cookies.set(COOKIE, f"{token} success Call this number")
    assert "Call this number" not in other.get(path).text
    assert "The queue mail is paused." in said(operator.get(path).text)


def test_a_read_changes_nothing(operator: User, shop_app: ConventionsApp) -> None:
    """A reload of the page to which a form leads: what was done meanwhile stays."""
    address = operator.post("/queues/pauses", PAUSE).headers["Location"]
    operator.send("/queues/pauses", PAUSE | {"do": "resume"})
    for _ in range(2):
        operator.get(address)
    assert Pauses(shop_app.store).read().pauses == {}


@pytest.mark.parametrize("text", ["Done.", "", " a  b ", "\u00fc" * (LARGEST // 2), "x" * LARGEST])
def test_a_cookie_holds_it(text: str) -> None:
    """For one page."""
    sealed = Notice("warning", text).sealed("token")
    assert Notice.opened(sealed, "token") == ("warning", text)
    assert Notice.opened(sealed, "other") is None


def test_what_no_cookie_holds() -> None:
    """Is cut, not lost."""
    for text in ("x" * 9000, "\u00fc" * 9000, "x" + "\u00fc" * 9000):
        sealed = Notice("success", text).sealed("token")
        found = Notice.opened(sealed, "token")
        assert found
        assert len(sealed) < LARGEST + 30
        assert text.startswith(found.text.removesuffix("\u2026"))
        assert found.text.endswith("\u2026")
    assert Notice.opened(Notice("success", "half \ud800").sealed("token"), "token") == ("success", "half ?")
    for odd in (b"token loud x", b"token", b"\xff", b""):
        assert Notice.opened(odd, "token") is None
