"""What a sealed job holds is on no page, but for who reveals it, which the audit keeps (R21, R22)."""

import html
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from conventions import ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.core.named_keys import new_key
from conventions.dead_letters.edit import COMPARED
from conventions.dead_letters.sealed_letters import arguments_of
from conventions.records import audit
from conventions.storage.tables import DeadLetterRow
from tests.console.browser import faults, one, text
from tests.console.flower_process import LOGINS, ROLES, User, flower
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, wait_for_letter

CANARY = "canary-4417-9181"
WHY = "the customer asks"


class Broken(ImmediateTask):
    """Fail until it is mended."""

    sensitive = ("ssn",)
    searchable = ("order",)
    idempotent_on = ("order",)
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)

    def run(self, order: int, ssn: str) -> None:
        self.progress.advance(note=f"note {ssn}")
        logging.getLogger("mine").warning("log %s", ssn)
        if len(ssn) > 3:
            raise ValueError(f"{order} {ssn}")


class Returns(ImmediateTask):
    """Return a secret, which is kept."""

    sensitive = ("ssn",)
    not_idempotent = "it only returns"
    ignore_result = False

    def run(self, ssn: str) -> str:
        return ssn


class Found(ImmediateTask):
    """Fail; it is found by what it seals."""

    sensitive = ("patient",)
    searchable = ("patient",)
    not_idempotent = "it only fails"
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)

    def run(self, patient: str) -> None:
        raise ValueError(patient)


@pytest.fixture(scope="module")
def installation(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: pytest.TempPathFactory
) -> Installation:
    """With all keys."""
    folder = tmp_path_factory.mktemp("sealed")
    keys = {"message_keys": new_key("m"), "payload_keys": new_key("p"), "name_keys": new_key("n")}
    settings = {"broker_url": valkey_url, "database_url": new_database(folder), "key_prefix": f"t{uuid4().hex[:8]}"}
    return Installation(folder, [__name__], [Path(__file__).parent], **keys, **settings)


@pytest.fixture(scope="module")
def letter(installation: Installation) -> Iterator[tuple[ConventionsApp, str]]:
    """The application, and the id of a letter."""
    with installation.application() as app, acting_through(app):
        with installation.worker():
            sent = Broken.apply_async(kwargs={"order": 7, "ssn": CANARY}, actor="ann")
            wait_for_letter(app, sent.id)
        yield app, sent.id
        forget(app.store)


@pytest.fixture(scope="module")
def address(installation: Installation, letter: object) -> Iterator[str]:
    """A Flower that has the keys."""
    with flower(installation, FLOWER_BASIC_AUTH=LOGINS, CONVENTIONS_CONSOLE_ROLES=ROLES) as address:
        yield address


@pytest.fixture
def users(address: str) -> Iterator[Callable[[str], User]]:
    """Makes users."""
    made: list[User] = []

    def user(login: str) -> User:
        made.append(User(address, login))
        return made[-1]

    yield user
    for each in made:
        each.client.close()


