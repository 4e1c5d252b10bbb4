"""Redis servers that would lose what they are given: refused, warned of, or waited for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.server_checks import evicting_servers, servers_without_aof
from conventions.storage.redis_store import Store
from tests.redis_servers import free_port, process, wait_for_server
from tests.workers import Installation, messages, wait_for_letter, wait_until_empty


class Fails(ImmediateTask):
    """Become a dead letter."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        raise BusinessError(f"no {number}")


class Works(ImmediateTask):
    """Succeed."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


SECRET = "k3-long-enough"  # production asks for one
SENDS: dict[str, Callable[[ConventionsApp], Any]] = {
    "failure": lambda _: Fails.delay(1),
    "success": lambda _: Works.delay(1),
    "refusal": lambda app: app.send_task("no.such.task", queue="immediate"),
}


@contextmanager
def server(folder: Path, *lines: str) -> Iterator[str]:
    """The address of a server with these lines of configuration."""
    port = free_port()
    with process(folder, [f"port {port}", f"requirepass {SECRET}", *lines]):
        wait_for_server(folder, port, password=SECRET)
        yield f"redis://:{SECRET}@127.0.0.1:{port}/0"


def installed(folder: Path, new_database: Callable[[Path], str], **settings: Any) -> Installation:
    """An application with a database of its own."""
    return Installation(
        folder, [__name__], [Path(__file__).parent], database_url=new_database(folder), unknown_task_wait=0, **settings
    )


def test_a_worker_refuses_a_server_that_evicts(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """In production, with status 2, one line that says what to do, and the message untouched."""
    with server(tmp_path / "server", "maxmemory-policy allkeys-lru", "maxmemory 100mb", "appendonly yes") as url:
        installation = installed(tmp_path, new_database, broker_url=url, environment="production")
        with installation.application() as app:
            sent = Fails.delay(1)
            ended = installation.run("worker", "--concurrency=1")
            assert ended.returncode == 2, ended.stdout
            assert "set it to noeviction" in ended.stdout
            assert "Traceback" not in ended.stdout
            assert [one.id for one in messages(app)] == [sent.id]
            assert evicting_servers(app.port, app.store)
            assert servers_without_aof(app.port, app.store) == []


def test_a_worker_warns_of_a_server_without_a_file(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """It works all the same: some offers of a hosted Redis have none."""
    with server(tmp_path / "server", "appendonly no") as url:
        installation = installed(tmp_path, new_database, broker_url=url, environment="production")
        with installation.application() as app, installation.worker("--concurrency=1") as worker:
            wait_for_letter(app, Fails.delay(1).id)
            assert "set appendonly yes" in worker.output


def test_a_worker_in_development_takes_any_server(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """Only production is held to it; `check` tells of it everywhere."""
    with server(tmp_path / "server", "maxmemory-policy allkeys-lru", "appendonly yes") as url:
        installation = installed(tmp_path, new_database, broker_url=url)
        with installation.application() as app, installation.worker("--concurrency=1"):
            wait_for_letter(app, Fails.delay(1).id)
        checked = installation.run("check")
        assert checked.returncode == 1
        assert "set it to noeviction" in " ".join(checked.stdout.split())


def test_waiting_for_the_disk_waits(tmp_path: Path) -> None:
    """Also for what other connections wrote; a disk that takes nothing is a fault, and no file is none."""
    with server(tmp_path / "slow", "appendonly yes", "appendfsync no") as url:
        store = Store(url, "t")
        with pytest.raises(redis.TimeoutError, match="disk"):
            store.wait_for_disk(timeout=0.1)
        store.redis.config_set("appendfsync", "always")
        store.wait_for_disk()
        assert 0 < store.redis.pttl(store.key("disk")) <= 60_000
        store.redis.close()
    with server(tmp_path / "none", "appendonly no") as url:
        store = Store(url, "t")
        store.wait_for_disk()
        store.redis.close()


@pytest.mark.parametrize("setting", ["true", "false"])
@pytest.mark.parametrize("send", SENDS)
def test_the_message_waits_for_the_disk_of_the_other_server(
    tmp_path: Path, new_database: Callable[[Path], str], send: str, setting: str
) -> None:
    """A dead letter always, other outcomes by the setting: as long as the disk takes nothing, the message is there."""
    waits = setting == "true" or send != "success"
    with server(tmp_path / "broker", "appendonly yes") as broker, server(tmp_path / "store", "appendonly yes") as store:
        installation = installed(tmp_path, new_database, broker_url=broker, redis_url=store, wait_for_disk=setting)
        with installation.application() as app, installation.worker("--concurrency=1") as worker:
            app.store.redis.config_set("appendfsync", "no")
            sent = SENDS[send](app)
            if waits:
                worker.wait_for("not on the disk")
                assert [one.id for one in messages(app)] == [sent.id]
                app.store.redis.config_set("appendfsync", "always")
            wait_until_empty(app)
            assert ("not on the disk" in worker.output) == waits
