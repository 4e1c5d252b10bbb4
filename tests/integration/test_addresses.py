"""Each kind of address with real servers: broker, store, results, schedule and remote control of one application."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from kombu.exceptions import OperationalError
from redbeat.schedulers import get_redis

from conventions import EVERY_ARGUMENT, ImmediateTask, ScheduledTask
from conventions.app import ConventionsApp
from conventions.core.errors import BrokerUnavailable
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule
from conventions.storage.redis_store import Store, one_server
from tests.redis_servers import (
    PASSWORD,
    Certificates,
    Group,
    certificates,
    free_port,
    process,
    sentinel_group,
    tls_endpoint,
    tls_server,
    wait_for_server,
)
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, application

APPLICATION = f"""\
from conventions import create_app

app = create_app("tests", packages=["{__name__}"], schedule="{__name__}:SCHEDULE")
"""


class Where(ImmediateTask):
    """Tell the worker's main process."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:  # noqa: ARG002  # makes each job one of its own
        return os.getppid()


class Note(ScheduledTask):
    """Note in Redis that a slot has run."""

    def run(self) -> None:
        self.app.store.redis.incr(self.app.store.key("noted"))


SCHEDULE = [Schedule("often", every(1), Note, {})]


@dataclass(frozen=True)
class Site:
    """An application at one address, with its worker and its beat."""

    installation: Installation
    app: ConventionsApp
    worker: Worker
    beat: Worker

    def works(self, number: int) -> None:
        """A job runs in this worker and gives its result back, a slot runs, and the worker answers to a ping."""
        assert Where.delay(number).get(timeout=patient(30)) == self.worker.process.pid, self.worker.output
        before = self.noted
        try:
            wait_until(lambda: self.noted > before, 30, "a slot ran")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.beat.output}\n{self.worker.output}") from error
        # Named, so that the command ends with the answer. Again, since a worker that connects anew hears no call.
        ping = ("inspect", "ping", "--timeout=3", f"--destination=worker0@{socket.gethostname()}")
        wait_until(lambda: "pong" in self.installation.run(*ping).stdout, 30, "the worker answers")

    @property
    def noted(self) -> int:
        """How many slots have run."""
        found: bytes | None = self.app.store.redis.get(self.app.store.key("noted"))  # type: ignore[assignment]  # redis-py types sync and async as one
        return int(found or 0)


@pytest.fixture
def site(new_database: Callable[[Path], str], tmp_path: Path) -> Callable[..., AbstractContextManager[Site]]:
    """Run an application at these addresses."""

    @contextmanager
    def run(**addresses: str) -> Iterator[Site]:
        settings = addresses | {"database_url": new_database(tmp_path)}
        installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
        (tmp_path / "installed.py").write_text(APPLICATION, encoding="utf-8")
        with installation.application() as app, installation.worker("-c", "1") as worker:
            beat = Worker(installation, installation.celery("beat", "--loglevel=INFO"), {})
            try:
                yield Site(installation, app, worker, beat)
                assert beat.process.poll() is None, beat.output
            finally:
                beat.kill()

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority, and a certificate of the server at 127.0.0.1."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_port(valkey_url: str, files: Certificates) -> Iterator[int]:
    """A port at which the shared server speaks TLS."""
    with tls_endpoint(Path(Store(valkey_url, "t").address.path), files) as port:
        yield port


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A master with its replica and two Sentinels."""
    with sentinel_group(tmp_path_factory.mktemp("g")) as group:
        yield group


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_port_with_a_password(scheme: str, site: Callable[..., AbstractContextManager[Site]], tmp_path: Path) -> None:
    """`redis://`, and Valkey's way to write the same."""
    port = free_port()
    with process(tmp_path / "server", [f"port {port}", f"requirepass {PASSWORD}"]):
        wait_for_server(tmp_path / "server", port, password=PASSWORD)
        with site(broker_url=f"{scheme}://:pass%2Fword%40@127.0.0.1:{port}/2") as running:
            running.works(1)


