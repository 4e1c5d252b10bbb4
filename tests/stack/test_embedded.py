"""The embedded server: where it answers, what it keeps, and how it ends."""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from conventions.stack.embedded import SOCKET_PATH_LIMIT, EmbeddedServer, prepare
from tests.support import patient, wait_until


@contextmanager
def started(server: EmbeddedServer) -> Iterator[subprocess.Popen[bytes]]:
    """The server in its own process, ready, and stopped at the end."""
    process = subprocess.Popen(server.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert server.wait_until_ready(lambda: process.poll() is None, timeout=10)
        yield process
    finally:
        process.terminate()
        process.communicate()


def client(server: EmbeddedServer) -> redis.Redis:
    """A client at the published address."""
    return redis.Redis.from_url(server.redis_url)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder with a short path, as a project's folder has it."""
    path = Path("/tmp") / f"embedded-{os.getpid()}"  # short is the point
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


def test_the_server_listens_on_its_socket_alone(folder: Path) -> None:
    """It answers in the private folder, without any port."""
    server = prepare(folder)
    assert server.socket == folder / "valkey.sock"
    with started(server) as process, client(server) as redis_client:
        assert redis_client.ping()
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        (valkey,) = psutil.Process(process.pid).children()
        assert valkey.net_connections(kind="inet") == []


def test_what_was_written_is_there_after_a_restart(folder: Path) -> None:
    """The append-only file keeps the data, and nothing is ever evicted."""
    server = prepare(folder)
    with started(server), client(server) as redis_client:
        redis_client.set("a", "1")
        assert redis_client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with started(server), client(server) as redis_client:
        assert redis_client.get("a") == b"1"


def test_a_truncated_append_only_file_does_not_stop_the_start(folder: Path) -> None:
    """After a kill in the middle of a write all whole commands are there."""
    server = prepare(folder)
    with started(server), client(server) as redis_client:
        redis_client.set("whole", "1")
        redis_client.set("cut", "2")
    (incremental,) = (server.data / "appendonlydir").glob("*.incr.aof")
    incremental.write_bytes(incremental.read_bytes()[:-3])
    with started(server), client(server) as redis_client:
        assert redis_client.get("whole") == b"1"
        assert redis_client.get("cut") is None


@pytest.mark.parametrize("name", ["x" * SOCKET_PATH_LIMIT, "a folder with blanks", "フォルダ"])
def test_a_folder_that_no_socket_can_lie_in_gets_one_elsewhere(tmp_path: Path, name: str) -> None:
    """The socket goes to a fresh private folder; the data stays where it belongs."""
    (tmp_path / name).mkdir()
    server = prepare(tmp_path / name)
    assert server.data == tmp_path / name / "valkey"
    assert len(str(server.socket)) <= SOCKET_PATH_LIMIT
    assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
    with started(server), client(server) as redis_client:
        assert redis_client.set("a", "1")
    server.socket.parent.rmdir()
    assert (server.data / "appendonlydir").is_dir()


def test_a_server_that_lost_its_parent_is_replaced(folder: Path) -> None:
    """When only the process that watches the server is killed, the next start ends the orphan and keeps its data."""
    server = prepare(folder)
    with started(server) as process, client(server) as redis_client:
        redis_client.set("a", "1")
        (orphan,) = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        assert orphan.is_running()
    with started(server), client(server) as redis_client:
        assert redis_client.get("a") == b"1"
        wait_until(
            lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, description="orphan ended"
        )


def test_a_server_that_dies_ends_its_process_with_the_reason(folder: Path) -> None:
    """The watching process ends with status 1 and names the log, so that the supervisor starts it again."""
    server = prepare(folder)
    process = subprocess.Popen(server.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert server.wait_until_ready(lambda: process.poll() is None, timeout=10)
    (valkey,) = psutil.Process(process.pid).children()
    valkey.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=patient(5))
    assert process.returncode == 1
    assert "valkey.log" in output.decode()


def test_a_server_that_cannot_start_is_not_waited_for(folder: Path) -> None:
    """`wait_until_ready` ends with False as soon as the process has ended."""
    server = prepare(folder)
    process = subprocess.Popen(["false"])
    assert not server.wait_until_ready(lambda: process.poll() is None, timeout=10)
