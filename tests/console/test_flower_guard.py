"""Flower's own pages and API: roles, hidden values, logins, what its writes leave behind, the lengths of our queues (R22)."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conventions.app import ConventionsApp
from conventions.console.throttle import MOST_WRONG
from conventions.execution.purge_queues import purge
from conventions.records import audit
from conventions.records.executions import of_message
from tests.console.browser import SCREENSHOTS, faults, one
from tests.console.flower_process import LOGINS, ROLES, User, flower
from tests.console.watched_tasks import Greet
from tests.support import at_most, patient, wait_until
from tests.workers import Installation, acting_through, messages

pytestmark = pytest.mark.processes

SECRET = "anna@example.com"
TASK = Greet.name
OTHER_QUEUE = "nobody-consumes"
VALUES = {"args", "kwargs", "result", "exception", "traceback"}
DATATABLE = {
    "draw": "1", "start": "0", "length": "50", "search[value]": "", "order[0][column]": "0", "order[0][dir]": "desc",
    "columns[0][data]": "received",
}  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """A worker, the Flower that watches it, and two jobs that it has done."""

    app: ConventionsApp
    address: str
    worker: str
    done: str
    failed: str

    def as_(self, login: str) -> httpx.Client:
        """A client of somebody."""
        user, _, password = login.partition(":")
        return httpx.Client(base_url=self.address, auth=(user, password) if login else None, timeout=20)


@pytest.fixture(scope="module")
def watched(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """They."""
    folder = tmp_path_factory.mktemp("watched")
    packages = ["tests.console.watched_tasks"]
    shop = Installation(folder, packages, broker_url=valkey_url, database_url=new_database(folder))
    with (
        shop.application() as app,
        shop.worker("-E", "--concurrency=1", "-Q", "immediate") as _,
        flower(shop, FLOWER_BASIC_AUTH=LOGINS, CONVENTIONS_CONSOLE_ROLES=ROLES) as address,
    ):
        app.load_tasks()
        admin = User(address, "alice:a")

        def name() -> str | None:
            found = admin.get("/api/workers", refresh="1").json()
            return next(iter(found), None)

        worker = wait_until(name, 30, "Flower knows the worker")
        with acting_through(app):
            done, failed = Greet.delay(name=SECRET).id, Greet.delay(name=SECRET, fail=True).id
        for id_, state in ((done, "SUCCESS"), (failed, "FAILURE")):

            def ended(id_: str = id_, state: str = state) -> bool:
                answer = admin.get(f"/api/task/info/{id_}")
                return answer.status_code == 200 and answer.json()["state"] == state

            wait_until(ended, 20, id_)
        yield Watched(app, address, worker, done, failed)
        admin.client.close()


def pages_of(watched: Watched) -> list[str]:
    """What shows tasks."""
    ids = (watched.done, watched.failed)
    return [
        "/api/tasks",
        *(f"/api/task/info/{id_}" for id_ in ids),
        *(f"/task/{id_}" for id_ in ids),
        f"/worker/{watched.worker}",
        f"/api/workers?workername={watched.worker}",
        "/workers?json=1",
        "/tasks",
        "/broker",
        "/",
        "/metrics",
        "/api/task/types",
        "/api/queues/length",
    ]


def test_a_viewer_sees_no_value_on_any_page(watched: Watched) -> None:
    """Operators do, so it was there to be hidden."""
    with watched.as_("vera:v") as viewer, watched.as_("oscar:o") as operator:
        shown = ""
        for path in pages_of(watched):
            answer = viewer.get(path)
            assert (answer.status_code, path, SECRET in answer.text) == (200, path, False)
            shown += operator.get(path).text
        assert shown.count(SECRET) > 5
        hidden = viewer.get(f"/api/task/info/{watched.failed}").json()
        assert hidden["exception"].startswith("BusinessError(")
        assert hidden["name"] == TASK
        table = viewer.post("/tasks/datatable", data=DATATABLE)
        assert SECRET not in table.text
        assert {row["uuid"] for row in table.json()["data"]} == {watched.done, watched.failed}
        assert SECRET in operator.post("/tasks/datatable", data=DATATABLE).text
        assert viewer.get(f"/api/task/result/{watched.done}").status_code == 403
        assert SECRET in operator.get(f"/api/task/result/{watched.done}").text


def test_a_viewer_cannot_find_a_task_by_a_value(watched: Watched) -> None:
    """Neither by a search nor by an order, whichever way it is written."""
    with watched.as_("vera:v") as viewer, watched.as_("oscar:o") as operator:
        for text in (SECRET, f"kwargs:{SECRET}", f"kwargs:name={SECRET}", "result:hello", f"name:Greet OR {SECRET}",
                     f"name:Greet (state:SUCCESS args:{SECRET})"):  # fmt: skip
            table = DATATABLE | {"search[value]": text}
            assert viewer.post("/tasks/datatable", data=table).status_code == 403, text
            assert viewer.get("/tasks/datatable", params=table).status_code == 403, text
            assert viewer.get("/api/tasks", params={"search": text}).status_code == 403, text
            assert operator.get("/api/tasks", params={"search": text}).status_code == 200, text
        for column in ("args", "kwargs", "result", "exception"):
            assert viewer.post("/tasks/datatable", data=DATATABLE | {"columns[0][data]": column}).status_code == 403
        for number in ("00", " 0", "+0", "\uff10", "-0"):  # other ways to write 0
            order = {"order[0][column]": number, "columns[0][data]": "kwargs"}
            assert viewer.post("/tasks/datatable", data=DATATABLE | order).status_code == 403, number
        for text in ("state:FAILURE", f"name:{TASK} state:FAILURE worker:{watched.worker}"):
            found = viewer.post("/tasks/datatable", data=DATATABLE | {"search[value]": text}).json()
            assert [row["uuid"] for row in found["data"]] == [watched.failed]


def test_whoever_has_no_role_sees_nothing(watched: Watched) -> None:
    """Of Flower's either; nor does who is not logged in."""
    with watched.as_("nobody:n") as nobody, watched.as_("") as unknown, watched.as_("alice:wrong") as wrong:
        for path in (*pages_of(watched), "/api/task/result/x", "/there-is-no-page"):
            assert nobody.get(path).status_code == 403, path
            assert unknown.get(path).status_code == 401, path
        assert nobody.post("/tasks/datatable", data=DATATABLE).status_code == 403
        assert "WWW-Authenticate" in wrong.get("/").headers
        by_script = wrong.get("/", headers={"Sec-Fetch-Dest": "empty"})
        assert (by_script.status_code, "WWW-Authenticate" in by_script.headers) == (401, False)
        by_script = unknown.get("/", headers={"Sec-Fetch-Dest": "empty"})
        assert (by_script.status_code, "WWW-Authenticate" in by_script.headers) == (401, True)
        for path in ("/healthcheck", "/static/css/flower.css"):
            assert unknown.get(path).status_code == 200


