"""The pages of batches over HTTP: what they show, and what their forms do (R19, R22)."""

import re
from typing import Any
from urllib.parse import unquote_plus, urlsplit
from xml.etree import ElementTree as ET

import pytest

from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.console.batches import bar_widths
from conventions.console.hidden_values import HIDDEN
from conventions.core.named_keys import new_key
from conventions.progress.reporter import Progress
from conventions.records import audit
from tests.batching import Ending
from tests.console.conftest import BATCH, BATCH_TASK, SECRET, LogIn, begin
from tests.console.flower_process import LOGINS, ROLES, User, flower
from tests.failures import failure, record
from tests.workers import Installation, messages

ONE = f"/batches/{BATCH}"


def ending(app: ConventionsApp) -> Ending:
    """Ends chunks of the batch that is there."""
    return Ending(app.store, app.batches, BATCH)


def live_values(user: User, path: str = ONE, **words: str) -> dict[str, Any]:
    """What a page asks for again and again: its batches, by id."""
    answer = user.get(path, **words, **{"as": "json"})
    assert answer.status_code == 200, answer.text
    return {one["id"]: one for one in answer.json()["batches"]}


def audited(app: ConventionsApp) -> list[tuple[str, str, str, str | None]]:
    """The audit, the oldest first."""
    with app.database.session() as session:
        return [(one.actor, one.action, one.target, one.reason) for one in reversed(audit.listing(session, 99))]


def bury(app: ConventionsApp, index: int) -> str:
    """The dead letter of a chunk; returns its id."""
    arguments = {
        "batch_id": BATCH, "chunk_index": index, "total_chunks": 4, "items": ["a", "b"],
        "arguments": {"path": "/in.csv"},
    }  # fmt: skip
    id_ = chunk_id(BATCH, index)
    record(app.database, failure(id_, task=f"{BATCH_TASK}.chunk", arguments=arguments))
    return id_


def stall(app: ConventionsApp) -> None:
    """Let the last sign of life be longer ago than a batch may be silent."""
    app.store.redis.hset(app.store.key("progress", BATCH), "updated_at", "1000.5")


def test_the_list(viewer: User, shop_app: ConventionsApp) -> None:
    """The newest first, each with a bar that says its value to those who do not see it."""
    begin(shop_app, "b2", None, sealed=False)
    ending(shop_app).chunk(0, "done", 2)
    page = viewer.get("/batches").text
    assert re.findall(r'data-batch="([^"]+)"', page) == ["b2", BATCH]
    assert f'href="{ONE}"' in page
    unknown, known = (
        ET.fromstring(svg) for svg in re.findall(r"<svg class=\"conventions-bar.*?</svg>", page, re.DOTALL)
    )
    assert (known.get("role"), known.get("aria-valuenow")) == ("progressbar", "28")
    assert known.get("aria-valuetext") == "2 of 7 done, 2 failed"
    assert [(bar.get("class"), bar.get("width")) for bar in known][:2] == [
        ("conventions-done", "28.57"), ("conventions-failed", "28.57"),
    ]  # fmt: skip
    assert unknown.get("aria-valuenow") is None
    assert "conventions-unknown" in unknown.get("class", "")
    for text in (BATCH_TASK.replace(".", ".<wbr>"), "u-42", "2 of 7", "28 %", "splitting", "running"):
        assert text in page
    assert re.search(r"<time [^>]+>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+</time>", page)


def test_the_list_of_one_state(viewer: User, shop_app: ConventionsApp) -> None:
    """Of those that are there; a state that there is not is said to be none."""
    begin(shop_app, "b2")
    shop_app.batches.cancel("b2")
    for state, found in (("running", [BATCH]), ("cancelled", ["b2"]), ("dead", [])):
        page = viewer.get("/batches", state=state).text
        assert re.findall(r'data-batch="([^"]+)"', page) == found
        assert list(live_values(viewer, "/batches", state=state)) == found
    assert "There is none in this state" in page
    assert viewer.get("/batches", state="gone").status_code == 400
    assert viewer.get("/batches", sate="running").status_code == 400


