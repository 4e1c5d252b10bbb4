"""The console is safe by default: no write without a token, a login and a role; nothing hidden is shown (R22)."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tornado import web
from tornado.web import create_signed_value

from conventions.alerts.alert_store import AlertStore
from conventions.app import ConventionsApp
from conventions.console import flower_plugin
from conventions.console.flower_plugin import NOW
from conventions.console.redrives import RedriveDetail
from conventions.console.search import SearchJobs, SearchLetters
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.pauses.pause_store import Pauses
from conventions.records import audit
from conventions.schedules.schedule_state import State
from conventions.schedules.schedule_store import Schedules
from conventions.storage.database import utc_now
from conventions.storage.tables import RedriveRow
from tests.console.conftest import BATCH, PAUSED, SECRET, TASK, LogIn
from tests.console.flower_process import LOGINS, User, flower
from tests.failures import failure, record
from tests.redriving import step
from tests.workers import Installation, messages

LETTER = "/dead-letters/letters/KeyError-0"
WRITES = {
    LETTER: {"argument:user_id": "1", "argument:day": '"2026-01-06"', "do": "redrive"},
    "/dead-letters/redrive": {"group": "", "count": "9"},
    "/dead-letters/discard": {"count": "9", "reason": "why"},
    "/dead-letters/notes/abc": {"note": "hello"},
    "/dead-letters/redrives/abc/stop": {},
    f"/batches/{BATCH}/cancel": {"reason": "why"},
    f"/batches/{BATCH}/retry-failed": {"reason": "why"},
    "/schedules/daily-mail/pause": {"reason": "why"},
    f"/schedules/{PAUSED}/resume": {"reason": "why"},
    "/schedules/daily-mail/run": {"reason": "why"},
    "/jobs/waits/cancel": {"reason": "why"},
    "/jobs/KeyError-0/reveal": {"reason": "why"},
    f"{LETTER}/reveal": {"reason": "why"},
    "/queues/pauses": {"kind": "queue", "name": "mail", "reason": "why", "do": "pause"},
    "/alerts/silences": {"rule": "backlog", "subject": "q1", "until": "2h", "reason": "why"},
}
PAGES = (
    "/dead-letters",
    "/dead-letters?group=none",
    LETTER,
    "/dead-letters/redrive",
    "/dead-letters/discard",
    "/dead-letters/redrives",
    "/batches",
    f"/batches/{BATCH}",
    f"/batches/{BATCH}?as=json",
    "/schedules",
    "/schedules/daily-mail",
    f"/schedules/{PAUSED}",
    f"/schedules/{PAUSED}?as=json",
    "/audit",
    "/audit?of=actions&since=2h",
    "/",
    "/queues",
    "/queues?kind=task&name=x",
    "/jobs",
    "/jobs?state=dead&task=Send",
    "/jobs/KeyError-0",
    "/jobs/unknown",
    "/alerts",
    f"/tasks/{TASK}",
)
SEARCHES = ("/search/jobs", "/search/dead-letters")
ADDRESSES = (
    r'(?:href|action|formaction|src|data-conventions-[a-z]+)="(/(?!ops/)[^"]*)"'  # those that are not below the prefix
)


def untouched(app: ConventionsApp) -> bool:
    """Whether nothing was written."""
    with app.database.session() as session:
        counted = dead_letters.count(session, Filter())
        rows = (counted, len(audit.listing(session, 9)), len(redrive_rows.listing(session, 9)))
    _, schedules = Schedules(app.store).read(["daily-mail", PAUSED])
    planned = schedules["daily-mail"] == State(None, None, None) and schedules[PAUSED].pause is not None
    redis: Any = app.store.redis
    told = [fields for _, fields in redis.xrange(app.store.key("journal")) if b"deed" in fields]  # that of the fixture
    nothing_new = (
        not Pauses(app.store).read().pauses and not AlertStore(app.store).silences(utc_now()) and len(told) == 1
    )
    return nothing_new and rows == (9, 0, 0) and app.batches.state(BATCH) == "running" and planned and not messages(app)


def handler_of(path: str) -> type[web.RequestHandler]:
    """The one that answers to a path: the first that matches, as in Flower."""
    own: list[tuple[str, type[web.RequestHandler]]] = [
        (str(NOW.regex.pattern), NOW.handler_class),
        *((pattern, handler) for pattern, handler, _ in flower_plugin.PAGES),
    ]
    return next(handler for pattern, handler in own if re.fullmatch(pattern.rstrip("$"), urlsplit(path).path))


def test_nothing_is_left_out_here() -> None:
    """Each handler of ours that takes a form, and each that shows a page, is tried below."""
    handlers = {handler for _, handler, _ in flower_plugin.PAGES} | {NOW.handler_class}
    missing = web.RequestHandler.post
    posts = {handler_of(path) for path in (*WRITES, *SEARCHES)}
    assert posts == {one for one in handlers if one.post is not missing}
    assert (
        {handler_of(path) for path in SEARCHES}
        == {one for one in posts if not getattr(one, "changes", True)}
        == {SearchJobs, SearchLetters}
    )
    shown = {handler_of(path) for path in PAGES} | {RedriveDetail}  # that needs a redrive, see test_pages.py
    assert handlers - shown == posts - shown


@pytest.mark.parametrize("path", SEARCHES)
def test_who_may_look_may_search(
    viewer: User, address: str, log_in: LogIn, shop_app: ConventionsApp, path: str
) -> None:
    """It changes nothing. A token is asked for all the same, and a role that may look."""
    answer = viewer.post(path, {"task": "Send", "state": "dead", "queue": " "})
    list_ = path.removeprefix("/search")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{list_}?task=Send&state=dead")
    assert viewer.get(answer.headers["Location"]).status_code == 200
    assert viewer.post(path).headers["Location"] == list_
    assert viewer.post(path, {"task": "Send"}, token=False).status_code == 403
    back = viewer.get(path)
    assert (back.status_code, back.headers["Location"]) == (302, list_)
    assert log_in(address, "nobody:n").post(path, {"task": "Send"}).status_code == 403
    assert untouched(shop_app)


@pytest.mark.parametrize(
    ("path", "form"), [*((path, {"arg": "user_id=7"}) for path in SEARCHES), ("/search/jobs", {"q": "user_id=7"})]
)
def test_a_viewer_does_not_guess_values(
    viewer: User, shop_app: ConventionsApp, path: str, form: dict[str, str]
) -> None:
    """Nor gets codes of them."""
    assert viewer.post(path, form).status_code == 403
    assert untouched(shop_app)


@pytest.mark.parametrize("path", WRITES)
def test_no_write_without_a_token(admin: User, shop_app: ConventionsApp, path: str) -> None:
    """Nor with one that is not that of the cookie, nor from another site."""
    assert admin.post(path, WRITES[path], token=False).status_code == 403
    admin.get("/dead-letters")
    assert admin.post(path, WRITES[path] | {"_xsrf": "guessed"}, token=False).status_code == 403
    admin.client.headers["Sec-Fetch-Site"] = "cross-site"
    assert admin.post(path, WRITES[path]).status_code == 403
    assert untouched(shop_app)


@pytest.mark.parametrize("path", WRITES)
def test_no_write_without_a_login(address: str, log_in: LogIn, shop_app: ConventionsApp, path: str) -> None:
    """Nor with a wrong one, which is looked at a few times a minute."""
    for login in ("", "eve:a", "\u00e9:a", ":"):
        user = log_in(address, login)
        token = {"_xsrf": "2|0|0|0"}
        user.client.cookies.set("_xsrf", token["_xsrf"])
        assert user.post(path, WRITES[path] | token, token=False).status_code in (401, 403, 429)
        assert user.client.get("/dead-letters").status_code in (401, 429)
    assert untouched(shop_app)


@pytest.mark.parametrize("path", WRITES)
def test_no_write_of_a_viewer(viewer: User, shop_app: ConventionsApp, path: str) -> None:
    """Whatever the page shows, the server decides."""
    answer = viewer.post(path, WRITES[path])
    assert (answer.status_code, "role" in answer.text) == (403, True)
    assert untouched(shop_app)


def test_an_operator_gives_nothing_up(operator: User, shop_app: ConventionsApp) -> None:
    """That is for an admin, and the page does not offer it."""
    assert operator.post("/dead-letters/discard", WRITES["/dead-letters/discard"]).status_code == 403
    assert untouched(shop_app)
    assert "Discard" not in operator.get("/dead-letters").text


def test_whom_the_roles_do_not_name(address: str, log_in: LogIn, shop_app: ConventionsApp) -> None:
    """Is told so on every page."""
    user = log_in(address, "nobody:n")
    for path in PAGES:
        assert user.get(path).status_code == 403
    assert untouched(shop_app)


@pytest.fixture(scope="module")
def open_address(shop: Installation) -> Iterator[str]:
    """A Flower without a login, as in development."""
    with flower(shop) as address:
        yield address


@pytest.mark.parametrize("path", WRITES)
def test_without_logins_everybody_only_looks(
    open_address: str, log_in: LogIn, shop_app: ConventionsApp, path: str
) -> None:
    """A token is not enough."""
    user = log_in(open_address)
    assert user.get("/dead-letters").status_code == 200
    answer = user.post(path, WRITES[path])
    assert (answer.status_code, "FLOWER_BASIC_AUTH" in answer.text) == (403, True)
    assert untouched(shop_app)


def test_without_logins_a_file_of_the_audit_is_for_who_sees_values(
    open_address: str, log_in: LogIn, shop_app: ConventionsApp
) -> None:
    """In development everybody does, since only the owner of the machine can connect."""
    assert shop_app
    answer = log_in(open_address).get("/audit", **{"as": "csv"})
    assert (answer.status_code, "KeyError-0" in answer.text) == (200, True)


def test_without_logins_only_this_machine_is_answered(open_address: str, log_in: LogIn) -> None:
    """A page of another site may have a name that leads here."""
    user = log_in(open_address)
    assert user.client.get("/dead-letters", headers={"Host": "evil.example"}).status_code == 403
    elsewhere = {"Host": "rebind.evil.example"}
    for path in (
        "/",
        "/tasks",
        "/task/x",
        "/api/tasks",
        "/metrics",
        "/healthcheck",
        "/login",
        "/static/css/flower.css",
        "/x",
    ):
        assert user.client.get(path, headers=elsewhere).status_code == 403, path
    assert user.client.post("/tasks/datatable", headers=elsewhere).status_code == 403
    for host in ("localhost:5555", "127.0.0.1", "[::1]:5555"):
        for path in ("/dead-letters", "/tasks", "/metrics", "/healthcheck"):
            assert user.client.get(path, headers={"Host": host}).status_code == 200


@pytest.fixture(scope="module")
def read_only_address(shop: Installation) -> Iterator[str]:
    """A Flower that changes nothing, below a prefix; every login is one of an admin."""
    with flower(shop, "--read-only", "--url-prefix=ops", FLOWER_BASIC_AUTH=LOGINS) as address:
        yield address


def test_read_only(read_only_address: str, log_in: LogIn, shop_app: ConventionsApp) -> None:
    """Whoever asks; and every link and form of the pages lies below the prefix."""
    user = log_in(f"{read_only_address}/ops", "alice:a")
    for path, form in WRITES.items():
        answer = user.post(path, form)
        assert (answer.status_code, "--read-only" in answer.text) == (403, True)
    assert untouched(shop_app)
    for path in PAGES:
        page = user.get(path)
        assert (page.status_code, re.findall(ADDRESSES, page.text)) == (200, []), path
        forms = re.findall(r"<form[^>]*>", page.text)
        assert [form for form in forms if 'method="post"' in form and 'role="search"' not in form] == [], path
    found = user.post("/search/jobs", {"task": "Send"})
    assert (found.status_code, found.headers["Location"]) == (303, "/ops/jobs?task=Send")
    assert 'href="/ops/dead-letters' in user.get("/dead-letters").text
    assert 'data-conventions-live="/ops/batches' in user.get("/batches").text
    assert 'data-conventions-live="/ops/schedules' in user.get("/schedules").text
    assert 'data-conventions-now="/ops/"' in user.get("/").text
    assert 'action="/ops/audit"' in user.get("/audit").text
    kept = set(re.findall(r'"/ops(/conventions-static/[^"]+)"', user.get("/jobs").text))
    assert [re.sub("[0-9a-f]{128}", "HASH", one) for one in sorted(kept)] == [
        f"/conventions-static/console.{kind}?v=HASH" for kind in ("css", "js")
    ]
    for file in kept:
        assert "max-age" in user.get(file).headers["Cache-Control"]


@pytest.mark.parametrize("path", PAGES)
def test_headers(admin: User, path: str) -> None:
    """No frame, no script from elsewhere or within a page, no copy."""
    answer = admin.get(path)
    assert answer.status_code == 200
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["form-action"] == "'self'"
    known = ("http://www.w3.org/", "https://flower.readthedocs.io/", "https://github.com/mher/flower")
    addresses = re.findall(r"https?:[^\"<\s]+", answer.text)
    assert [one for one in addresses if not one.startswith(known)] == [], "nothing is fetched from elsewhere"
    assert not re.search(r"<[^>]* (style|on\w+)=", answer.text), "the policy lets nothing of this work"
    assert "<script>alert" not in answer.text


def test_a_viewer_sees_no_argument(viewer: User, operator: User) -> None:
    """Not on the page of a letter, and not by asking which letters have it."""
    assert SECRET in operator.get(LETTER).text
    page = viewer.get(LETTER).text
    assert SECRET not in page
    assert "mail" in page
    for path in ("/dead-letters", "/dead-letters/redrive", "/dead-letters/discard"):
        for words in ({"arg": f"day={SECRET}"}, {"text": SECRET}):  # an address may only have a name that a task takes
            assert viewer.get(path, **words).status_code == 403
            assert operator.get(path, **words).status_code == 200


def test_a_viewer_sees_no_text_that_may_hold_an_argument(
    viewer: User, operator: User, shop_app: ConventionsApp
) -> None:
    """Errors repeat what they were given; nor does a redrive tell which values it was asked for."""
    record(shop_app.database, failure("told", ValueError(f"no user {SECRET}"), task=TASK, arguments={"user_id": 1}))
    path = operator.post("/dead-letters/redrive", {"text": SECRET, "count": "10"}).headers["Location"].partition("?")[0]
    for page in ("/dead-letters", "/dead-letters/letters/told", path):
        assert SECRET in operator.get(page).text
        found = viewer.get(page)
        assert (found.status_code, SECRET in found.text) == (200, False)
    assert "all dead letters" not in viewer.get(path).text


def test_a_viewer_sees_the_class_of_a_redrives_last_error(
    viewer: User, operator: User, shop_app: ConventionsApp
) -> None:
    """And what keeps it from going on, without the values that both may repeat, and not why it was begun."""
    record(shop_app.database, failure("gone", task=TASK, arguments={"user_id": SECRET}))
    sent = {"id": "gone", "count": "1", "reason": f"since {SECRET}"}
    path = operator.post("/dead-letters/redrive", sent).headers["Location"].partition("?")[0]
    step(shop_app, path.rsplit("/", 1)[1])
    with shop_app.database.session() as session:
        row = session.get_one(RedriveRow, path.rsplit("/", 1)[1])
        assert "gone was not sent: PayloadError" in str(row.left_error)
        row.left_error, row.fault = f"PayloadError: {SECRET}", f"ValueError: {SECRET}"
    assert SECRET in operator.get(path).text
    for page in (path, "/dead-letters/redrives"):
        for words in ({}, {"as": "json"}):
            found = viewer.get(page, **words).text
            assert SECRET not in found
            assert "NotSent" in found


@pytest.mark.parametrize(
    "path", ["worker/shutdown/w@h", "task/revoke/x", "task/send-task/tests.cli.command_tasks.Send"]
)
def test_flowers_own_writes_are_for_admins(
    admin: User, operator: User, viewer: User, shop_app: ConventionsApp, path: str
) -> None:
    """And are in the audit."""
    for user in (operator, viewer):
        answer = user.client.post(f"/api/{path}", json={})
        assert (answer.status_code, "role" in answer.text) == (403, True)
    assert untouched(shop_app)
    arguments = {"kwargs": {"user_id": 7, "day": "2026-01-05"}} if "send-task" in path else {}
    assert admin.client.post(f"/api/{path}", json=arguments).status_code in (200, 404)  # there is no such worker
    kind, verb, target = path.split("/")
    with shop_app.database.session() as session:
        (row,) = audit.listing(session, 9)
        assert (row.actor, row.action, row.target) == ("alice", f"flower {kind} {verb}", target)


def test_a_viewer_sees_no_argument_in_what_was_done(viewer: User, operator: User) -> None:
    """An edit keeps both values in the audit."""
    form = {"argument:user_id": "77", "argument:day": '"2026-01-06"', "do": "save"}
    assert operator.post(LETTER, form).status_code == 303
    assert "77" in operator.get(LETTER).text
    assert SECRET in operator.get(LETTER).text
    page = viewer.get(LETTER).text
    assert "dead-letters edit" in page
    assert SECRET not in page


def test_a_refused_start(shop: Installation) -> None:
    """An address that others reach, without a login."""
    result = shop.run("flower", "--address=0.0.0.0", "--port=0")
    assert result.returncode == 2
    assert "FLOWER_BASIC_AUTH" in result.stdout
    assert "Traceback" not in result.stdout


def test_flower_is_as_it_was(address: str, log_in: LogIn) -> None:
    """Its own pages are there, and each leads to ours."""
    user = log_in(address, "vera:v")
    for path in ("/", "/tasks", "/broker"):
        answer: httpx.Response = user.get(path)
        assert answer.status_code == 200
        for ours in ("/dead-letters", "/batches", "/schedules"):
            assert f'href="{ours}"' in answer.text


def test_logins_by_email(shop: Installation, shop_app: ConventionsApp) -> None:
    """Flower sends whoever is nobody to the provider; roles go by the address, on its pages as on ours."""
    secret = "a secret of the test"
    with (
        flower(
            shop,
            "--auth=.*@example.com",
            "--auth-provider=flower.views.auth.GithubLoginHandler",
            f"--cookie-secret={secret}",
            FLOWER_OAUTH2_KEY="key",
            FLOWER_OAUTH2_SECRET="secret",
            FLOWER_OAUTH2_REDIRECT_URI="http://127.0.0.1/login",
            CONVENTIONS_CONSOLE_ROLES='{"vera@example.com": "viewer"}',
        ) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        for path in ("/", "/tasks", "/dead-letters", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, urlsplit(answer.headers["Location"]).path) == (302, "/login"), path
        login = client.get("/login")
        assert (login.status_code, login.headers["Location"].startswith("https://github.com/")) == (302, True)
        assert login.headers["X-Frame-Options"] == "DENY"
        for user, status in (("vera@example.com", 200), ("eve@example.com", 403)):
            client.cookies.clear()
            client.cookies.set("user", create_signed_value(secret, "user", user).decode())
            for path in ("/tasks", "/dead-letters"):
                assert client.get(path).status_code == status
            answer = client.get("/api/task/result/x")
            assert (answer.status_code, "role" in answer.text) == (403, True)
    assert untouched(shop_app)
