"""A long job that hangs: it is noticed by its silence, ended, said so, and run again elsewhere (R12)."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conventions import LongRunningTask
from conventions.app import ConventionsApp
from conventions.records import executions
from tests.crash.server import Breakable
from tests.crash.set_ups import on_each_set_up
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty


class Dig(LongRunningTask):
    """Report progress for longer than `stall_after`, then hang in the first attempt; go on from the checkpoint."""

    idempotent_on = ("folder",)
    stall_after = 5

    def run(self, folder: str) -> None:
        """Write one line for each step, with the process."""
        self.progress.total = 40
        for step in range(self.resumed_from or 0, 40):
            if step == 35 and not (Path(folder) / "hung").exists():
                (Path(folder) / "hung").write_text(str(os.getpid()))
                time.sleep(600)
            time.sleep(0.2)  # 7 s until it hangs: longer than stall_after, so progress is what counts
            with (Path(folder) / "steps").open("a") as steps:
                steps.write(f"{step} {os.getpid()}\n")
            self.checkpoint(step + 1)
            self.progress.advance()


@pytest.fixture
def task_module() -> str:
    """The task of this module."""
    return __name__


@pytest.fixture
def quick(installation: Installation) -> Installation:
    """The application with short intervals."""
    QUICK.install(installation)
    return installation


@pytest.mark.parametrize("pool", [pytest.param("prefork", marks=pytest.mark.everyday), "threads"])
@on_each_set_up
def test_a_hung_job_runs_elsewhere(
    quick: Installation, app: ConventionsApp, servers: Sequence[Breakable], tmp_path: Path, pool: str
) -> None:
    """Every step happens once, in two processes; the history and the log say that it hung, and no attempt is lost."""
    with quick.workers(("--pool", pool, "-c", "1"), ("--pool", pool, "-c", "1")) as workers:
        dig = Dig.delay(str(tmp_path))
        wait_until_empty(app, 90, servers)
        steps = [line.split() for line in (tmp_path / "steps").read_text().splitlines()]
        assert [int(step) for step, _ in steps] == list(range(40))
        before, after = {pid for _, pid in steps[:35]}, {pid for _, pid in steps[35:]}
        assert len(before) == len(after) == 1
        assert before != after
        assert any(f"hung: id={dig.id}" in one.output and "raise stall_after" in one.output for one in workers)
        if pool == "prefork":
            hung = int((tmp_path / "hung").read_text())
            wait_until(lambda: not Path(f"/proc/{hung}").exists(), 10, "the process that hung is ended")

        def recorded() -> list[str]:
            with app.database.session(read_only=True) as session:
                return sorted(row.kind for row in executions.latest(session, 10) if row.task == Dig.name)

        wait_until(lambda: recorded() == ["hung", "succeeded"], 30, "the history has both")
    assert letters(app) == []
