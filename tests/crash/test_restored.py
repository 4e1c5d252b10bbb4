"""The restore drill: a server that comes back as it was before repeats nothing that SQL records as ended."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.records import executions
from tests.crash.server import Server
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

JOBS = 20


class Effect(ImmediateTask):
    """Write a line, or fail for good; nothing but the platform keeps it from doing so twice."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, folder: Path, fails: bool = False) -> None:
        with (folder / "effects").open("a") as file:
            file.write(f"{number}\n")
        if fails:
            raise BusinessError(number)


class Effects(BatchTask):
    """Write a line for each item, in two chunks."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 2

    def items(self, first: int, folder: Path) -> list[int]:  # noqa: ARG002  # it is an argument of `process`
        return [first, first + 1, first + 2]

    def process(self, chunk: list[int], first: int, folder: Path) -> None:  # noqa: ARG002  # the same
        with (folder / "effects").open("a") as file:
            file.writelines(f"{number}\n" for number in chunk)


class Drill:
    """A server, its copy, and an application."""

    def __init__(self, folder: Path, new_database: Callable[[Path], str]) -> None:
        (folder / "server").mkdir()
        self.folder, self.server = folder, Server(folder / "server")
        settings = {"broker_url": self.server.url, "database_url": new_database(folder)}
        self.installation = Installation(folder, [__name__], [Path(__file__).parent], **settings)

    def copy(self) -> None:
        """Keep what the server has."""
        self.server.kill()
        shutil.copytree(self.folder / "server", self.folder / "copy", ignore=shutil.ignore_patterns("s"))
        self.server.start()

    def restore(self) -> None:
        """Bring it back."""
        self.server.kill()
        shutil.rmtree(self.folder / "server")
        shutil.copytree(self.folder / "copy", self.folder / "server")
        self.server.start()

    def effects(self) -> Counter[int]:
        """How often each was done."""
        file = self.folder / "effects"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()


@pytest.fixture
def drill(tmp_path: Path, new_database: Callable[[Path], str]) -> Drill:
    """Nothing has happened."""
    return Drill(tmp_path, new_database)


def done(app: ConventionsApp, kind: str = "succeeded") -> int:
    """How many executions are recorded."""
    with app.database.session() as session:
        return len(executions.latest(session, 1000, kind=kind))


def test_a_restored_server_repeats_nothing(drill: Drill) -> None:
    """Jobs, one that is delayed, a dead one and a batch, for workers that start and for one that runs; new ones run."""
    with drill.server, drill.installation.application() as app:
        folder = drill.folder
        for number in range(JOBS):
            Effect.delay(number, folder)
        Effect.apply_async((JOBS, folder), countdown=1)
        Effect.delay(JOBS + 1, folder, fails=True)
        Effects.delay(100, folder)
        with drill.installation.worker("-Q", "nothing", "-c", "1"):  # whose recorder has seen this server
            Effect.apply_async((999, folder), queue="nothing")
            wait_until(lambda: done(app) == 1, 20, "it has recorded something")
            wait_until(lambda: not app.journal.length(), 20, "and that is all")
        app.broker.store.redis.close()
        drill.copy()
        with drill.installation.worker("-c", "2"):
            wait_until(lambda: letters(app), 20, "one is dead")
            wait_until(lambda: sum(drill.effects().values()) == JOBS + 6, 30, "all ran")
            wait_until_empty(app, 30)
            wait_until(lambda: not app.journal.length(), 20, "all is recorded")
        before = drill.effects()
        assert set(before.values()) == {1}
        drill.restore()
        assert app.broker.sizes("immediate") != Sizes(0, 0, 0)
        with drill.installation.worker("-c", "2") as worker:
            Effect.delay(1000, folder)
            wait_until(lambda: drill.effects()[1000], 30, "a new job runs")
            wait_until_empty(app, 30)
            assert drill.effects() == before | Counter([1000])
            assert "Redis lacks what was recorded after" in worker.output
            assert "messages had ended, and do not run again" in worker.output
            Effect.delay(1, folder)  # its claim is remembered, too
            wait_until_empty(app, 30)
            wait_until(lambda: not app.journal.length(), 20, "all is recorded")
            drill.restore()
            Effect.delay(1001, folder)
            wait_until(lambda: drill.effects()[1001], 60, "a new job runs on a worker that lived on")
            wait_until_empty(app, 30)
            assert drill.effects() == before | Counter([1000, 1001])
        assert len(letters(app)) == 1
