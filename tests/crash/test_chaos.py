"""Everything is killed at any moment, and every job ends once, with its effect made once."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from conventions.app import ConventionsApp
from tests.crash import plan
from tests.crash.chaos import WORKERS, Chaos, pause
from tests.crash.sender import Sender
from tests.crash.server import Breakable, Server
from tests.crash.tempo import QUICK
from tests.crash.verdict import Verdict
from tests.rabbitmq_servers import Rabbit, running_rabbitmq
from tests.workers import Installation


@pytest.fixture
def servers(server: Server) -> Sequence[Breakable]:
    """The servers of the run."""
    return (server,)


@pytest.fixture
def run(installation: Installation, app: ConventionsApp, servers: Sequence[Breakable]) -> Callable[..., Verdict]:
    """Make a chaos run, to its end."""

    def run(seed: int, *, jobs: int, faults: int, pool: str = "prefork") -> Verdict:
        QUICK.install(installation)
        with app.database.session() as session:
            session.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
        chaos = Chaos(installation, servers, app, QUICK, pool)
        without = () if pool == "prefork" else ("kill child",)
        sendings = plan.sendings(seed, jobs)
        try:
            chaos.start()
            sender = Sender(sendings)
            for fault in plan.faults(seed, faults, WORKERS, without):
                sender.burst(len(sendings) // (faults + 1))
                pause(fault.after)
                chaos.strike(fault)
            sender.finish()
            verdict = Verdict(seed, chaos, sendings, sender.unavailable)
            verdict.wait_for_the_end()
            chaos.stop()
        finally:
            chaos.close()
        verdict.judge()
        return verdict

    return run


@pytest.mark.timeout(170)
@pytest.mark.parametrize("seed", [4])
def test_chaos(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """1,000 jobs, each kind of fault."""
    verdict = run(seed, jobs=1000, faults=12)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.timeout(170)
@pytest.mark.parametrize("seed", [5])
def test_chaos_with_threads(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """The jobs are threads of the workers' main processes."""
    verdict = run(seed, jobs=600, faults=9, pool="threads")
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


class TestTwoServers:
    """The broker is one server, the store another: each is killed by itself."""

    @pytest.fixture
    def store_server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        """The store."""
        with Server(tmp_path_factory.mktemp("w")) as server:
            yield server

    @pytest.fixture
    def servers(self, server: Server, store_server: Server) -> Sequence[Breakable]:
        """Both."""
        return (server, store_server)

    @pytest.fixture
    def installation(
        self, tmp_path: Path, servers: Sequence[Breakable], new_database: Callable[[Path], str], task_module: str
    ) -> Installation:
        """An application on both."""
        broker, store = (server.url for server in servers)
        settings = {"broker_url": broker, "redis_url": store, "database_url": new_database(tmp_path)}
        return Installation(tmp_path, [task_module], [Path(__file__).parent], **settings)

    @pytest.mark.timeout(170)
    @pytest.mark.parametrize("seed", [6])
    def test_chaos(self, run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
        """What one step does on one server is an order of steps on two."""
        verdict = run(seed, jobs=600, faults=12)
        show(verdict.figures)
        assert not verdict.faults, "\n".join(verdict.faults)


class TestRabbitMQ(TestTwoServers):
    """The broker is RabbitMQ, the store a Redis: each is killed by itself."""

    @pytest.fixture
    def rabbit(self) -> Iterator[Rabbit]:
        """The broker."""
        with running_rabbitmq() as server:
            yield server

    @pytest.fixture
    def servers(self, rabbit: Rabbit, store_server: Server) -> Sequence[Breakable]:
        """Both."""
        return (rabbit, store_server)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15, 16])
def test_long_chaos(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """10,000 jobs, many faults."""
    verdict = run(seed, jobs=10_000, faults=100)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)
