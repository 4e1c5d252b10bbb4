"""The pages of dead letters over HTTP: what they show, and what their forms do (R18)."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from html import escape, unescape
from typing import Any

import pytest

from conventions.app import ConventionsApp
from conventions.core.time_units import local_time
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import redrive_pace_and_stop, redrive_rows, resent_letters
from conventions.dead_letters.filter import Filter
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.records import audit, executions
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow
from tests.console.conftest import BATCH, PER_CAUSE, SECRET, TASK
from tests.console.flower_process import User
from tests.failures import failure, get, groups, record
from tests.redriving import step
from tests.workers import messages

LETTER = "/dead-letters/letters/KeyError-0"


def audited(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        return [(one.actor, one.action, one.target, one.reason) for one in reversed(audit.listing(session, 99))]


def count(app: ConventionsApp, state: str = "dead") -> int:
    """How many letters are in a state."""
    with app.database.session() as session:
        return dead_letters.count(session, Filter(state=state))


def test_groups_come_first(operator: User, shop_app: ConventionsApp) -> None:
    """One row for each cause, with its number, a sparkline, and a link to its letters."""
    page = operator.get("/dead-letters").text
    found = groups(shop_app.database)
    assert len(found) == 3
    assert page.count('class="conventions-spark"') == 3
    for group in found:
        assert f"group={group.fingerprint}" in page
    assert page.index("Causes") < page.index('id="letters"')
    assert "Letters that are dead now, whenever they failed" in page
    assert f"Redrive all {3 * PER_CAUSE}" in page


def test_a_filter_in_the_url(operator: User, shop_app: ConventionsApp) -> None:
    """The rows, the number and the buttons are those of the filter."""
    page = operator.get("/dead-letters", error="ConnectionError").text
    assert "ConnectionError-0" in page
    assert "KeyError-0" not in page
    assert f"Redrive all {PER_CAUSE} that match" in page
    assert 'value="ConnectionError"' in page
    assert "Nothing matches" in operator.get("/dead-letters", error="Other").text
    by_argument = operator.get("/dead-letters", arg="user_id=2").text
    assert "KeyError-2" in by_argument
    assert "KeyError-1" not in by_argument


def test_a_filter_that_cannot_be_read(operator: User) -> None:
    """Says what is wrong, beside the letters."""
    answer = operator.get("/dead-letters", older_than="soon", task="kept")
    assert answer.status_code == 400
    assert 'value="soon"' in answer.text
    assert 'value="kept"' in answer.text
    assert "Redrive all" not in answer.text
    assert operator.get("/dead-letters", after="x").status_code == 400


def test_pages_of_many_letters(operator: User, shop_app: ConventionsApp) -> None:
    """Each letter is on one of them."""
    for number in range(120):
        record(shop_app.database, failure(f"more-{number:03}", task=TASK))
    seen: list[str] = []
    path = "/dead-letters?task=" + TASK
    while path:
        page = operator.get(path).text
        seen += re.findall(r'name="id" value="([^"]+)"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert len(seen) == len(set(seen)) == 120 + 3 * PER_CAUSE


def test_a_letter_with_all_that_is_known(operator: User, shop_app: ConventionsApp) -> None:
    """Its attempts, with the traceback of each, and its arguments."""
    page = operator.get(LETTER).text
    letter = get(shop_app.database, "KeyError-0")
    assert escape(letter.traceback.splitlines()[-1]) in page
    assert "Attempt 1" in page
    assert "2026-01-05" in page
    assert operator.get("/dead-letters/letters/none").status_code == 404


def test_the_beginning_of_a_letters_id(operator: User, shop_app: ConventionsApp) -> None:
    """Leads to it, where no other one begins so."""
    record(shop_app.database, failure("alone-in-the-world", task=TASK))
    found = operator.client.get("/dead-letters/letters/alone-in", follow_redirects=False)
    assert (found.status_code, found.headers["Location"]) == (303, "/dead-letters/letters/alone-in-the-world")
    record(shop_app.database, failure("alone-in-the-house", task=TASK))
    assert operator.get("/dead-letters/letters/alone-in").status_code == 404


def test_a_letter_tells_its_whole_story(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """One line of attempts, with what people did in between, up to its success; and when it failed first."""
    began = utc_now() - timedelta(hours=2)
    later = [began + timedelta(minutes=number) for number in range(5)]
    named: dict[str, Any] = {"task": TASK, "arguments": {"user_id": 1, "day": "2026-01-05", "mail": SECRET}}
    record(
        shop_app.database,
        failure("story", ValueError("first"), kind="retried", attempts=1, at=later[0], **named),
        failure("story", ValueError("no second one"), attempts=2, at=later[1], **named),
    )
    entry = AuditEntry("oscar", "dead-letters edit", "story", "wrong user", {"user_id": 1}, {"user_id": 2})
    with shop_app.database.session() as session:
        audit.record_once(session, [(entry, later[2])])
    ended = failure("story", attempts=1, kind="succeeded", failure=None, generation=1, at=later[3])
    with shop_app.database.session() as session:
        executions.record(session, [ended])
        resent_letters.note_answers(session, [ended])
    page = operator.get("/dead-letters/letters/story").text
    told = [
        "Attempt 1, ", "ValueError, to be tried again", "Attempt 2, ", "ValueError, dead", "oscar: dead-letters edit, wrong user",
        "Sent again: redrive 1", "Attempt 3 (attempt 1 after redrive 1), ", "succeeded",
    ]  # fmt: skip
    story = page[page.index("What became of it") :]
    places = [story.index(text) for text in told]
    assert places == sorted(places)
    shown = local_time(later[0], shop_app.settings.timezone)
    assert f"<dt>First failed</dt><dd>{shown}</dd>" in page
    assert shown.endswith(" JST")
    hidden = viewer.get("/dead-letters/letters/story").text
    assert "Attempt 3" in hidden
    assert "no second one" not in hidden


def test_a_letter_and_its_group_name_the_release(viewer: User, shop_app: ConventionsApp) -> None:
    """By which it failed last, and how many of the group by which; nothing where it is unknown."""
    for number in range(2):
        record(shop_app.database, failure(f"released{number}", KeyError("no key"), task=TASK, release="r<1>"))
    record(shop_app.database, failure("released2", KeyError("no key"), task=TASK, release="r2"))
    page = viewer.get("/dead-letters/letters/released0").text
    assert '<dd id="release">r&lt;1&gt;, by which it failed last</dd>' in page.replace("<wbr>", "")
    assert " release r&lt;1&gt;</span>" in page
    assert 'id="release"' not in viewer.get(LETTER).text
    group = get(shop_app.database, "released0").fingerprint
    cell = viewer.get("/dead-letters", group=group).text.replace("<wbr>", "")
    assert "by release r&lt;1&gt; 2 r2 1 </div>" in cell
    assert "by release" not in viewer.get("/dead-letters", error="ConnectionError").text


def test_the_form_of_a_redrive_warns_of_different_releases(operator: User, shop_app: ConventionsApp) -> None:
    """While a deploy is under way, a letter may meet the release that it died by."""
    reports = WorkerReports(shop_app.store)
    for name, release in (("w1@host", "r1"), ("w2@host", "r<2>")):
        reports.say(name, WorkerReport(release=release, processes=1, queues=("mail",)))
    page = operator.get("/dead-letters/redrive", error="KeyError").text
    assert "workers of these queues run different releases, r1 and r&lt;2&gt;: a letter may meet either" in page
    reports.leave("w2@host")
    assert "different releases" not in operator.get("/dead-letters/redrive", error="KeyError").text
    reports.leave("w1@host")


def test_an_edit_and_what_is_wrong_with_it(operator: User, shop_app: ConventionsApp) -> None:
    """Faults stand beside their field, and what was typed stays; nothing is changed until all is right."""
    answer = operator.post(LETTER, {"argument:user_id": '"seven"', "argument:day": "not json", "do": "save"})
    assert answer.status_code == 422
    faults = dict(re.findall(r'id="fault-(\w+)">([^<]+)<', answer.text))
    assert faults.keys() == {"user_id", "day"}
    assert "integer" in faults["user_id"]
    assert "JSON" in faults["day"]
    assert "not json</textarea>" in answer.text
    missing = operator.post(LETTER, {"argument:user_id": "7", "argument:day": " ", "do": "redrive"})
    assert missing.status_code == 422
    assert 'id="fault-day">Field required' in missing.text
    assert audited(shop_app) == []

    form = {"argument:user_id": "70", "argument:day": '"2026-01-05"', "do": "save", "reason": "typo"}
    assert "The arguments were changed." in operator.send(LETTER, form)
    assert get(shop_app.database, "KeyError-0").arguments == {"user_id": 70, "day": "2026-01-05"}
    assert audited(shop_app) == [("oscar", "dead-letters edit", "KeyError-0", "typo")]
    assert "Nothing was different." in operator.send(LETTER, form)


def test_edit_and_redrive(operator: User, shop_app: ConventionsApp) -> None:
    """In one step, to where the redrive can be watched."""
    form = {"argument:user_id": "70", "argument:day": '"2026-01-05"', "do": "redrive"}
    answer = operator.post(LETTER, form)
    assert answer.status_code == 303
    path = answer.headers["Location"].partition("?")[0]
    assert operator.get(path).status_code == 200
    values = operator.get(path, **{"as": "json"}).json()
    assert (values["total"], values["open"], values["state"]) == (1, True, "waiting")
    assert "no recorder leads" in values["why"]
    step(shop_app, path.rsplit("/", 1)[1])
    (message,) = [one for one in messages(shop_app) if one.id == "KeyError-0"]
    assert message.arguments == {"user_id": 70, "day": "2026-01-05"}
    assert operator.get(path, **{"as": "json"}).json()["state"] == "canary"


def test_a_redrive_asks_first(operator: User, shop_app: ConventionsApp) -> None:
    """With the number, and with what speaks against it; then it is a row, and no process is needed for it."""
    page = operator.get("/dead-letters/redrive", error="KeyError").text
    assert f"Send {PER_CAUSE} dead letters again?" in page
    assert "no worker" in page
    form = {
        "error": "KeyError",
        "count": str(PER_CAUSE),
        "canary": "2",
        "rate": "7.5",
        "stop_at": "20",
        "reason": "fixed",
    }
    answer = operator.post("/dead-letters/redrive", form)
    assert answer.status_code == 303
    with shop_app.database.session() as session:
        (row,) = redrive_rows.listing(session, 9)
        found = (row.canary, row.rate, row.stop_at, row.total, row.actor, row.reason, row.selection)
    assert found == (2, 7.5, 20.0, PER_CAUSE, "oscar", "fixed", {"error": "KeyError"})
    assert messages(shop_app) == []
    assert "fixed" in operator.get("/dead-letters/redrives").text
    assert audited(shop_app)[0][:2] == ("oscar", "dead-letters redrive")


def test_what_was_confirmed_is_what_is_sent(operator: User, shop_app: ConventionsApp) -> None:
    """Where there are more by now, it asks again."""
    record(shop_app.database, failure("late", KeyError("address"), task=TASK))
    answer = operator.post("/dead-letters/redrive", {"error": "KeyError", "count": str(PER_CAUSE)})
    assert answer.status_code == 400
    assert f"Send {PER_CAUSE + 1} dead letters again?" in answer.text
    assert audited(shop_app) == []


def hidden_fields(page: str) -> dict[str, str]:
    """What a form sends beside what is written into it; the token comes with `post`."""
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: unescape(text) for name, text in found if name != "_xsrf"}


def test_a_redrive_sends_what_was_there_when_its_form_was_opened(operator: User, shop_app: ConventionsApp) -> None:
    """A cause that grows can be redriven: what came meanwhile is left, and named."""
    form = hidden_fields(operator.get("/dead-letters/redrive", error="KeyError").text)
    record(shop_app.database, *(failure(f"late-{n}", KeyError("address"), task=TASK) for n in range(2)))
    answer = operator.post("/dead-letters/redrive", form)
    page = operator.get(answer.headers["Location"]).text
    assert f"The redrive of {PER_CAUSE} letters was begun. 2 newer ones came after you opened the form" in page
    path = answer.headers["Location"].partition("?")[0]
    id_ = path.rsplit("/", 1)[1]
    step(shop_app, id_)  # their arguments no longer fit: it takes them, and leaves them again
    taken = {f"KeyError-{n}" for n in range(PER_CAUSE)}
    assert {one for one in (*taken, "late-0", "late-1") if get(shop_app.database, one).redrive_id == id_} == taken
    assert operator.get(path, **{"as": "json"}).json()["total"] == PER_CAUSE
    assert "that were there on" in page


def test_what_was_there_when_its_form_was_opened_is_given_up(admin: User, shop_app: ConventionsApp) -> None:
    """And nothing that came meanwhile."""
    form = hidden_fields(admin.get("/dead-letters/discard", error="KeyError").text)
    record(shop_app.database, failure("late", KeyError("address"), task=TASK))
    page = admin.send("/dead-letters/discard", form | {"reason": "test orders"})
    assert f"{PER_CAUSE} letters were given up. 1 newer one came after you opened the form, and was left." in page
    assert get(shop_app.database, "late").state == "dead"


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_nothing_is_done_where_others_took_some(admin: User, shop_app: ConventionsApp, verb: str) -> None:
    """Also where as many came meanwhile; the form then has the present number."""
    form = hidden_fields(admin.get(f"/dead-letters/{verb}", error="KeyError").text)
    admin.send("/dead-letters/discard", {"id": "KeyError-0", "count": "1", "reason": "mine"})
    record(shop_app.database, *(failure(f"late-{n}", KeyError("address"), task=TASK) for n in range(2)))
    answer = admin.post(f"/dead-letters/{verb}", form | {"reason": "why"})
    assert answer.status_code == 400
    assert "of the 3 dead letters to which you agreed, 2 are still there; nothing was done" in answer.text
    assert admin.post(f"/dead-letters/{verb}", hidden_fields(answer.text) | {"reason": "why"}).status_code == 303


def test_a_moment_that_is_none(operator: User, shop_app: ConventionsApp) -> None:
    """Is named, and nothing is done."""
    form = hidden_fields(operator.get("/dead-letters/redrive").text)
    for name in ("counted_at", "newest"):
        for text in ("soon", "2026-01-01", "9" * 50):
            answer = operator.post("/dead-letters/redrive", form | {name: text})
            assert (answer.status_code, f"{name} is" in answer.text) == (400, True)
    assert audited(shop_app) == []


NO_NUMBERS = {
    "canary": ("few", "-1", "9" * 20),
    "rate": ("0", "inf", "nan", "1e-300", "1e9"),
    "stop_at": ("101", "nan", "-1"),
}


@pytest.mark.parametrize("most", [1, pytest.param(None, marks=pytest.mark.thorough)])
def test_numbers_that_are_none(operator: User, shop_app: ConventionsApp, most: int | None) -> None:
    """Each is named, and nothing is sent."""
    for name, text in [(name, text) for name, texts in NO_NUMBERS.items() for text in texts[:most]]:
        answer = operator.post("/dead-letters/redrive", {"count": "9", name: text})
        assert answer.status_code == 400
        assert name in answer.text
    assert audited(shop_app) == []


def test_a_second_click_leads_to_the_first_redrive(operator: User, shop_app: ConventionsApp) -> None:
    """And begins nothing."""
    forms = [hidden_fields(operator.get("/dead-letters/redrive").text) for _ in range(2)]
    addresses = [operator.post("/dead-letters/redrive", form).headers["Location"] for form in forms]
    first, second = (address.partition("?")[0] for address in addresses)
    assert first == second
    page = operator.get(addresses[1]).text
    assert "Nothing new was begun: this redrive of the same letters is under way" in page
    assert f"redrive={first.rsplit('/', 1)[1]}" in page
    assert len(audited(shop_app)) == 1


def test_selected_letters(operator: User, shop_app: ConventionsApp) -> None:
    """Named one by one."""
    page = operator.get("/dead-letters/redrive?id=KeyError-0&id=KeyError-1").text
    assert "Send 2 dead letters again?" in page
    assert page.count('name="id"') == 2


def test_a_letter_is_given_up_with_a_reason(admin: User, shop_app: ConventionsApp) -> None:
    """And never without one."""
    form = {"id": "KeyError-0", "count": "1"}
    answer = admin.post("/dead-letters/discard", form)
    assert (answer.status_code, "say why" in answer.text) == (400, True)
    assert count(shop_app, "discarded") == 0
    assert admin.post("/dead-letters/discard", form | {"reason": "test order"}).status_code == 303
    assert count(shop_app, "discarded") == 1
    assert audited(shop_app) == [("alice", "dead-letters discard", "KeyError-0", "test order")]


def test_a_note(operator: User, shop_app: ConventionsApp) -> None:
    """On a group; whoever comes next reads it."""
    group = groups(shop_app.database)[0].fingerprint
    assert operator.post(f"/dead-letters/notes/{group}", {"note": "supplier was down <b>"}).status_code == 303
    assert "supplier was down &lt;b&gt;" in operator.get("/dead-letters").text
    assert audited(shop_app)[0][:3] == ("oscar", "dead-letters note", f"group {group}")


def test_a_redrive_is_stopped(operator: User, shop_app: ConventionsApp) -> None:
    """What was not sent stays."""
    path = operator.post("/dead-letters/redrive", {"count": "9"}).headers["Location"].partition("?")[0]
    said = operator.send(f"{path}/stop", {"reason": "the wrong letters"})
    assert "The redrive is stopped: it sends no more letters." in said
    assert "<dt>Why it was stopped</dt><dd>the wrong letters</dd>" in said
    assert f'href="/dead-letters?left_by={path.rpartition("/")[2]}"' in said
    left = operator.get("/dead-letters", left_by=path.rpartition("/")[2]).text
    assert ">9 dead</h1>" in left
    assert "Nothing was changed: the redrive had ended before." in operator.send(f"{path}/stop")
    values = operator.get(path, **{"as": "json"}).json()
    assert (values["state"], values["note"]) == ("cancelled", "stopped by oscar")
    assert count(shop_app) == 9
    assert operator.get("/dead-letters/redrives/none").status_code == 404


def test_a_letter_that_cannot_be_edited(operator: User, shop_app: ConventionsApp) -> None:
    """Says why; it can be looked at."""
    record(shop_app.database, failure("unknown", task="gone.Task", arguments={"a": [1]}))
    page = operator.get("/dead-letters/letters/unknown").text
    assert "not registered" in page
    assert "<textarea" not in page
    assert json.dumps({"a": [1]}, indent=2).replace('"', "&quot;") in page


def test_a_database_that_is_away(operator: User, shop_app: ConventionsApp) -> None:
    """Is said, with no traceback."""
    with shop_app.database.session() as session:
        session.connection().exec_driver_sql(f"ALTER TABLE {DeadLetterRow.__tablename__} RENAME TO away")
    try:
        answer = operator.get("/dead-letters")
    finally:
        with shop_app.database.session() as session:
            session.connection().exec_driver_sql(f"ALTER TABLE away RENAME TO {DeadLetterRow.__tablename__}")
    assert (answer.status_code, "database does not answer" in answer.text) == (503, True)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/dead-letters?older_than=9999999d",
        f"/dead-letters?newer_than={'9' * 5000}s",
        "/dead-letters?errror=KeyError",
        "/dead-letters?after=0001-01-01T00:00:00%2B23:59~x",
        "/dead-letters?task=%00",
        "/dead-letters?state=%ff",
        "/dead-letters/redrive?older_than=soon",
        "/dead-letters/letters/%00",
        "/dead-letters/letters/..%2f..%2fetc",
        "/dead-letters/letters/" + "x" * 5000,
        "/dead-letters/redrives/%00",
        "/dead-letters/redrives/" + "x" * 500,
    ],
)
def test_odd_addresses(operator: User, path: str) -> None:
    """Say that they are, or find nothing; none is a fault of ours."""
    assert operator.get(path).status_code in (200, 400, 404)


def test_odd_values_in_the_editor(operator: User, shop_app: ConventionsApp) -> None:
    """Are refused, each beside its field or above them."""
    for text in ('"\\ud800"', "[" * 100_000, "1e999", "NaN", '"' + "x" * 100_000 + '"'):
        answer = operator.post(LETTER, {"argument:user_id": "1", "argument:day": text, "do": "save"})
        assert (answer.status_code, "Nothing was changed" in answer.text) == (422, True), text[:20]
    assert audited(shop_app) == []


def test_a_letter_with_half_characters(operator: User, shop_app: ConventionsApp) -> None:
    """Another program may have sent them."""
    record(shop_app.database, failure("half", task=TASK, arguments={"user_id": 1, "day": "\ud800"}))
    page = operator.get("/dead-letters/letters/half")
    assert (page.status_code, "\\ud800" in page.text) == (200, True)


def test_names_in_any_script(operator: User, shop_app: ConventionsApp) -> None:
    """Python allows them, so the editor does."""
    record(shop_app.database, failure("kanji", task="tests.cli.command_tasks.Named", arguments={"番号": 1}))
    path = "/dead-letters/letters/kanji"
    answer = operator.post(path, {"argument:番号": "2", "do": "save"})
    assert (answer.status_code, get(shop_app.database, "kanji").arguments) == (303, {"番号": 2})


def test_two_editors(operator: User, admin: User, shop_app: ConventionsApp) -> None:
    """The second one, who saw what the first one changed since, overwrites nothing."""
    found = re.search(r'name="version" value="([^"]+)"', operator.get(LETTER).text)
    assert found
    form = {"argument:day": '"2026-01-05"', "do": "save", "version": found[1]}
    assert admin.post(LETTER, form | {"argument:user_id": "8"}).status_code == 303
    answer = operator.post(LETTER, form | {"argument:user_id": "9"})
    assert (answer.status_code, "somebody has changed" in answer.text) == (422, True)
    assert f'name="version" value="{found[1]}"' in answer.text, "a second try overwrites nothing either"
    assert get(shop_app.database, "KeyError-0").arguments["user_id"] == 8


def test_what_was_redriven_too_often_is_sent_when_it_is_meant(operator: User, shop_app: ConventionsApp) -> None:
    """The editor leads to the page that asks; nothing is sent in silence, nor left in silence."""
    record(shop_app.database, failure("again", task=TASK, generation=3, arguments={"user_id": 1, "day": "2026-01-05"}))
    form = {"argument:user_id": "2", "argument:day": '"2026-01-05"', "do": "redrive"}
    answer = operator.post("/dead-letters/letters/again", form)
    assert answer.headers["Location"] == "/dead-letters/redrive?id=again"
    assert "1 of them was redriven 3 times before" in operator.get(answer.headers["Location"]).text
    asked = {"id": "again", "count": "1", "held": "1"}
    answer = operator.post("/dead-letters/redrive", asked)
    assert (answer.status_code, "nothing to send" in answer.text) == (400, True)
    assert operator.post("/dead-letters/redrive", asked | {"again": "1"}).status_code == 303


def test_a_note_on_no_group(operator: User, shop_app: ConventionsApp) -> None:
    """Is none."""
    for group in ("none", "x" * 200, "%00"):
        assert operator.post(f"/dead-letters/notes/{group}", {"note": "x"}).status_code in (400, 404)
    assert audited(shop_app) == []


def test_live_values_go_on_until_everything_has_ended(operator: User, shop_app: ConventionsApp) -> None:
    """What was sent before a stop ends later, and the page shows how."""
    for number in range(redrive_pace_and_stop.CANARY + 1):
        arguments = {"user_id": number, "day": "2026-01-05"}
        record(shop_app.database, failure(f"new-{number}", RuntimeError("x"), task=TASK, arguments=arguments))
    form = {"error": "RuntimeError", "count": str(redrive_pace_and_stop.CANARY + 1)}
    path = operator.post("/dead-letters/redrive", form).headers["Location"].partition("?")[0]
    id_ = path.rsplit("/", 1)[1]
    step(shop_app, id_)
    operator.post(f"{path}/stop")
    values = operator.get(path, **{"as": "json"}).json()
    assert (values["state"], values["sent"], values["moves"]) == ("cancelled", redrive_pace_and_stop.CANARY, True)
    with shop_app.database.session() as session:
        for letter in dead_letters.listing(session, Filter(state="redriving"), 99):
            letter.state = "redriven"
    values = operator.get(path, **{"as": "json"}).json()
    assert (values["succeeded"], values["moves"]) == (redrive_pace_and_stop.CANARY, False)


def test_what_was_given_up_can_be_sent_after_all(admin: User, shop_app: ConventionsApp) -> None:
    """From the letters of that state; they cannot be given up twice."""
    form = {"id": "KeyError-0", "count": "1", "reason": "test order"}
    assert admin.post("/dead-letters/discard", form).status_code == 303
    page = admin.get("/dead-letters", state="discarded").text
    assert "1 discarded" in page
    assert "Discard all" not in page
    assert "state=discarded" in admin.get(LETTER).text
    assert "Send 1 discarded letter again?" in admin.get("/dead-letters/redrive", state="discarded").text
    asked = {"state": "discarded", "count": "1"}
    assert admin.post("/dead-letters/redrive", asked).status_code == 303
    assert "Redrive" not in admin.get("/dead-letters", state="redriven").text.partition('id="letters"')[2]


ODD = {"day": "a\ud800", "nul": "a\0", "\ud800": [{"\udfff": 1e300}], "mark": "<b>\u202e"}


def test_no_letter_breaks_a_page(operator: User, viewer: User, shop_app: ConventionsApp) -> None:
    """Whatever a message of another program held: the lists show the others, and its own page shows it."""
    odd = failure(
        "odd-letter",
        ValueError("half \ud800 nul \0"),
        task="nowhere.\ud800",
        arguments=ODD,
        headers={"x_key": "\ud800"},
    )
    stored = json.dumps({"body": "\ud800", "headers": {"id": "odd-letter", "a": ODD}}).encode()
    record(shop_app.database, replace(odd, message=stored))
    for user in (operator, viewer):
        for path in ("/dead-letters", "/dead-letters/letters/odd-letter"):
            answer = user.get(path)
            assert answer.status_code == 200, path
        assert "odd-letter" in user.get("/dead-letters").text
    assert operator.get("/dead-letters", arg="day=a").status_code == 200
    with shop_app.database.session() as session:
        letter = dead_letters.get(session, "odd-letter")
        assert letter is not None
        fingerprint = letter.fingerprint
    assert operator.get("/dead-letters", group=fingerprint).status_code == 200


def test_no_row_of_redis_breaks_a_page(operator: User, shop_app: ConventionsApp) -> None:
    """Nor a batch or a count of long jobs that somebody else has written."""
    redis: Any = shop_app.store.redis
    key = shop_app.store.key
    redis.zadd(key("batches"), {b"\xff\xfe": 9e9, "odd-batch": 9e9})
    redis.hset(key("batch", "odd-batch"), mapping={"state": "running", "created_at": "soon"})
    redis.sadd(key("too_long"), b"\xff", "odd.Task")
    redis.hset(key("too_long", "odd.Task"), mapping={"count": "many"})
    redis.hset(key("beats"), b"\xff", "1:1:1")
    for path in ("/batches", "/batches/odd-batch", "/schedules", "/dead-letters"):
        assert operator.get(path).status_code in (200, 404), path
    assert "b-42" in operator.get("/batches").text or BATCH in operator.get("/batches").text


def test_ids_can_be_copied(operator: User, shop_app: ConventionsApp) -> None:
    """On the page of each thing that has one; a letter leads to the story of its job."""
    assert shop_app
    letter = LETTER.rpartition("/")[2]
    for path, id_ in ((LETTER, letter), (f"/batches/{BATCH}", BATCH), (f"/jobs/{letter}", letter)):
        assert f'data-conventions-copy="{id_}"' in operator.get(path).text
    assert f'href="/jobs/{letter}"' in operator.get(LETTER).text