def test_no_page_is_put_into_a_frame(watched: Watched) -> None:
    """Flower's, ours, files, and those that say what is wrong."""
    with watched.as_("alice:a") as admin, watched.as_("") as unknown:
        answers = [admin.get(path) for path in (*pages_of(watched), "/none", "/dead-letters", "/healthcheck")]
        answers += [unknown.get(path) for path in ("/", "/static/css/flower.css", "/favicon.ico", "/login")]
        answers.append(unknown.get("/conventions-static/console.css"))
        for answer in answers:
            assert answer.headers["X-Frame-Options"] == "DENY", answer.url
            assert answer.headers["X-Content-Type-Options"] == "nosniff", answer.url
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], answer.url


def rows(watched: Watched, action: str) -> list[Any]:
    """The audit of an action, the newest first."""
    with watched.app.database.session() as session:
        return [(one.actor, one.target, one.after) for one in audit.listing(session, 100) if one.action == action]


def test_a_message_of_the_api_is_its_logins(watched: Watched) -> None:
    """Nobody else can be named; the audit has its id."""
    with watched.as_("alice:a") as admin:
        for command in ("async-apply", "send-task"):
            for forged in (
                {"actor": "ceo@example.com"},
                {"headers": {"x_actor": "ceo@example.com"}},
                {"headers": {"X_Key": "k"}},
                {"headers": [["x_actor", "ceo@example.com"]]},
                {"headers": {"headers": {"x_actor": "ceo@example.com"}}},
                {"headers": {"id": "another"}},
                {"link": [{"task": TASK, "options": {"actor": "ceo@example.com"}}]},
                {"stamped_headers": ["x_actor"], "x_actor": "ceo@example.com"},
            ):
                answer = admin.post(f"/api/task/{command}/{TASK}", json={"kwargs": {"name": "a"}} | forged)
                assert (answer.status_code, forged) == (400, forged)
            answer = admin.post(f"/api/task/{command}/{TASK}", json={"kwargs": {"name": "actor"}})
            id_ = answer.json()["task-id"]

            def actor(id_: str = id_) -> str | None:
                with watched.app.database.session() as session:
                    return next((one.actor for one in of_message(session, id_)), None)

            assert wait_until(actor, 20, id_) == "alice"
            found = rows(watched, f"flower task {command}")
            assert found[0][:2] == ("alice", TASK)
            assert (found[0][2]["message_id"], found[0][2]["outcome"]) == (id_, "done")
            assert [one[2]["outcome"] for one in found[1:]] == ["failed"] * 8
        answer = admin.post(f"/api/task/async-apply/{TASK}", json={"kwargs": {"nome": 1}})
        assert (answer.status_code, "name" in answer.text) == (400, True), answer.text


