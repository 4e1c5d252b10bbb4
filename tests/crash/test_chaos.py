"""Everything is killed at any moment, and every job ends once, with its effect made once."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import text

from conventions.app import ConventionsApp
from tests.crash import plan
from tests.crash.chaos import WORKERS, Chaos, pause
from tests.crash.sender import Sender
from tests.crash.server import Breakable
from tests.crash.set_ups import RABBITMQ, TWO_REDIS, on_rabbitmq
from tests.crash.tempo import QUICK
from tests.crash.verdict import Verdict
from tests.workers import Installation


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


@pytest.mark.parametrize("seed", [4])
def test_chaos(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """1,000 jobs, each kind of fault."""
    verdict = run(seed, jobs=1000, faults=12)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.parametrize("seed", [5])
def test_chaos_with_threads(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """The jobs are threads of the workers' main processes."""
    verdict = run(seed, jobs=600, faults=9, pool="threads")
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.parametrize("seed", [6])
@pytest.mark.parametrize("servers", [TWO_REDIS, RABBITMQ], indirect=True)
def test_chaos_with_claims_elsewhere(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """What one step does on one server is an order of steps on two; each of them is killed by itself. Each kind of fault once."""
    verdict = run(seed, jobs=600, faults=9)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.parametrize("seed", [7])
@on_rabbitmq
def test_chaos_with_threads_on_rabbitmq(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """A thread of the worker's own acknowledges while it stops; Celery has one for processes only."""
    verdict = run(seed, jobs=600, faults=9, pool="threads")
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15, 16])
def test_long_chaos(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """10,000 jobs, many faults."""
    verdict = run(seed, jobs=10_000, faults=100)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)