def text_of(page: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def reveals(app: ConventionsApp) -> list[tuple[str, str, str | None]]:
    """Who has revealed what, and why, as the journal has it."""
    redis: Any = app.store.redis
    deeds = [json.loads(raw[b"deed"]) for _, raw in redis.xrange(app.store.key("journal")) if b"deed" in raw]
    return [(one["actor"], one["target"], one["reason"]) for one in deeds if one["action"] == "reveal"]


def test_no_page_shows_it(letter: tuple[ConventionsApp, str], users: Callable[[str], User]) -> None:
    """To nobody, in no list, in no form."""
    _, id_ = letter
    for login in ("alice:a", "oscar:o", "vera:v"):
        user = users(login)
        for path in (f"/jobs/{id_}", f"/dead-letters/letters/{id_}", "/jobs", "/dead-letters", "/audit", "/"):
            page = user.get(path)
            assert page.status_code == 200, path
            assert CANARY not in page.text, path
    shown = text_of(users("oscar:o").get(f"/dead-letters/letters/{id_}").text)
    assert "They are sealed." in shown
    assert "Reveal" in shown
    assert "Reveal" not in text_of(users("vera:v").get(f"/dead-letters/letters/{id_}").text)


@pytest.mark.parametrize("path", ["/jobs/{}", "/dead-letters/letters/{}"])
def test_who_reveals_it_is_in_the_audit(
    letter: tuple[ConventionsApp, str], users: Callable[[str], User], path: str
) -> None:
    """An operator, who says why, and sees it once."""
    app, id_ = letter
    user, at = users("oscar:o"), path.format(id_)
    before = len(reveals(app))
    silent = user.post(f"{at}/reveal", {"reason": ""})
    assert (silent.status_code, CANARY in silent.text) == (422, False)
    refused = users("vera:v").post(f"{at}/reveal", {"reason": WHY})
    assert (refused.status_code, CANARY in refused.text) == (403, False)
    shown = user.post(f"{at}/reveal", {"reason": WHY})
    assert (shown.status_code, CANARY in shown.text) == (200, True)
    assert CANARY not in user.get(at).text
    assert reveals(app)[before:] == [("oscar", id_, WHY)]


def test_it_is_edited_where_it_was_revealed(letter: tuple[ConventionsApp, str], users: Callable[[str], User]) -> None:
    """The form has the values; what is written there is sealed again, and a mistake is told without them."""
    app, id_ = letter
    user, at = users("oscar:o"), f"/dead-letters/letters/{id_}"
    page = user.post(f"{at}/reveal", {"reason": WHY}).text
    (version,) = re.findall(r'name="version" value="(\w+)"', page)
    wrong = user.post(at, {"argument:order": "x", "argument:ssn": CANARY, "version": version, "do": "save"})
    assert wrong.status_code == 422
    assert "order" in text_of(wrong.text)
    assert CANARY not in wrong.text
    saved = user.post(at, {"argument:order": "8", "argument:ssn": CANARY, "version": version, "do": "save"})
    assert saved.status_code == 303, text_of(saved.text)
    assert CANARY not in str(wait_for_letter(app, id_).message)
    for order, found in ((7, False), (8, True)):
        leads_to = user.post("/search/dead-letters", {"arg": f"order={order}"}).headers["location"]
        assert (id_ in user.get(leads_to).text) is found
    refused = user.get("/dead-letters", arg=f"ssn={CANARY}")
    assert refused.status_code == 400
    assert "ssn is sensitive" in text_of(refused.text)


def test_no_address_has_what_is_looked_for(
    letter: tuple[ConventionsApp, str], users: Callable[[str], User], installation: Installation
) -> None:
    """A form takes it, and leads to an address with a code of it. So it is in no log, no history, and in no link of the page."""
    app, _ = letter
    with installation.worker():
        sent = Found.delay(patient=CANARY)
        wait_for_letter(app, sent.id)
    later = Found.apply_async(kwargs={"patient": CANARY}, countdown=3600)
    user = users("oscar:o")
    lists = {}
    for part, form, id_ in (
        ("dead-letters", {"arg": f"patient={CANARY}", "task": "Found"}, sent.id),
        ("jobs", {"arg": f"patient={CANARY}"}, later.id),
        ("jobs", {"q": f"patient={CANARY}"}, later.id),
    ):
        address = user.post(f"/search/{part}", form).headers["location"]
        page = user.get(address)
        assert (page.status_code, id_ in page.text) == (200, True)
        assert CANARY not in f"{address} {page.text}"
        again = user.post(f"/search/{part}", {"arg": parse_qs(urlsplit(address).query)["arg"][0]}).headers["location"]
        assert id_ in user.get(again).text
        lists[part] = address
    assert sent.id not in user.get(user.post("/search/jobs", {"arg": f"patient={CANARY}2"}).headers["location"]).text
    selected = user.get(lists["dead-letters"].replace("/dead-letters?", "/dead-letters/redrive?"))
    assert (selected.status_code, "Send 1 dead letter again" in text_of(selected.text)) == (200, True), text_of(
        selected.text
    )
    by_hand = user.get("/jobs", q=f"patient={CANARY}-2")
    assert (by_hand.status_code, "location" in by_hand.headers) == (400, False)
    (log,) = installation.folder.glob("flower-*.log")
    assert CANARY not in log.read_text(encoding="utf-8")
    for part in ("dead-letters", "jobs"):
        for name in ("patient", "patient "):
            refused = user.get(f"/{part}", arg=f"{name}={CANARY}")
            assert (refused.status_code, "type it into the search" in text_of(refused.text)) == (400, True)
        for argument, why in (
            (f"ssn={CANARY}", "ssn is sensitive, and no class says that it is searchable"),
            (f"ssn ={CANARY}", "ssn is sensitive"),
            (f"patien={CANARY}", "no task here takes an argument patien (did you mean patient?)"),
            (CANARY, "write it like user_id=7"),
        ):
            fault = user.post(f"/search/{part}", {"arg": argument})
            assert (fault.status_code, "location" in fault.headers) == (400, False)
            assert why in text_of(fault.text)
        spaced = user.post(f"/search/{part}", {"arg": f" patient ={CANARY}"}).headers["location"]
        assert lists[part].partition("?")[2].partition("&")[0] == spaced.partition("?")[2]
        assert users("vera:v").post(f"/search/{part}", {"arg": f"patient={CANARY}"}).status_code == 403


@pytest.mark.parametrize("part", ["jobs", "dead-letters"])
def test_no_other_field_leads_to_such_an_address(users: Callable[[str], User], part: str) -> None:
    """Somebody writes the argument into it; or what was sent has fields that no page has."""
    user = users("oscar:o")
    written, wide = f"patient={CANARY}", f" patient ＝{CANARY}"
    for form, why in (
        ({"task": written}, "patient is an argument: write it into the field Argument"),
        ({"task": wide}, "patient is an argument"),
        ({"queue": f"ssn={CANARY}"}, "ssn is an argument"),
        ({"task": "Found", "ARG": written}, "there is no filter of this name"),
        ({written: "1"}, "there is no filter of this name"),
    ):
        fault = user.post(f"/search/{part}", form)
        assert (fault.status_code, "location" in fault.headers) == (400, False)
        assert why in text_of(fault.text)
    allowed = user.post(f"/search/{part}", {"task": "zone=7", "queue": "a=b"}).headers["location"]
    assert parse_qs(urlsplit(allowed).query) == {"task": ["zone=7"], "queue": ["a=b"]}
    assert user.get(f"/{part}", arg=f"patien={CANARY}").status_code == 400


def test_an_argument_is_found_as_people_write_it(
    letter: tuple[ConventionsApp, str], users: Callable[[str], User]
) -> None:
    """With blanks, or the wide sign of a Japanese keyboard. What is refused stands in its field."""
    sent = Found.apply_async(kwargs={"patient": CANARY}, countdown=3600)
    user = users("oscar:o")
    for form in (
        {"q": f"patient＝{CANARY}"},
        {"arg": f"patient＝{CANARY}"},
        {"arg": f"patient = {CANARY} "},
    ):
        found = user.post("/search/jobs", form).headers["location"]
        assert sent.id[:8] in user.get(found).text
    assert 'name="arg" value="patien=7"' in user.post("/search/jobs", {"q": "patien=7"}).text
    two = user.post_bytes("/search/dead-letters", b"arg=zz%3D1&arg=order%3D7").text
    assert ('value="zz=1"' in two, 'value="order=7"' in two) == (True, True)
    both = user.post_bytes("/search/jobs", f"arg=patient%3D{CANARY}&arg=order%3D7".encode()).headers["location"]
    refused = user.get(both)
    assert (refused.status_code, "name one" in text_of(refused.text)) == (400, True)


def test_what_is_refused_is_in_no_log(
    letter: tuple[ConventionsApp, str], users: Callable[[str], User], installation: Installation
) -> None:
    """Whoever sent it is told."""
    user = users("oscar:o")
    for path, form, why in (
        ("/search/jobs", f"arg=patient%3D{CANARY}-3%FC", "not UTF-8"),
        (f"/dead-letters/letters/{letter[1]}", f"argument:ssn={CANARY}-3%FC", "not UTF-8"),
        ("/dead-letters/redrive", f"arg={CANARY}-3", "write it like user_id=7"),
    ):
        fault = user.post_bytes(path, form.encode())
        assert (fault.status_code, why in text_of(fault.text)) == (400, True), path
    (log,) = installation.folder.glob("flower-*.log")
    assert f"{CANARY}-3" not in log.read_text(encoding="utf-8")


def test_what_is_typed_into_the_filter_is_in_no_address(
    letter: tuple[ConventionsApp, str], address: str, browser: Chrome
) -> None:
    """The list follows the keys, but an argument is looked for when it is whole, and the address has a code of it."""
    later = Found.apply_async(kwargs={"patient": CANARY}, countdown=3600)
    parts = urlsplit(address)
    browser.get(f"{parts.scheme}://oscar:o@{parts.netloc}/jobs")
    one(browser, "input[name=arg]").send_keys(f"patien={CANARY}", Keys.TAB)
    wait_until(lambda: "did you mean patient?" in text(browser, "[role=alert]"), 20, "a mistyped one is refused")
    assert browser.current_url.endswith("/jobs")
    one(browser, "input[name=arg]").clear()
    one(browser, "input[name=arg]").send_keys(f"patient={CANARY}", Keys.TAB)
    wait_until(
        lambda: "code%3A" in browser.current_url and later.id[:8] in text(browser, ".conventions-jobs"),
        20,
        "it is found",
    )
    assert CANARY not in browser.current_url
    browser.refresh()
    assert later.id[:8] in text(browser, ".conventions-jobs")
    assert CANARY not in browser.page_source
    (refused,) = faults(browser)
    assert "/search/jobs" in refused


def test_flowers_own_api_shows_no_result(
    letter: tuple[ConventionsApp, str], installation: Installation, users: Callable[[str], User]
) -> None:
    """Flower has the keys, and asks nobody why."""
    with installation.worker():
        sent = Returns.delay(ssn=CANARY)
        assert sent.get(timeout=30) == CANARY
    for login in ("alice:a", "oscar:o"):
        told = users(login).get(f"/api/task/result/{sent.id}")
        assert (told.status_code, sent.id in told.text) == (200, True), told.text
        assert CANARY not in told.text
    assert letter


def test_a_guess_is_in_the_audit(letter: tuple[ConventionsApp, str], users: Callable[[str], User]) -> None:
    """Who types what is there learns that it is there."""
    app, id_ = letter
    user, at = users("oscar:o"), f"/dead-letters/letters/{id_}"
    with app.database.session() as session:
        there = arguments_of(app, session.get_one(DeadLetterRow, id_))
    guess = {"argument:order": str(there["order"]), "argument:ssn": there["ssn"], "do": "save"}
    assert user.post(at, guess).status_code == 303
    with app.database.session() as session:
        assert COMPARED in [one.action for one in audit.listing(session, 9, target=id_)]


def test_the_commands_show_it_to_nobody_else(letter: tuple[ConventionsApp, str], installation: Installation) -> None:
    """Without a reason nothing is revealed; each reveal is in the audit."""
    app, id_ = letter
    for command in (("job", id_, "--logs"), ("dead-letters", "show", id_), ("audit", "list"), ("jobs", "list")):
        told = installation.run(*command)
        assert told.returncode == 0, told.stdout
        assert CANARY not in told.stdout, command
    before = len(reveals(app))
    for command in (("job", id_, "--logs"), ("dead-letters", "show", id_)):
        refused = installation.run(*command, "--reveal")
        assert (refused.returncode, "--reason" in refused.stdout) == (2, True)
        told = installation.run(*command, "--reveal", "--reason", WHY, "--actor", "bob")
        assert told.returncode == 0, told.stdout
        assert CANARY in told.stdout
    assert reveals(app)[before:] == [("bob", id_, WHY)] * 2
    installation_without = {**installation.settings, "payload_keys": None}
    kept, installation.settings = installation.settings, installation_without
    try:
        closed: Any = installation.run("dead-letters", "show", id_, "--reveal", "--reason", WHY)
    finally:
        installation.settings = kept
    assert (closed.returncode, "CONVENTIONS_PAYLOAD_KEYS" in closed.stdout) == (2, True), closed.stdout
    assert len(reveals(app)) == before + 2
