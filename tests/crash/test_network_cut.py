"""A worker that the network cuts off, so that nobody is told: no reset, no answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from conventions.app import ConventionsApp
from conventions.storage.tables import ExecutionRow
from tests.crash.crash_tasks import Append, Hold, HoldCommit
from tests.crash.evidence import Runs
from tests.crash.network import SERVER, Network, network
from tests.crash.server import Server
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation, Worker, letters, wait_until_empty

PORT = "6379"


@pytest.fixture
def hosts() -> Iterator[Network]:
    """Two hosts and a cable."""
    with network() as hosts:
        yield hosts


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, hosts: Network) -> Iterator[Server]:
    """A server on the one host, which the tests reach by its socket."""
    folder = tmp_path_factory.mktemp("v")
    with Server(folder, hosts.at_server([]), port=PORT, bind=SERVER, protected_mode="no") as server:
        yield server


def started(folder: Path, number: int) -> int:
    return Runs(folder).starts()[number]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_cut_off(installation: Installation, app: ConventionsApp, hosts: Network, pool: str) -> None:
    """Its jobs run elsewhere; what it has ended meanwhile counts for nothing, and it goes on when the cable is back.

    A plain effect is there twice, as the promise has it; one in a transaction is there once.
    """
    QUICK.install(installation)
    with app.database.session() as session:
        session.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
    elsewhere = {"CONVENTIONS_BROKER_URL": f"redis://{SERVER}:{PORT}/0"}
    options = ("--loglevel=INFO", f"--pool={pool}", "--concurrency=2")
    cut_off = Worker(
        installation, hosts.at_worker(installation.celery("worker", "--hostname=cut@%h", *options)), elsewhere
    )
    try:
        cut_off.wait_until_ready()
        Hold.delay(1)
        HoldCommit.delay(2)
        wait_until(lambda: started(tmp := installation.folder, 1) and started(tmp, 2), 10, "both run")
        hosts.cut()
        with installation.worker(f"--pool={pool}", "--concurrency=2") as other:
            wait_until(
                lambda: started(tmp := installation.folder, 1) == 2 and started(tmp, 2) == 2,
                QUICK.recovery + 20,
                "both run elsewhere",
            )
            (installation.folder / "go").touch()
            wait_until_empty(app, 20)
            wait_until(
                lambda: Runs(installation.folder).effects()[1] == 2, 20, "the one that is cut off has ended, too"
            )
            assert other.stop() == 0
        hosts.heal()
        Append.delay(3, 0.01)
        wait_until(lambda: Runs(installation.folder).effects()[3] == 1, 40, "the worker takes jobs again")
        wait_until_empty(app, 20)
        with app.database.session() as session:
            assert session.scalars(text("SELECT number FROM effects")).all() == [2]
        assert Runs(installation.folder).effects() == {1: 2, 3: 1}

        def ends() -> list[str]:
            with app.database.session() as session:
                kinds = select(ExecutionRow.kind).where(ExecutionRow.task == Hold.name)
                return sorted(session.scalars(kinds).all())

        wait_until(lambda: "superseded" in ends() and "succeeded" in ends(), 30, "both ends are recorded")
        assert not letters(app, state=None)
        assert cut_off.stop() == 0
    finally:
        cut_off.kill()
