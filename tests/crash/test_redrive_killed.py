"""kill -9 of the recorder that carries out a redrive: another one goes on where it was (R18)."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from conventions import BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.storage.tables import RedriveRow
from tests.crash.set_ups import on_each_set_up
from tests.redriving import begin
from tests.support import wait_until
from tests.workers import Installation, letters

LETTERS = 120
RATE = 8.0  # letters a second, so that there is time to kill


class Ship(ImmediateTask):
    """Ship one parcel, unless the gate is closed."""

    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int, folder: str) -> None:
        """Write one line."""
        if not (Path(folder) / "open").exists():
            raise BusinessError("the gate is closed")
        with (Path(folder) / "shipped").open("a") as file:
            file.write(f"{number}\n")


@pytest.fixture
def task_module() -> str:
    """The task of this module."""
    return __name__


def row(app: ConventionsApp, id_: str) -> RedriveRow:
    """A redrive, readable after its session."""
    with app.database.session(read_only=True) as session:
        session.expire_on_commit = False
        found = redrive_rows.get(session, id_)
    assert found is not None
    return found


def leader(app: ConventionsApp) -> int | None:
    """The process that leads, and so carries redrives out."""
    name: Any = app.store.redis.get(app.store.key("recorder"))
    return None if name is None else int(name.decode().rpartition(":")[2])


@on_each_set_up
def test_a_redrive_survives_its_recorder(installation: Installation, app: ConventionsApp, tmp_path: Path) -> None:
    """Every letter is sent, each effect happens once, and the figures say so."""
    with installation.worker("-c", "2"):
        for number in range(LETTERS):
            Ship.delay(number=number, folder=str(tmp_path))
        wait_until(lambda: len(letters(app)) == LETTERS, 60)
        (tmp_path / "open").touch()
        id_ = begin(app, RedriveOrder(Filter(), "u-9", rate=RATE))
        wait_until(lambda: row(app, id_).sent > 20, 60, "some are sent")
        killed = leader(app)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert row(app, id_).state == "sending"
        assert letters(app), "there is something left to send"
        wait_until(lambda: row(app, id_).state == "finished", 150, "another one goes on")
        assert leader(app) not in (None, killed)
    found = row(app, id_)
    assert (found.total, found.sent, found.succeeded, found.failed, found.note) == (LETTERS, LETTERS, LETTERS, 0, "")
    assert {letter.state for letter in letters(app, state=None)} == {"redriven"}
    shipped = (tmp_path / "shipped").read_text().split()
    assert sorted(map(int, shipped)) == list(range(LETTERS)), "each once"