def test_live_values_as_json(viewer: User, shop_app: ConventionsApp) -> None:
    """Numbers, and what people read; without a reload, and without an argument."""
    answer = viewer.get("/batches", **{"as": "json"})
    assert SECRET not in answer.text
    before = answer.json()
    assert before["live"] is True
    ending(shop_app).chunk(0, "done", 2)
    found = live_values(viewer, "/batches")[BATCH]
    assert {name: found[name] for name in ("state", "total", "done", "failed", "chunks", "percent")} == {
        "state": "running", "total": 7, "done": 2, "failed": 2, "chunks": 4, "percent": 28,
    }  # fmt: skip
    assert found["bar"] == {"done": 28.57, "failed": 28.57}
    assert found["is"] == {"live": True, "stalled": False, "repairable": True, "partial": False}
    assert found["rate"] > 0
    assert found["eta"] == pytest.approx(3 / found["rate"])
    assert (found["texts"]["done"], found["texts"]["percent"], found["texts"]["failed"]) == ("2 of 7", "28 %", "2")
    assert found["texts"]["rate"].endswith("/s")
    assert found["texts"]["rest"]


def test_a_batch_with_dead_chunks_is_not_simply_done(viewer: User, shop_app: ConventionsApp) -> None:
    """Its state stays the word, beside which stands how many items failed, also while they are sent again."""
    ending(shop_app).chunk(0, "done", 2)
    shop_app.store.redis.hset(shop_app.store.key("batch", BATCH), "state", "done")
    found = live_values(viewer, "/batches")[BATCH]
    assert (found["state"], found["is"]["partial"], found["texts"]["partial"]) == ("done", True, "2 failed")
    for path in ("/batches", ONE):
        assert re.search(r'data-if="partial" >\s*<span data-value="partial">2 failed<', viewer.get(path).text), path


def test_a_page_hears_that_rows_or_links_came(viewer: User, shop_app: ConventionsApp) -> None:
    """By a version, which values alone do not change."""

    def versions() -> tuple[str, str]:
        listed, one = (viewer.get(path, **{"as": "json"}).json()["version"] for path in ("/batches", ONE))
        return listed, one

    before = versions()
    assert f'data-version="{before[0]}"' in viewer.get("/batches").text
    assert f'data-version="{before[1]}"' in viewer.get(ONE).text
    ending(shop_app).chunk(0, "done", 2)
    assert versions() == before
    ending(shop_app).chunk(2, "dead", 2)
    now = versions()
    assert (now[0] == before[0], now[1] == before[1]) == (True, False)
    begin(shop_app, "b2")
    assert versions()[0] != before[0]


def test_a_stalled_batch_is_marked(viewer: User, shop_app: ConventionsApp) -> None:
    """Until it moves again; there is no telling how long the rest takes."""
    hidden = 'data-if="stalled" hidden'
    assert hidden in viewer.get("/batches").text
    stall(shop_app)
    for path in ("/batches", ONE):
        assert hidden not in viewer.get(path).text
        found = live_values(viewer, path)[BATCH]
        assert (found["is"]["stalled"], found["texts"]["rest"]) == (True, "")


def test_one_batch(operator: User, shop_app: ConventionsApp) -> None:
    """Its values, its arguments, and its failed chunks as links to their letters, which are there."""
    id_ = bury(shop_app, 1)
    ending(shop_app).chunk(0, "done", 2)
    ending(shop_app).chunk(2, "cancelled", 2)
    page = operator.get(ONE).text
    for text in ("Import", "u-42", "2 of 7", "1 of 4 done", "1 failed, 1 cancelled", SECRET, "Cancelled chunks: 1"):
        assert text in page
    assert f'<li><a href="/dead-letters/letters/{id_}">1</a></li>' in page
    assert operator.get(f"/dead-letters/letters/{id_}").status_code == 200
    assert f'action="{ONE}/cancel"' in page
    assert f'action="{ONE}/retry-failed"' in page


def test_a_batch_of_which_little_is_known(operator: User, shop_app: ConventionsApp) -> None:
    """Its splitter still reads: no total, no percentage, no number of chunks."""
    begin(shop_app, "b2", None, sealed=False).chunk(0, "done", 2)
    page = operator.get("/batches/b2").text
    assert "conventions-unknown" in page
    assert "aria-valuenow" not in page
    assert "1 done" in page
    found = live_values(operator, "/batches/b2")["b2"]
    assert (found["bar"], found["texts"]["percent"], found["texts"]["done"]) == (None, "", "2")
    assert (found["is"]["repairable"], found["total"], found["eta"]) == (False, None, None)


