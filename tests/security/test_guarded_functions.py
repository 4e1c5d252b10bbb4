"""What a plain function is sent with, and a task of which only the name is known: refused, said, or not looked at, as the setting says (R20)."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, shared_task, signature

from conventions import EVERY_ARGUMENT, CredentialInPayload, ImmediateTask
from conventions.app import ConventionsApp
from conventions.security import function_guard
from conventions.worker.received_credentials import refuse_received
from tests.workers import application, forget, messages

TOKEN = "xoxb-" + "123456789012-abcdefghijklmnop"
LOG = "conventions.security.function_guard"


class Known(ImmediateTask):
    """Of the application."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, note: str) -> None:
        """Nothing runs here."""


@pytest.fixture
def made(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Callable[..., Any]:
    """Makes an application with the function `send`."""

    @contextmanager
    def make(**settings: Any) -> Iterator[ConventionsApp]:
        prefix = f"t{uuid4().hex[:8]}"
        with application(
            (), broker_url=valkey_url, database_url=new_database(tmp_path), key_prefix=prefix, **settings
        ) as app:

            @app.task(name="shop.send")
            def send(user: str, password: str = "", *rest: str, **more: Any) -> None:
                """Nothing runs here."""

            @app.task(
                name="shop.turn", allowed_credentials={"page": "of a test", "rows[].token": "says where it goes on"}
            )
            def turn(page: str, rows: list[dict[str, str]] | None = None) -> None:
                """Nothing runs here."""

            @app.task(name="shop.post")
            def post(token: str, text: str = "") -> None:
                """Nothing runs here."""

            yield app
            forget(app.store)

    return make


WAYS: dict[str, tuple[str, Callable[[ConventionsApp], Any]]] = {
    "by position": ("password", lambda app: app.tasks["shop.send"].delay("ann", "hunter2")),
    "by name": ("password", lambda app: app.tasks["shop.send"].delay("ann", password="hunter2")),
    "more than its names": ("args[]", lambda app: app.tasks["shop.send"].delay("ann", "", TOKEN)),
    "within": ("options.api_key", lambda app: app.tasks["shop.send"].apply_async(("ann",), {"options": {"api_key": "abc"}})),
    "a shape": ("user", lambda app: app.tasks["shop.send"].s(f"use {TOKEN}").apply_async()),
    "send_task": ("user", lambda app: app.send_task("shop.send", (TOKEN,))),
    "a name that is not known": ("client_secret", lambda app: app.send_task("billing.charge", kwargs={"client_secret": "abc"})),
    "a step": ("user", lambda app: chain(app.tasks["shop.turn"].s("1"), app.tasks["shop.send"].si(TOKEN)).apply_async()),
    "a link": ("user", lambda app: app.tasks["shop.turn"].apply_async(("1",), link=app.tasks["shop.send"].si(TOKEN))),
    "a step that is not known": ("token", lambda app: app.tasks["shop.turn"].apply_async(("1",), link=signature("billing.charge", kwargs={"token": "abc"}, immutable=True))),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused(made: Callable[..., Any], way: str) -> None:
    """Nothing is sent; the error names the path, what else to do, and never the value."""
    path, send = WAYS[way]
    with (
        made() as app,
        pytest.raises(CredentialInPayload, match=f"{path.replace('[', chr(92) + '[')} looks like") as raised,
    ):
        send(app)
    assert TOKEN not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "CONVENTIONS_FUNCTION_CREDENTIALS=warn" in str(raised.value)
    assert messages(app) == []


@pytest.mark.parametrize("way", WAYS)
def test_it_is_said_once(made: Callable[..., Any], way: str, caplog: pytest.LogCaptureFixture) -> None:
    """And sent, for a project that comes in."""
    path, send = WAYS[way]

    function_guard._warn.cache_clear()
    with made(function_credentials="warn") as app, caplog.at_level(logging.WARNING, LOG):
        send(app)
        send(app)
        assert len(messages(app)) == 2
    (said,) = [one.message for one in caplog.records if one.name == LOG]
    assert f"the argument {path} looks like" in said
    assert TOKEN not in said


@pytest.mark.parametrize("way", WAYS)
def test_nobody_looks(made: Callable[..., Any], way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where a team has said so."""
    with made(function_credentials="ignore") as app, caplog.at_level(logging.WARNING, LOG):
        WAYS[way][1](app)
        assert len(messages(app)) == 1
    assert not [one for one in caplog.records if one.name == LOG]


def test_what_may_be_there(made: Callable[..., Any]) -> None:
    """A function says it as a class does; what is none needs no word."""
    with made() as app:
        app.tasks["shop.turn"].delay(TOKEN, rows=[{"token": "abc"}])
        app.tasks["shop.send"].delay("ann", "", 7, note=None, password_id="abc")
        app.tasks["shop.send"].delay(user=json.dumps({"a": 1}))
        assert len(messages(app)) == 3
        with pytest.raises(CredentialInPayload, match=r"rows\[\].secret looks like"):
            app.tasks["shop.turn"].delay("1", rows=[{"secret": "abc"}])


def test_a_shared_task(made: Callable[..., Any]) -> None:
    """It is a function, too."""

    @shared_task(name="shop.shared")
    def shared(api_key: str) -> None:
        """Nothing runs here."""

    with made() as app, pytest.raises(CredentialInPayload, match=r"shop\.shared: the argument api_key"):
        app.tasks["shop.shared"].delay("abc")


def test_a_step_that_takes_a_result_first(made: Callable[..., Any]) -> None:
    """Its own arguments come after that: their names are those of what follows."""
    with made() as app:
        issue, send, post = (app.tasks[f"shop.{name}"] for name in ("turn", "send", "post"))
        chain(issue.s("1"), post.s("hello")).apply_async()
        assert len(messages(app)) == 1
        with pytest.raises(CredentialInPayload, match="the argument password looks like"):
            chain(issue.s("1"), send.s("hunter2")).apply_async()
        with pytest.raises(CredentialInPayload, match="the argument token looks like"):
            chain(issue.s("1"), post.si("hello")).apply_async()


@pytest.mark.parametrize("how", ["refuse", "warn", "ignore"])
def test_a_worker_looks_at_steps_in_the_same_way(made: Callable[..., Any], how: str) -> None:
    """At those of messages that nobody has signed: it refuses none that its own senders may send."""
    step = {
        "task": "shop.send",
        "args": ["ann", "hunter2"],
        "kwargs": {},
        "options": {},
        "immutable": True,
        "subtask_type": None,
    }
    body = json.dumps([[], {"note": "pass"}, {"callbacks": [step]}]).encode()
    with made(function_credentials=how) as app:
        headers = {"task": str(Known.name), "id": "m1"}
        assert headers["task"] in app.tasks
        if how == "refuse":
            with pytest.raises(CredentialInPayload, match="the argument password looks like"):
                refuse_received(app, headers, body)
        else:
            refuse_received(app, headers, body)
