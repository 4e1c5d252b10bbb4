"""A PostgreSQL whose disk is full: jobs go on, and what happened is recorded when there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from conventions.app import ConventionsApp
from conventions.storage.tables import ExecutionRow
from tests.crash import crash_tasks
from tests.crash.crash_tasks import Append
from tests.crash.evidence import Runs
from tests.crash.server import Server
from tests.crash.tempo import QUICK
from tests.postgres import postgresql_server, programs
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

JOBS = range(300)
SIZE = "160m"  # what a new database and its log need, and some room


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk of a test's own. Skips the test where one may not mount it."""
    folder = Path(mkdtemp(prefix="disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0755", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("a file system in memory cannot be mounted: it needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture
def installation(tmp_path: Path, server: Server, disk: Path) -> Iterator[Installation]:
    """An application whose database lies on the small disk."""
    options = "-c min_wal_size=32MB -c max_wal_size=48MB -c shared_buffers=1MB -c autovacuum=off"
    with postgresql_server(programs(), parent=disk, more=options) as url:
        settings = {"broker_url": server.url, "database_url": url}
        yield Installation(tmp_path, [crash_tasks.__name__], [Path(__file__).parent], **settings)


def fill(disk: Path) -> Path:
    """Take all room that is left."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def recorded(app: ConventionsApp) -> int:
    with app.database.session() as session:
        kinds = select(func.count(func.distinct(ExecutionRow.message_id))).where(ExecutionRow.kind == "succeeded")
        return session.scalar(kinds) or 0


def make_table(app: ConventionsApp, query: str) -> None:
    with app.database.session() as session:
        session.connection().exec_driver_sql(f"CREATE TABLE big AS {query}")


def test_a_disk_that_is_full(installation: Installation, app: ConventionsApp, disk: Path) -> None:
    """No job fails; the journal keeps what cannot be recorded, and loses nothing of it."""
    QUICK.install(installation)
    app.database.upgrade()
    with installation.worker("--concurrency=2") as worker:
        Append.delay(1000, 0.01)
        wait_until(lambda: recorded(app) == 1, 20, "one is recorded")
        filler = fill(disk)
        with pytest.raises(DBAPIError):
            make_table(app, "SELECT repeat('x', 1000) FROM generate_series(1, 99999)")
        for number in JOBS:
            Append.delay(number, 0.01)
        wait_until(lambda: {*Runs(installation.folder).effects()} >= {*JOBS}, 40, "all have run")
        wait_until_empty(app, 20)
        worker.wait_for("not recorded", 20)
        assert app.journal.length() > 0
        os.truncate(filler, 0)
        wait_until(lambda: recorded(app) == len(JOBS) + 1, 60, "all is recorded")
        assert worker.stop() == 0
    assert Runs(installation.folder).effects() == dict.fromkeys((*JOBS, 1000), 1)
    assert app.journal.length() == 0
    assert not letters(app, state=None)
