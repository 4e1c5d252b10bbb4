"""Everything is killed at any moment, and every job ends once, with its effect made once."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from conventions.app import ConventionsApp
from tests.crash import plan
from tests.crash.chaos import WORKERS, Chaos, pause
from tests.crash.sender import Sender
from tests.crash.server import Server
from tests.crash.tempo import QUICK, Tempo
from tests.crash.verdict import Verdict
from tests.workers import Installation


@pytest.fixture
def run(installation: Installation, app: ConventionsApp, server: Server) -> Callable[..., Verdict]:
    """Make a chaos run, to its end."""

    def run(seed: int, *, jobs: int, faults: int, tempo: Tempo) -> Verdict:
        tempo.install(installation)
        with app.database.session() as session:
            session.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
        chaos = Chaos(installation, server, app, tempo)
        sendings = plan.sendings(seed, jobs)
        try:
            chaos.start()
            sender = Sender(sendings)
            for fault in plan.faults(seed, faults, WORKERS):
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
    verdict = run(seed, jobs=1000, faults=12, tempo=QUICK)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [11, 12, 13, 14, 15, 16])
def test_long_chaos(run: Callable[..., Verdict], show: Callable[[str], None], seed: int) -> None:
    """10,000 jobs, many faults."""
    verdict = run(seed, jobs=10_000, faults=100, tempo=QUICK)
    show(verdict.figures)
    assert not verdict.faults, "\n".join(verdict.faults)
