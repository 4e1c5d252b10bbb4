"""The package without its fast lane: turned off, nothing of it is imported; left out, jobs run and end as ever."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

import conventions
from conventions import ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.storage.tables import ExecutionRow
from tests.crash.tempo import QUICK
from tests.prepared_python import FRESH
from tests.support import patient, wait_until
from tests.workers import ROOT, Installation, wait_for_letter, wait_until_empty

pytestmark = pytest.mark.processes

LANE = "conventions.fast_lane"


class Imported(ImmediateTask):
    """Say where the package is, and which modules of the lane are here. A process of the pool has those that the worker had."""

    not_idempotent = "nothing happens"
    ignore_result = False

    def run(self) -> list[str]:
        return [str(Path(conventions.__file__).parent), *sorted(name for name in sys.modules if name.startswith(LANE))]


class Work(ImmediateTask):
    """Note that it runs, and end as it is asked to."""

    idempotent_on = ("name",)
    retry_policy = RetryPolicy(attempts=2, first_wait=0.01, max_wait=0.05)

    def run(self, name: str, folder: Path, how: str = "") -> None:
        note = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, f"{name}\n".encode())
        os.close(note)
        if how == "fails" or (how == "fails once" and self.attempt == 1):
            raise ValueError(how)
        if how == "waits":
            wait_until((folder / "go").exists, 60)


def runs(folder: Path) -> Counter[str]:
    """How often each job ran."""
    notes = folder / "notes"
    return Counter(notes.read_text(encoding="utf-8").splitlines() if notes.exists() else [])


def kinds(app: ConventionsApp) -> dict[str, list[str]]:
    """How the attempts of each message ended, in order; a start without an outcome is no end."""
    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    found: dict[str, list[str]] = {}
    row = ExecutionRow
    with app.database.session() as session:
        for message_id, kind in session.execute(
            select(row.message_id, row.kind).where(row.kind != "interrupted").order_by(row.attempt)
        ):
            found.setdefault(message_id, []).append(kind)
    return found


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """The tasks of this module."""
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process, which sends."""
    with installation.application() as app:
        yield app


@pytest.fixture
def left_out(installation: Installation) -> Path:
    """The package of the workers: a copy, without the lane."""
    copy = installation.folder / "conventions"
    shutil.copytree(ROOT / "conventions", copy, ignore=shutil.ignore_patterns("__pycache__", "fast_lane"))
    return copy


@pytest.mark.parametrize("setting", ["true", "false"])
def test_turned_off_nothing_of_it_is_imported(installation: Installation, app: ConventionsApp, setting: str) -> None:
    """By the setting; with it, the lane is there."""
    variables = {"CONVENTIONS_FAST_LANE": setting, FRESH: "1"}
    with installation.worker("-Q", "immediate", **variables):
        where, *modules = Imported.delay().get(timeout=patient(20))
    assert where == str(ROOT / "conventions")
    assert (f"{LANE}.door" in modules) == (setting == "true")
    assert (modules == []) == (setting == "false")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_left_out_jobs_run_and_end(
    installation: Installation, app: ConventionsApp, left_out: Path, tmp_path: Path, pool: str
) -> None:
    """As with the lane: many short ones, one that is tried again, one that ends as a dead letter."""
    names = [f"short {number}" for number in range(300)]
    with installation.worker("-Q", "immediate", "-P", pool, "-c", "2") as worker:
        assert Imported.delay().get(timeout=patient(20)) == [str(left_out)]
        ids = Work.enqueue_many({"name": name, "folder": tmp_path} for name in names)
        once = Work.delay("once", tmp_path, how="fails once").id
        never = Work.delay("never", tmp_path, how="fails").id
        assert wait_for_letter(app, never).error == "ValueError"
        wait_until_empty(app, 30)
        recorded = kinds(app)
        assert worker.stop() == 0
    assert runs(tmp_path) == Counter(names) + Counter({"once": 2, "never": 2})
    assert {tuple(recorded[one]) for one in ids} == {("succeeded",)}
    assert (recorded[once], recorded[never]) == (["retried", "succeeded"], ["retried", "dead"])


def test_left_out_the_job_of_a_killed_worker_runs_again(
    installation: Installation, app: ConventionsApp, left_out: Path, tmp_path: Path
) -> None:
    """In another worker; its effect is recorded once."""
    QUICK.install(installation)
    held = Work.delay("held", tmp_path, how="waits").id
    queues = ("-Q", "immediate", "-c", "1")
    with installation.worker(*queues) as first:
        wait_until(lambda: runs(tmp_path)["held"] == 1, 20, "the job runs")
        with installation.worker(*queues):
            first.kill()
            wait_until(lambda: runs(tmp_path)["held"] == 2, QUICK.recovery + 10, "the job runs again")
            (tmp_path / "go").touch()
            wait_until_empty(app, 20)
            assert kinds(app)[held] == ["succeeded"]
    assert left_out.is_dir()