ODD = (
    "1e400",
    "-1e400",
    "NaN",
    "1e300",
    "-1e300",
    "9" * 400,
    '"1e400"',
    '"soon"',
    "[1]",
    "true",
    '"9999-12-31T23:59:59-14:00"',
)


def test_a_number_that_is_none_is_the_callers_fault(watched: Watched) -> None:
    """The answer says what it must be, and nothing was sent."""

    def there() -> int:
        sizes = watched.app.broker.sizes("immediate")
        return sizes.ready + sizes.delayed + sizes.in_flight

    before = there()  # a job of another test may still run
    with watched.as_("alice:a") as admin:

        def post(path: str, options: str) -> httpx.Response:
            body = f'{{"kwargs": {{"name": "a"}}, {options}}}'
            return admin.post(f"/api/task/{path}", content=body, headers={"Content-Type": "application/json"})

        for path, odds in (
            (f"apply/{TASK}", ODD[:1]), (f"async-apply/{TASK}", ODD), (f"send-task/{TASK}", ODD[:1]), ("send-task/nobody.knows", ODD),
        ):  # fmt: skip
            for name in ("countdown", "expires", "eta", "priority", "time_limit"):
                for odd in odds:
                    answer = post(path, f'"{name}": {odd}')
                    assert answer.status_code == 400, (path, name, odd, answer.text)
                    assert f"{name} " in answer.text, (path, name, odd, answer.text)
        for odd in ("1e400", "NaN", "-5"):
            answer = admin.post(
                f"/api/task/timeout/{TASK}", data={"workername": watched.worker, "soft": odd, "hard": "9"}
            )
            assert (answer.status_code, "soft_time_limit is" in answer.text) == (400, True), odd
        for options in (
            '"countdown": "0.1"',
            '"eta": "2026-01-01 10:00:00.000000"',
            '"expires": 3600',
            '"countdown": null',
            '"expires": "3600"',
        ):
            answer = post(f"async-apply/{TASK}", options)
            assert answer.status_code == 200, (options, answer.text)
    wait_until(lambda: there() <= before, 20, "what was sent has run")


def test_a_priority_of_the_api_is_one_that_has_a_name(watched: Watched) -> None:
    """JSON has its number; another one means nothing here, and the answer says which do."""
    with watched.as_("alice:a") as admin:
        for path in (f"async-apply/{TASK}", f"send-task/{TASK}", "send-task/nobody.knows"):
            body = {"kwargs": {"name": "a"}, "queue": OTHER_QUEUE}
            answer = admin.post(f"/api/task/{path}", json=body | {"priority": 9})
            assert answer.status_code == 200, answer.text
            answer = admin.post(f"/api/task/{path}", json=body | {"priority": 5})
            assert answer.status_code == 400
            assert "priority is one of 1 (LOW), 4 (NORMAL), 7 (HIGH), 9 (URGENT), not 5" in answer.text
    assert [one.priority for one in messages(watched.app) if one.queue == OTHER_QUEUE] == [9, 9, 9]
    purge(watched.app, [OTHER_QUEUE])