def test_a_batch_that_is_not_there(operator: User) -> None:
    """The page of errors, with the way back to the batches."""
    for path in ("/batches/none", "/batches/%00", "/batches/..%2f..%2fetc", "/batches/" + "x" * 5000):
        for words in ({}, {"as": "json"}):
            answer = operator.get(path, **words)
            assert (answer.status_code, "All batches" in answer.text) == (404, True)
    for action in ("cancel", "retry-failed"):
        assert operator.post(f"/batches/none/{action}").status_code == 404
        assert operator.get(f"{ONE}/{action}").status_code == 405


@pytest.mark.parametrize("role", ["operator", "viewer"])
def test_many_failed_chunks(request: pytest.FixtureRequest, shop_app: ConventionsApp, role: str) -> None:
    """A hundred links, then one to the letters of all, whose filter gives no value away to one who may see none."""
    user: User = request.getfixturevalue(role)
    batch = begin(shop_app, "b2", 300, sealed=False)
    for index in range(130):
        batch.chunk(index, "dead", 1)
        batch.chunk(200 + index, "cancelled", 1)
    page = user.get("/batches/b2").text
    assert page.count("/dead-letters/letters/") == 100
    assert page.count("and 30 more") == 2
    found = re.search(r'href="(/dead-letters\?[^"]+)"', page)
    assert found
    query = unquote_plus(urlsplit(found[1].replace("&amp;", "&")).query)
    task = f"task={BATCH_TASK}.chunk"
    assert query == (f"{task}&arg=batch_id=b2" if role == "operator" else task)
    assert user.get(found[1].replace("&amp;", "&")).status_code == 200


def test_the_link_to_letters_that_are_sealed(shop: Installation, shop_app: ConventionsApp, log_in: LogIn) -> None:
    """No address has an argument that is in clear nowhere, so the link leads to those of all batches of the task."""
    batch = begin(shop_app, "b2", 300, sealed=False)
    for index in range(101):
        batch.chunk(index, "dead", 1)
    settings = {
        "FLOWER_BASIC_AUTH": LOGINS, "CONVENTIONS_CONSOLE_ROLES": ROLES, "CONVENTIONS_SEAL_PAYLOADS": "all",
        "CONVENTIONS_PAYLOAD_KEYS": new_key("p"), "CONVENTIONS_NAME_KEYS": new_key("n"),
    }  # fmt: skip
    with flower(shop, **settings) as address:
        user = log_in(address, "oscar:o")
        (link,) = re.findall(r'href="([^"]+)">dead letters of this task</a>', user.get("/batches/b2").text)
        assert urlsplit(link).query == f"task={BATCH_TASK}.chunk"
        assert user.get(link).status_code == 200


@pytest.mark.parametrize(("sealed", "role", "letter"), [(False, "splitter", "b2"), (True, "finish", finish_id("b2"))])
def test_a_dead_batch_leads_to_its_letter(
    operator: User, shop_app: ConventionsApp, sealed: bool, role: Any, letter: str
) -> None:
    """Of the message that ended it; nothing can be cancelled any more."""
    begin(shop_app, "b2", sealed=sealed).role(role, "dead")
    page = operator.get("/batches/b2").text
    assert f'href="/dead-letters/letters/{letter}"' in page
    assert re.search(r'action="/batches/b2/cancel" data-if="live" hidden', page)
    assert live_values(operator, "/batches/b2")["b2"]["is"]["live"] is False


def test_a_viewer_sees_no_argument(viewer: User) -> None:
    """But their names, and what keeps the viewer from changing anything."""
    page = viewer.get(ONE).text
    assert SECRET not in page
    assert "/in.csv" not in page
    assert HIDDEN in page
    assert "mail" in page
    assert "<form" not in page
    assert "Your role is not enough" in page


