"""What the tests of the fast lane share: workers of each pool that know the estimate of a task, and what their jobs noted."""

import json
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest
from sqlalchemy import select

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.storage.tables import ExecutionRow
from tests.integration import lane_tasks
from tests.integration.lane_tasks import Quick
from tests.support import wait_until
from tests.workers import Installation, Worker, acting_through

QUEUE = "immediate"
POOLS = ("prefork", "threads", "solo")
TURNS = 5  # in one of which a busy machine lets jobs be as short as they are
WARM = 6  # jobs in a group, from which on a worker counts as one that knows that they are short
WARMED_UP = 90  # seconds: a job that waits for a processor looks long, and each turn waits for the recorder


@dataclass(frozen=True)
class Note:
    """What a job noted when it began.

    Attributes:
        group: `None` when it went to its process by itself.
        behind: how many of its group had not begun; `None`, too, when it went by itself.
    """

    name: str
    group: str | None
    behind: int | None
    pid: int
    at: float
    id: str
    attempt: int
    actor: str
    key: str


def notes(folder: Path) -> list[Note]:
    """Every run of a job of this folder, in order."""
    file = folder / "notes"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [Note(**json.loads(line)) for line in lines if line.endswith("\n")]  # the last one may be half written


def sizes(found: Iterable[Note]) -> Counter[str]:
    """How many ran in each group."""
    return Counter(one.group for one in found if one.group is not None)


def some(folder: Path, number: int) -> list[dict[str, Any]]:
    """Arguments of so many jobs."""
    return [{"folder": folder, "name": uuid4().hex} for _ in range(number)]


class Lane:
    """An application, a worker for it, and the folder of a test."""

    def __init__(self, app: ConventionsApp, worker: Worker, folder: Path) -> None:
        self.app = app
        self.worker = worker
        self.folder = folder

    def within(self, name: str) -> "Lane":
        """The same, for jobs of a folder within this one."""
        folder = self.folder / name
        folder.mkdir()
        return Lane(self.app, self.worker, folder)

    @property
    def notes(self) -> list[Note]:
        """What the test's jobs noted."""
        return notes(self.folder)

    @property
    def names(self) -> list[str]:
        """The jobs that ran, as often as they did."""
        return sorted(one.name for one in self.notes)

    def noted(self, name: str) -> Note:
        """The one run of this job."""
        (found,) = (one for one in self.notes if one.name == name)
        return found

    def wait_for(self, name: str) -> None:
        """Wait until a job has begun."""
        wait_until(lambda: name in self.names, 20, f"{name} has begun")

    def warm_up(self, task: type[ImmediateTask] = Quick) -> None:
        """Let the worker learn that the task's jobs are short."""
        folder = self.folder / uuid4().hex
        folder.mkdir()

        def is_warm() -> bool:
            before = len(notes(folder))
            task.enqueue_many(some(folder, 100))
            wait_until(lambda: len(notes(folder)) == before + 100, 20, "all of them run")
            self.wait_until_done()
            return max(sizes(notes(folder)[before:]).values(), default=0) >= WARM or task.fast_lane is False

        try:
            wait_until(is_warm, WARMED_UP, "the worker groups them")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.output[-5000:]}") from error

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the worker's main process stand still, so that what is sent meanwhile comes by few reads."""
        os.kill(self.worker.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.worker.process.pid, signal.SIGCONT)

    def wait_until_done(self, timeout: float = 20) -> None:
        """Wait until nothing is left in the queue, and everything is recorded."""
        try:
            wait_until(lambda: self.app.broker.sizes(QUEUE) == Sizes(0, 0, 0), timeout)
        except AssertionError as error:
            left = self.app.broker.sizes(QUEUE)
            raise AssertionError(f"{left} after {timeout:g} s\n{self.worker.output[-5000:]}") from error
        wait_until(lambda: self.app.journal.length() == 0, 30, "everything is recorded")

    def kinds(self) -> dict[str, list[str]]:
        """How the attempts of each message ended."""
        return kinds(self.app)


def kinds(app: ConventionsApp) -> dict[str, list[str]]:
    """How the attempts of each message ended, in order; a start without an outcome is no end."""
    row, found = ExecutionRow, defaultdict[str, list[str]](list)
    with app.database.session() as session:
        for one in session.execute(
            select(row.message_id, row.kind)
            .where(row.kind != "interrupted")
            .order_by(row.generation, row.attempt, row.fence)
        ):
            found[one.message_id].append(one.kind)
    return found


Install: TypeAlias = Callable[[], Installation]


@pytest.fixture(scope="module")
def install(valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: Any) -> Install:
    """Makes applications with these tasks; a single start without an outcome makes a message of them a dead letter."""

    def new() -> Installation:
        folder = tmp_path_factory.mktemp("lane")
        settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(folder), "start_limit": 1}
        return Installation(folder, [lane_tasks.__name__], **settings)

    return new


Crew: TypeAlias = tuple[Installation, ConventionsApp, Worker]


@pytest.fixture(scope="module", params=POOLS)
def crew(request: pytest.FixtureRequest, install: Install) -> Iterator[Crew]:
    """An application, and a worker of each pool for it, for two jobs at once."""
    installation = install()
    with installation.application() as app, installation.worker("-Q", QUEUE, "-P", request.param, "-c", "2") as worker:
        yield installation, app, worker


@pytest.fixture
def lane(crew: Crew, tmp_path: Path) -> Iterator[Lane]:
    """A worker that knows that `Quick` is quick; it outlives each test."""
    _, app, worker = crew
    with acting_through(app):
        lane = Lane(app, worker, tmp_path)
        lane.warm_up()
        yield lane
        lane.wait_until_done()
    assert worker.process.poll() is None
    assert "a fault of the platform" not in worker.output


@pytest.fixture
def alone(install: Install) -> Iterator[tuple[Installation, ConventionsApp]]:
    """An application of a test's own, for other workers."""
    installation = install()
    with installation.application() as app:
        yield installation, app