def test_controls_leave_what_they_did(watched: Watched) -> None:
    """On which worker, and whether it worked; also what was refused by a worker or is not there."""
    worker = watched.worker
    with watched.as_("alice:a") as admin:
        for path, words, status, action, after in (
            (f"worker/pool/grow/{worker}", {"n": "2"}, 200, "worker pool grow", {"outcome": "done", "asked": {"n": "2"}}),
            ("worker/pool/grow/nobody@nowhere", {}, 404, "worker pool grow", {"outcome": "failed", "status": 404}),
            (f"worker/pool/restart/{worker}", {}, 403, "worker pool restart", {"outcome": "failed", "status": 403}),
            (f"task/rate-limit/{TASK}", {"workername": worker, "ratelimit": "100/s"}, 200, "task rate-limit",
             {"outcome": "done", "worker": worker, "asked": {"ratelimit": "100/s"}}),
            (f"task/rate-limit/{TASK}", {"workername": worker, "ratelimit": "often"}, 403, "task rate-limit",
             {"outcome": "failed", "worker": worker}),
            (f"task/timeout/{TASK}", {"workername": worker, "soft": "50", "hard": "55"}, 200, "task timeout",
             {"outcome": "done"}),
            (f"worker/queue/add-consumer/{worker}", {"queue": "extra"}, 200, "worker queue add-consumer",
             {"outcome": "done", "asked": {"queue": "extra"}}),
            (f"worker/queue/cancel-consumer/{worker}", {"queue": "extra"}, 200, "worker queue cancel-consumer",
             {"outcome": "done"}),
            ("task/revoke/some-id", {"terminate": "true"}, 200, "task revoke", {"outcome": "sent"}),
            ("worker/shutdown/nobody@nowhere", {}, 404, "worker shutdown", {"outcome": "failed"}),
        ):  # fmt: skip
            post = partial(admin.post, f"/api/{path}", data=words)
            if status == httpx.codes.OK:  # Flower waits for a second until the worker answers
                wait_until(lambda post=post: post().status_code == httpx.codes.OK, 20, path)  # type: ignore[misc]
            else:
                assert post().status_code == status, path
            actor, target, found = rows(watched, f"flower {action}")[0]
            assert (actor, path.endswith(f"/{target}")) == ("alice", True)
            assert found | after == found
            assert found["said"] or action == "task revoke"


def test_queues_are_as_long_as_they_are(watched: Watched) -> None:
    """Those of the transport, also delayed messages, and how many workers consume each."""
    with acting_through(watched.app):
        for _ in range(3):
            Greet.apply_async(kwargs={"name": "later"}, queue="scheduled")
        Greet.apply_async(kwargs={"name": "later"}, queue="scheduled", countdown=3600)
        Greet.apply_async(kwargs={"name": "lost"}, queue=OTHER_QUEUE)
    with watched.as_("vera:v") as viewer:
        found = {one["name"]: one for one in viewer.get("/api/queues/length").json()["active_queues"]}
        assert (found["scheduled"]["messages"], found["scheduled"]["messages_ready"]) == (4, 3)
        assert found["immediate"]["consumers"] == 1
        assert found["scheduled"].get("consumers", 0) == 0
        assert found[OTHER_QUEUE]["messages"] == 1, "also of a queue that no task names"
        page = viewer.get("/broker").text
        assert "scheduled" in page
    with watched.app.connection_for_read() as connection:
        declared = connection.default_channel.queue_declare("scheduled", passive=True)
        assert tuple(declared) == ("scheduled", 3, None), "0 consumers would be a claim"
    purge(watched.app, ["scheduled", OTHER_QUEUE])


def test_waiting_for_results_holds_nobody_up(watched: Watched) -> None:
    """However many wait, and for however long."""
    with watched.as_("oscar:o") as operator, watched.as_("alice:a") as admin:
        waits = [
            threading.Thread(target=operator.get, args=(f"/api/task/result/none-{number}?timeout=1000",))
            for number in range(20)
        ]
        for one in waits:
            one.start()
        with at_most(0):
            assert admin.post(f"/api/task/async-apply/{TASK}", json={"kwargs": {"name": "b"}}).status_code == 200
        for one in waits:
            one.join(patient(15))  # two rounds of the longest wait
        assert not any(one.is_alive() for one in waits)


def test_flowers_pages_work_under_their_policy(watched: Watched, browser: Chrome) -> None:
    """Nothing of them is refused, and a viewer sees no value in a browser either."""
    pages = ("/", "/tasks", f"/task/{watched.failed}", f"/worker/{watched.worker}", "/broker")
    browser.get(watched.address.replace("//", "//vera:v@") + "/")
    faults(browser)
    for number, path in enumerate(pages):
        browser.get(watched.address + path)
        one(browser, "h1, h2, td, dd")
        if path == "/tasks":
            wait_until(lambda: "Greet" in browser.page_source, 15, "the table is filled")
        assert SECRET not in browser.page_source
        if SCREENSHOTS:
            browser.save_screenshot(f"{SCREENSHOTS}/flower-{number}.png")
        assert faults(browser) == [], path


