"""What `check` sees around an application, and of what waits before a deploy (R16, R21)."""

import json
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.cli.check import check
from conventions.cli.checks import surroundings
from conventions.core.named_keys import new_key
from conventions.storage.tables import DeadLetterRow
from tests.cli.command_tasks import Charge, Import, Send
from tests.cli.conftest import Run
from tests.redis_servers import free_port, process, wait_for_server
from tests.workers import application


def broken(run: Run, app: ConventionsApp) -> dict[str, tuple[str, str]]:
    """What is wrong with an application, by check: why, and what to do."""
    found = json.loads(run(check, "--json", app=app).stdout)
    return {one["check"]: (one["fault"], one["fix"]) for one in found if not one["ok"]}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only variables that exist, and a folder without `.env`."""
    for name in list(os.environ):
        if name.startswith("CONVENTIONS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_a_variable_that_nobody_reads(
    run: Run, commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the environment, in `.env`, and among the files of secrets."""
    assert "variables" not in broken(run, commands_app)
    monkeypatch.setenv("CONVENTIONS_CONCURENCY", "7")
    (tmp_path / ".env").write_text("CONVENTIONS_LEESE=8\nOTHER=1\n")
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "conventions_mesage_keys").write_text("x")
    monkeypatch.setenv("CONVENTIONS_SECRETS_DIR", str(folder))
    fault, fix = broken(run, commands_app)["variables"]
    assert "CONVENTIONS_CONCURENCY (did you mean CONVENTIONS_CONCURRENCY" in fault
    assert "CONVENTIONS_LEESE (did you mean CONVENTIONS_LEASE" in fault
    assert "CONVENTIONS_MESAGE_KEYS (did you mean CONVENTIONS_MESSAGE_KEYS" in fault
    assert "correct" in fix