def test_unix_sockets(site: Callable[..., AbstractContextManager[Site]], valkey_url: str, tmp_path: Path) -> None:
    """`redis+socket://` for the broker, `unix://` for the store, which is another server."""
    with process(tmp_path / "broker", ["port 0", f"unixsocket {tmp_path / 's'}", "requirepass word"]):
        broker_url = f"redis+socket://:word@{tmp_path / 's'}?virtual_host=1"
        with site(broker_url=broker_url, redis_url=valkey_url) as running:
            running.works(1)
            assert not one_server(Store(broker_url, "t"), running.app.store)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls(
    scheme: str, site: Callable[..., AbstractContextManager[Site]], tls_port: int, files: Certificates
) -> None:
    """With an authority of one's own, everywhere."""
    with site(broker_url=f"{scheme}://127.0.0.1:{tls_port}/1?ssl_ca_certs={files.authority}") as running:
        running.works(1)


def test_a_server_with_tls_of_its_own(
    site: Callable[..., AbstractContextManager[Site]], files: Certificates, tmp_path: Path
) -> None:
    """Where one is installed."""
    with (
        tls_server(tmp_path / "server", files) as port,
        site(broker_url=f"rediss://127.0.0.1:{port}/1?ssl_ca_certs={files.authority}") as running,
    ):
        running.works(1)


def test_a_server_that_cannot_prove_itself_is_not_spoken_to(tls_port: int, files: Certificates) -> None:
    """An unknown authority, or a certificate of another host: no send, no result, no claim, no schedule."""
    for address in (f"rediss://127.0.0.1:{tls_port}", f"rediss://localhost:{tls_port}?ssl_ca_certs={files.authority}"):
        with application(broker_url=address, database_url="sqlite://", broker_timeout=1) as app:
            with pytest.raises(redis.ConnectionError):
                app.store.redis.ping()
            with pytest.raises(redis.ConnectionError):
                app.backend.client.ping()
            with pytest.raises(redis.ConnectionError):
                get_redis(app).ping()
            with pytest.raises(OperationalError), app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0)
            with pytest.raises(BrokerUnavailable):
                Where.delay(1)


def test_a_server_need_not_prove_itself_where_it_is_told_so(tls_port: int) -> None:
    """`ssl_cert_reqs=none`, outside of production."""
    address = f"rediss://127.0.0.1:{tls_port}?ssl_cert_reqs=none"
    with application(broker_url=address, database_url="sqlite://") as app, app.connection_for_write() as connection:
        assert app.store.redis.ping()
        assert app.backend.client.ping()
        assert get_redis(app).ping()
        assert connection.default_channel.client.ping()


def test_sentinels_and_a_fail_over(site: Callable[..., AbstractContextManager[Site]], group: Group) -> None:
    """After the replica became the master, the same processes go on."""
    with site(broker_url=group.address) as running:
        running.works(1)
        held = running.app.store.redis.info("server")["run_id"]
        group.fail_over()
        running.works(2)
        assert running.app.store.redis.info("server")["run_id"] != held
        assert running.worker.process.poll() is None


def test_redbeat_alone_finds_the_master(group: Group) -> None:
    """A program that changes RedBeat's entries without our scheduler asks the Sentinels, too."""
    with application(broker_url=group.address, database_url="sqlite://") as app:
        assert get_redis(app).info("replication")["role"] == "master"


def test_a_group_without_that_master(group: Group) -> None:
    """A misspelt name is an error of the connection, which names it."""
    store = Store(group.address.replace("mymaster", "other"), "t")
    with pytest.raises(redis.ConnectionError, match="other"):
        store.redis.ping()


def test_a_group_and_its_master_are_one_server(group: Group) -> None:
    """However it is reached."""
    (port,) = group.masters()
    master = Store(f"redis://:pass%2Fword%40@127.0.0.1:{port}/0", "t")
    assert one_server(Store(group.address, "t"), master)