def test_flowers_pages_say_of_what_they_are(watched: Watched, browser: Chrome) -> None:
    """Of events since this Flower's start, in the zone of the settings; and which page of ours has all."""
    heard = re.compile(
        r"By the events that this Flower has heard since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d JST)\. What came before"
    )
    browser.get(watched.address.replace("//", "//alice:a@") + "/")
    for path, ours in (("/workers", "/"), ("/tasks", "/jobs")):
        browser.get(watched.address + path)
        said = heard.search(one(browser, ".page-header").text)
        assert said, path
        begun_at = datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S JST").replace(tzinfo=ZoneInfo("Asia/Tokyo"))
        assert timedelta() < datetime.now(UTC) - begun_at < timedelta(hours=1)
        assert browser.find_elements(By.CSS_SELECTOR, f".page-header a[href='{ours}']"), path
    browser.get(f"{watched.address}/workers")
    assert "Failed, heard" in one(browser, ".metric-grid").text
    updated = wait_until(
        lambda: re.fullmatch(r"Updated (\d\d):\d\d:\d\d (GMT\+9|JST)", one(browser, ".refresh-status").text),
        15,
        "a look",
    )
    shown, now = int(updated[1]), datetime.now(ZoneInfo("Asia/Tokyo")).hour
    assert (now - shown) % 24 in (0, 1)
    if SCREENSHOTS:
        browser.save_screenshot(f"{SCREENSHOTS}/flower-workers.png")
    assert faults(browser) == []


def forge(watched: Watched, event: dict[str, Any]) -> None:
    """Send an event as anybody who reaches the broker may."""
    with watched.app.connection_for_write() as connection, watched.app.events.Dispatcher(connection) as dispatcher:
        dispatcher.hostname = event.pop("hostname")
        dispatcher.send(event.pop("type"), **event)


def test_an_event_of_garbage_breaks_no_page(watched: Watched) -> None:
    """A heartbeat, and one of a task; what is right in it is shown."""
    name = "forged@nowhere"
    for garbage in (
        {"active": "many", "processed": [1], "loadavg": "high", "freq": "often", "heartbeats": "none", "event": 1},
        {"active": 1e999, "loadavg": [1, "x", 2], "sw_ident": 7},
    ):
        forge(watched, {"type": "worker-heartbeat", "hostname": name, **garbage})
    forge(watched, {"type": "task-received", "hostname": name, "uuid": "forged-1", "name": {"a": 1}, "runtime": "long",
                    "received": "x", "as_dict": 1, "children": 5})  # fmt: skip
    forge(watched, {"type": "worker-heartbeat", "hostname": "half\ud800"})
    forge(watched, {"type": "task-received", "hostname": name, "uuid": "forged-2", "name": "half\ud800", "args": "\ud800",
                    "received": -1e15})  # fmt: skip
    with watched.as_("alice:a") as admin:
        wait_until(lambda: name in admin.get("/workers").text, 15, "the worker is shown")
        wait_until(lambda: "forged-2" in admin.get("/api/tasks").text, 15, "the task is shown")
        for path in (
            "/workers",
            "/workers?json=1",
            "/metrics",
            "/api/tasks?sort_by=received",
            "/task/forged-1",
            "/task/forged-2",
            "/",
        ):
            assert admin.get(path).status_code == 200, path
        assert admin.post("/tasks/datatable", data=DATATABLE).status_code == 200
        assert json.loads(admin.get("/workers?json=1").text)["data"]


def test_logins_are_throttled(watched: Watched) -> None:
    """Of one user from one address; then the right password does not help for a while, and others are not held up."""
    with watched.as_("oscar:guess") as guesser, watched.as_("oscar:o") as right, watched.as_("vera:v") as other:
        answers = [guesser.get("/").status_code for _ in range(MOST_WRONG + 3)]
        assert answers == [401] * MOST_WRONG + [429] * 3
        assert right.get("/dead-letters").status_code == 429
        assert other.get("/").status_code == 200
    with watched.as_("\u00e9:\u00e9") as odd:  # letters that Flower cannot compare
        assert [odd.get(path).status_code for path in ("/", "/dead-letters", "/api/tasks")] == [401] * 3