def test_a_clock_that_differs(run: Run, commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """By more than two seconds, whichever way."""
    assert "clocks" not in broken(run, commands_app)
    for skew in (-3, 3):
        now = time.time
        monkeypatch.setattr(surroundings, "now", lambda now=now, skew=skew: now() - skew)
        fault, fix = broken(run, commands_app)["clocks"]
        assert f"CONVENTIONS_BROKER_URL: {skew:+d}." in fault
        assert "NTP" in fix


@pytest.fixture
def open_server(tmp_path: Path) -> Iterator[str]:
    """A server that lets in who has no password, and who has this one."""
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    (folder / "users.acl").write_text("user default on nopass ~* &* +@all\nuser mine on >k3-long-enough ~* &* +@all\n")
    lines = [f"port {port}", "appendonly yes", "maxmemory-policy noeviction", f"aclfile {folder}/users.acl"]
    with process(folder, lines):
        wait_for_server(folder, port)
        yield f"redis://mine:k3-long-enough@127.0.0.1:{port}/0"


def test_a_server_that_lets_everybody_in(run: Run, open_server: str, tmp_path: Path) -> None:
    """In production. What is asked there is asked once, and changes nothing."""
    settings: dict[str, Any] = {"broker_url": open_server, "database_url": f"sqlite:///{tmp_path}/x.sqlite3"}
    settings |= {"message_keys": new_key("m")}
    with application(["tests.cli.command_tasks"], environment="production", **settings) as app:
        app.database.upgrade()
        fault, fix = broken(run, app)["logins"]
        assert fault == "who has no password is let in at the server of CONVENTIONS_BROKER_URL"
        assert "users.acl" in fix
    with application(["tests.cli.command_tasks"], **settings) as app:
        assert "logins" not in broken(run, app)


def test_messages_of_a_key_that_is_gone(run: Run, commands_app: ConventionsApp) -> None:
    """It is named, with how many wait."""
    settings = {name: getattr(commands_app.settings, name) for name in ("broker_url", "key_prefix", "database_url")}
    old, new = new_key("old"), new_key("new")
    with application(["tests.cli.command_tasks"], message_keys=old, **settings):
        Send.delay(user_id=1, day=date(2026, 1, 5))
    with application(["tests.cli.command_tasks"], message_keys=new, **settings) as app:
        fault, fix = broken(run, app)["keys"]
        assert fault.endswith("which are not here: old (1)")
        assert "CONVENTIONS_MESSAGE_KEYS" in fix
    with application(["tests.cli.command_tasks"], message_keys=f"{new},{old}", **settings) as app:
        assert "keys" not in broken(run, app)


# contracts


def misfits(run: Run) -> list[tuple[str, str, str, int]]:
    """What does not fit: where, which task, why, how many."""
    found = run(check, "--contracts", "--json")
    rows: list[dict[str, Any]] = json.loads(found.stdout)
    assert found.exit_code == (1 if rows else 0)
    return sorted((one["where"], one["task"], one["fault"], one["payloads"]) for one in rows)


def test_all_fits(run: Run, commands_app: ConventionsApp, bury: Any) -> None:
    """What this code has sent, wherever it is; how much was looked at is said. A letter of what was no message of a task is left out."""
    bury("d1", task=None, arguments=None)
    Send.delay(user_id=1, day=date(2026, 1, 5))
    Send.apply_async(kwargs={"user_id": 2, "day": "2026-01-05"}, countdown=600)
    Import.delay(path="x")
    chain(Charge.si(order_id=1), Send.si(user_id=3, day=date(2026, 1, 5))).apply_async()
    with commands_app.database.session() as session:
        Charge.enqueue_in(session, order_id=1)
    assert misfits(run) == []
    told = run(check, "--contracts")
    assert (told.exit_code, told.stdout) == (0, "")
    assert "5 payloads were looked at, 0 do not fit this code" in told.stderr


def test_what_does_not_fit(run: Run, commands_app: ConventionsApp, bury: Any) -> None:
    """After a change of signatures and names: where it is, which argument, how many; no value is told."""
    for number in (1, 2, 3):
        Send.delay(user_id=number, day=date(2026, 1, 5))
    Send.apply_async(kwargs={"user_id": 2, "day": "2026-01-05"}, countdown=600)
    chain(Charge.si(order_id=1), Send.si(user_id=3, day=date(2026, 1, 5))).apply_async()
    commands_app.send_task("gone.Task", kwargs={"x": 1})
    commands_app.send_task("tests.cli.test_check_surroundings.count", kwargs={"words": "secret"})
    with commands_app.database.session() as session:
        Send.enqueue_in(session, user_id=1, day=date(2026, 1, 5))
    bury("d1", arguments={"user_id": "secret", "day": "2026-01-05"})
    bury("d2", task=Charge.name, arguments={"order_id": 1, "colour": "secret"})

    class Changed(ImmediateTask):
        """It takes another argument."""

        queue_name = "mail"
        idempotent_on = ("user_id",)

        def run(self, user_id: int, day: date, kind: str) -> None: ...

    commands_app.tasks[Send.name] = Changed()

    @commands_app.task(name="tests.cli.test_check_surroundings.count")
    def words(text: str) -> str:
        return text

    assert words
    try:
        found = misfits(run)
        text = run(check, "--contracts").stdout
    finally:
        commands_app.tasks.pop("tests.cli.test_check_surroundings.count", None)
    name, count = Send.name, "tests.cli.test_check_surroundings.count"
    assert ("queue mail", name, "missing kind", 3) in found
    assert ("delayed in mail", name, "missing kind", 1) in found
    assert ("outbox", name, "missing kind", 1) in found
    assert ("dead letters", name, "missing kind", 1) in found
    assert ("dead letters", Charge.name, "unknown", 1) in found
    assert any(one[1:] == (Charge.name, f"missing kind of {name}, which follows", 1) for one in found)
    assert any(one[1:] == ("gone.Task", "no such task", 1) for one in found)
    assert any(one[1] == count and "unexpected keyword" in one[2] for one in found)
    assert "secret" not in text


def test_sealed_payloads_without_their_key(run: Run, commands_app: ConventionsApp) -> None:
    """They are counted, and not called wrong."""
    settings = {name: getattr(commands_app.settings, name) for name in ("broker_url", "key_prefix", "database_url")}
    keys = {"payload_keys": new_key("p"), "name_keys": new_key("n"), "seal_payloads": "all"}
    with application(["tests.cli.command_tasks"], **keys, **settings) as app:
        Send.delay(user_id=1, day=date(2026, 1, 5))
        told = run(check, "--contracts", app=app)
        assert "1 payloads were looked at" in told.stderr
    told = run(check, "--contracts")
    assert told.exit_code == 0
    assert "1 sealed payloads were not opened" in told.stderr


def test_there_is_nothing_that_it_changes(run: Run, commands_app: ConventionsApp, bury: Any) -> None:
    """Neither in Redis nor in SQL."""
    bury("d1")
    Send.delay(user_id=1, day=date(2026, 1, 5))
    redis: Any = commands_app.store.redis
    before = {name: redis.dump(name) for name in redis.keys(commands_app.store.key("*"))}
    run(check, "--contracts")
    assert {name: redis.dump(name) for name in redis.keys(commands_app.store.key("*"))} == before
    with commands_app.database.session() as session:
        assert session.get_one(DeadLetterRow, "d1").state == "dead"