def test_cancel(operator: User, shop_app: ConventionsApp) -> None:
    """With who and why in the audit, which the page shows; a second time nothing is written."""
    answer = operator.post(f"{ONE}/cancel", {"reason": "wrong file"})
    assert answer.status_code == 303
    assert shop_app.batches.state(BATCH) == "cancelled"
    assert audited(shop_app) == [("oscar", "batch cancel", BATCH, "wrong file")]
    page = operator.get(answer.headers["Location"]).text
    assert "The batch was cancelled" in page
    assert "wrong file" in page
    again = operator.post(f"{ONE}/cancel", {"reason": "once more"})
    assert "had ended before" in operator.get(again.headers["Location"]).text
    assert len(audited(shop_app)) == 1


def test_send_failed_chunks_again(operator: User, shop_app: ConventionsApp) -> None:
    """Under their ids; those whose letter is not there are said not to be sent."""
    ending(shop_app).chunk(2, "dead", 2)
    id_ = bury(shop_app, 1)
    answer = operator.post(f"{ONE}/retry-failed", {"reason": "it is back"})
    assert answer.status_code == 303
    assert [(one.id, one.task) for one in messages(shop_app)] == [(id_, f"{BATCH_TASK}.chunk")]
    assert audited(shop_app) == [("oscar", "batch retry-failed", BATCH, "it is back")]
    assert "Sent again: 1 of 2 failed chunks." in operator.get(answer.headers["Location"]).text
    for index in (1, 2):
        ending(shop_app).chunk(index, "done", 2)
    again = operator.post(f"{ONE}/retry-failed")
    assert "no chunk is dead any more" in operator.get(again.headers["Location"]).text
    assert len(audited(shop_app)) == 1
    assert 'data-if="repairable" hidden' in operator.get(ONE).text


def test_a_chunk_that_does_not_fit_its_task_any_more(operator: User, shop_app: ConventionsApp) -> None:
    """Is said, not thrown; its letter stays dead."""
    record(
        shop_app.database,
        failure(chunk_id(BATCH, 1), task=f"{BATCH_TASK}.chunk", arguments={"batch_id": BATCH, "old": 1}),
    )
    answer = operator.post(f"{ONE}/retry-failed")
    page = operator.get(answer.headers["Location"]).text
    assert "Sent again: 0 of 1 failed chunks." in page
    assert "do not fit their task any more" in page
    assert messages(shop_app) == []


def test_redis_that_does_not_do_it(operator: User, shop_app: ConventionsApp) -> None:
    """Is said, with no traceback."""
    shop_app.store.redis.set(shop_app.store.key("batch", "odd"), "no hash")
    answer = operator.get("/batches/odd")
    assert (answer.status_code, "Redis does not answer" in answer.text) == (503, True)
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("state", "total", "done", "failed", "found"),
    [
        ("running", None, 5, 5, None),
        ("dead", None, 5, 5, {"done": 0, "failed": 0}),
        ("done", 0, 0, 0, {"done": 100, "failed": 0}),
        ("running", 10_000, 5000, 1, {"done": 50, "failed": 1}),
        ("running", 10_000, 9999, 1, {"done": 99, "failed": 1}),
        ("splitting", 10, 25, 3, {"done": 70, "failed": 30}),
        ("splitting", 10, 0, 30, {"done": 0, "failed": 100}),
    ],
)
def test_a_bar_is_as_wide_as_its_place(
    state: str, total: int | None, *, done: int, failed: int, found: dict[str, float] | None
) -> None:
    """Whatever was counted; a single failed item can be seen."""
    summary = BatchSummary("b", "t", state, total, done, failed, None, progress=Progress("b"))
    assert bar_widths(summary) == found


def test_tasks_that_should_be_split_are_shown(viewer: User, shop_app: ConventionsApp) -> None:
    """Below the batches, and only where there are some (R5)."""
    assert "Jobs that should be split" not in viewer.get("/batches").text
    for id_, seconds in (("the-first-one", 61), ("the-last-one", 3 * 3600 + 120)):
        shop_app.granularity.note("shop.Mail<b>", id_, seconds)
    text = viewer.get("/batches").text
    assert "Jobs that should be split" in text
    assert "shop.<wbr>Mail&lt;b&gt;" in text
    assert "3 h 2 min" in text
    assert 'title="the-last-one"' in text
