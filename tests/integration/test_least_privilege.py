"""The users of `deploy/valkey/users.acl`: the application needs no more than its own has, and a restart loses nothing (R21)."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from conventions.app import ConventionsApp
from conventions.execution.cancel import cancel
from tests.integration.rabbitmq_tasks import Fails, Holds, Items, Kept, Note
from tests.redis_servers import ROOT, free_port, process, wait_for_server
from tests.support import patient, wait_until
from tests.workers import Installation, acting_through

PASSWORD = secrets.token_hex(16)
PREFIX = "least"
PROGRAMS = {"valkey": None, "redis": shutil.which("redis-server")}


def users() -> str:
    """As `start.sh` writes them."""
    told = f"#{hashlib.sha256(PASSWORD.encode()).hexdigest()}"
    text = (ROOT / "deploy" / "valkey" / "users.acl").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("@conventions@", told).replace("@admin@", told).replace("@prefix@", PREFIX) + "\n"


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Starts a server with these users, on the data of the one before."""
    program = PROGRAMS[request.param]
    if request.param == "redis" and program is None:
        pytest.skip("no Redis is installed: apt-get install redis-server")
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    (folder / "users.acl").write_text(users(), encoding="utf-8")
    lines = (
        f"port {port}",
        "appendonly yes",
        "appendfsync always",
        "maxmemory-policy noeviction",
        f"aclfile {folder}/users.acl",
    )

    @contextmanager
    def started() -> Iterator[int]:
        with process(folder, lines, program=None if program is None else Path(program)):
            wait_for_server(folder, port, username="health", password="any")
            yield port

    return started


def admin(port: int) -> redis.Redis:
    """A person."""
    return redis.Redis(port=port, username="admin", password=PASSWORD)


def refused(port: int) -> list[tuple[str, str]]:
    """What somebody was refused: who, and what."""
    with admin(port) as client:
        return [
            (one["username"], one["object"]) for one in client.acl_log() if one["username"] != "health"
        ]  # redis-py tells its name


def test_the_application_has_all_that_it_needs(
    server: Callable[[], Any], new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """Jobs, retries, results, batches, letters, remote control, commands; nothing was refused."""
    with server() as port:
        url = f"redis://conventions:{PASSWORD}@127.0.0.1:{port}/0"
        tasks = ["tests.integration.rabbitmq_tasks"]
        settings: dict[str, Any] = {"broker_url": url, "database_url": new_database(tmp_path), "key_prefix": PREFIX}
        installation = Installation(tmp_path, tasks, **settings)
        with installation.application() as app, acting_through(app), installation.worker("--concurrency=2", "-E"):
            all_kinds(app, installation)
        assert refused(port) == []


def all_kinds(app: ConventionsApp, installation: Installation) -> None:
    """Of what an application does."""
    assert Kept.delay(1).get(timeout=patient(30)) == 1
    Fails.delay(2, 1)
    Note.enqueue_many([{"number": number} for number in range(100, 160)])
    Items.delay(5)
    held = Holds.delay(7)
    waits = Note.apply_async((8,), countdown=600)
    assert cancel(app, waits.id, "ann") == "queued"
    wait_until((installation.folder / "begun").exists, 30)
    for command in (
        ("inspect", "ping"), ("inspect", "active"), ("control", "rate_limit", Note.name, "100/m"), ("status",), ("now",), ("jobs", "list"),
        ("messages", "list"), ("pause", "queue", "long", "--reason", "x"), ("resume", "queue", "long"), ("lost",),
        ("keys", "list"), ("metrics",), ("batch", "list"), ("job", held.id), ("schedule", "list"),
    ):  # fmt: skip
        told = installation.run(*command)
        assert told.returncode in (0, 1), told.stdout
        assert "NOPERM" not in told.stdout
    (installation.folder / "go").touch()
    checked = {one["check"]: one for one in json.loads(installation.run("check", "--json").stdout)}
    assert checked["broker"]["ok"], checked
    assert checked["redis"]["ok"], checked
    wait_until(lambda: not app.broker.store.redis.exists(app.broker.store.key("inflight", "immediate")), 60)
    assert installation.run("purge", "-f").returncode == 0


def test_the_application_has_no_more(server: Callable[[], Any]) -> None:
    """Neither keys of others, nor what concerns the server; who gives no name has nothing."""
    with server() as port:
        with redis.Redis(port=port) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
        with redis.Redis(port=port, username="conventions", password=PASSWORD) as ours:
            for command in (
                "GET other",
                "KEYS *",
                "FLUSHALL",
                "CONFIG GET *",
                "ACL LIST",
                "CLIENT LIST",
                "SCRIPT FLUSH",
                "SHUTDOWN",
                "MONITOR",
            ):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    ours.execute_command(*command.split())
            with pytest.raises(redis.exceptions.ResponseError, match="permission"):
                ours.eval("return redis.call('GET', 'other')", 0)
        with redis.Redis(port=port, username="health", password="any") as health:
            assert health.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                health.get(f"{{{PREFIX}}}:x")


def test_a_restart_keeps_transactions(server: Callable[[], Any]) -> None:
    """The server reads its file as the user `default`: without rights, Redis 8.0 drops each MULTI in there."""
    key = f"{{{PREFIX}}}:kept"
    with server() as port, redis.Redis(port=port, username="conventions", password=PASSWORD) as ours:
        pipe = ours.pipeline(transaction=True)
        pipe.hset(key, "a", "b")
        pipe.sadd(f"{key}:set", "c")
        pipe.execute()
    with server() as port, redis.Redis(port=port, username="conventions", password=PASSWORD) as ours:
        assert (ours.hgetall(key), ours.smembers(f"{key}:set")) == ({b"a": b"b"}, {b"c"})
