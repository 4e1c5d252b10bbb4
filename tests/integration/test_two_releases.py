"""The release before this one beside it: senders and workers of both on one Redis and one database, while processes are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions.app import ConventionsApp
from conventions.storage.layout_version import LAYOUT
from conventions.storage.newer_data import left_alone
from conventions.storage.tables import ExecutionRow
from tests.release_before import files_before
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, application, forget, letters, messages

EACH = 200  # short jobs that each sender sends
TASKS = '''\
"""What both releases run."""

import os
import time

import conventions
from conventions import BatchTask, ImmediateTask, LongRunningTask, RetryPolicy

VERSION = "before" if "before" in conventions.__file__ else "this"


def note(task, name, value):
    store = task.app.store
    with store.redis.pipeline(transaction=True) as pipe:
        pipe.hincrby(store.key("effects"), f"{name}-{value}", 1)
        pipe.hincrby(store.key("ran"), VERSION, 1)
        pipe.execute()


class Short(ImmediateTask):
    """A short job."""

    idempotent_on = ("number",)

    def run(self, number: int) -> int:
        note(self, "short", number)
        time.sleep(0.002)
        return number


class Flaky(ImmediateTask):
    """Fails twice."""

    idempotent_on = ("number",)
    retry_policy = RetryPolicy(attempts=4, first_wait=0.5, max_wait=1)

    def run(self, number: int) -> None:
        if self.attempt < 3:
            raise ValueError("not yet")
        note(self, "flaky", number)


class Slow(LongRunningTask):
    """Runs until it is allowed to end, and says where."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        store = self.app.store
        store.redis.hset(store.key("slow"), str(number), f"{os.getpid()} {VERSION}")
        while not store.redis.exists(store.key("go")):
            self.progress.advance(0, total=1)
            time.sleep(0.1)
        note(self, "slow", number)


class Items(BatchTask):
    """A batch."""

    idempotent_on = ("batch",)
    chunk_size = 5

    def items(self, batch: str):
        return range(60)

    def process(self, chunk: list[int], batch: str) -> None:
        for one in chunk:
            note(self, f"item-{batch}", one)

    def finish(self, summary, batch: str) -> None:
        note(self, "finish", f"{batch}-{summary.done}")
'''
SENDER = """\
import sys

import installed
import mixed

who, first = sys.argv[1], int(sys.argv[2])
installed.app.load_tasks()
numbers = range(first, first + int(sys.argv[3]))
mixed.Items.delay(batch=who)
for number in numbers[:2]:
    mixed.Slow.delay(number=number)
mixed.Short.enqueue_many([{"number": number} for number in numbers])
mixed.Flaky.enqueue_many([{"number": number} for number in numbers[:20]])
for number in range(0, 2 * len(numbers), 20):  # those of the other sender, too
    mixed.Short.delay(number=number)
    mixed.Short.apply_async(kwargs={"number": number}, countdown=1)
print(mixed.VERSION)
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it was."""
    archive = files_before("conventions")
    folder = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


@pytest.fixture
def both(
    before: Path, tmp_path: Path, valkey_url: str, new_database: Callable[[Path], str]
) -> Iterator[tuple[Installation, Installation, ConventionsApp]]:
    """The installation of before, that of now, and an application here that looks on."""
    settings: dict[str, Any] = {
        "broker_url": valkey_url,
        "database_url": new_database(tmp_path),
        "trust_unsigned_until": datetime.now(UTC) + timedelta(days=1),  # the release before does not sign
        "key_prefix": f"two{uuid4().hex[:8]}",  # the claims of one test would make duplicates of the next one's jobs
    }
    (tmp_path / "mixed.py").write_text(TASKS, encoding="utf-8")
    (tmp_path / "send.py").write_text(SENDER, encoding="utf-8")
    with application(**settings) as app:
        yield (
            Installation(tmp_path, ["mixed"], [before], **settings),
            Installation(tmp_path, ["mixed"], **settings),
            app,
        )
        forget(app.store)


def sender(installation: Installation, who: str, first: int) -> subprocess.Popen[str]:
    """A process that sends."""
    return subprocess.Popen(
        [sys.executable, "send.py", who, str(first), str(EACH)],
        cwd=installation.folder,
        env=installation.environment,
        text=True,
        stdout=subprocess.PIPE,
    )


def slow_ones(app: ConventionsApp) -> dict[bytes, list[str]]:
    """Process and release of each slow job that has begun, by its number."""
    found: Any = app.store.redis.hgetall(app.store.key("slow"))
    return {number: value.decode().split() for number, value in found.items()}


def is_recorded(app: ConventionsApp) -> bool:
    """Whether everything has ended, and is in SQL."""
    return not messages(app) and app.journal.length() == 0


def check(app: ConventionsApp, repeats: int) -> None:
    """Nothing is lost, nothing twice but for what ran when a process was killed, nothing is deleted that was not understood."""
    found: Any = app.store.redis.hgetall(app.store.key("effects"))
    effects = {name.decode(): int(count) for name, count in found.items()}
    wanted = {f"short-{number}" for number in range(2 * EACH)}
    wanted |= {f"flaky-{first + number}" for first in (0, EACH) for number in range(20)}
    wanted |= {f"slow-{first + number}" for first in (0, EACH) for number in range(2)}
    wanted |= {f"item-{who}-{item}" for who in ("before", "this") for item in range(60)}
    wanted |= {f"finish-{who}-60" for who in ("before", "this")}
    assert effects.keys() == wanted
    assert sum(effects.values()) - len(wanted) <= repeats
    assert letters(app, state=None) == []
    assert app.store.redis.exists(app.store.key("journal", "rejected")) == 0
    assert left_alone(app.store) == []
    assert app.store.redis.get(app.store.key("layout")) == b"%d" % LAYOUT
    ran: Any = app.store.redis.hgetall(app.store.key("ran"))
    assert ran.keys() == {b"before", b"this"}, "each release has run jobs"
    with app.database.session() as session:
        rows = (
            session.query(ExecutionRow.message_id)
            .filter(ExecutionRow.kind.in_(["succeeded", "duplicate"]))
            .distinct()
            .count()
        )
    # Of each message, the two splitters, their twelve chunks and their finishes included.
    assert rows == 2 * (EACH + 20 + 2 + 2 * (2 * EACH // 20) + 1 + 12 + 1)


def ended(process: subprocess.Popen[str]) -> str:
    """What a sender has said when it was done."""
    output, _ = process.communicate(timeout=patient(60))
    assert process.returncode == 0
    return output.strip()


def run_both(
    both: tuple[Installation, Installation, ConventionsApp],
    kill: Callable[[Worker, Worker, dict[bytes, list[str]]], int],
) -> None:
    """Send from both, kill something while the slow jobs run, restart the worker of before, and check."""
    old, new, app = both
    arguments = ("--concurrency=3", "--hostname=before@%h")
    with new.worker("--concurrency=3") as this, old.worker(*arguments) as first:
        senders = [sender(old, "before", 0), sender(new, "this", EACH)]
        wait_until(
            lambda: {release for _, release in slow_ones(app).values()} == {"before", "this"},
            40,
            "slow jobs run in both",
        )
        repeats = kill(first, this, slow_ones(app))
        assert [ended(process) for process in senders] == ["before", "this"]
        with old.worker("--concurrency=3", "--hostname=again@%h") as second:
            first.kill() if first.process.poll() is not None else first.process.send_signal(signal.SIGTERM)
            app.store.redis.set(app.store.key("go"), 1)
            wait_until(lambda: is_recorded(app), 100, "everything has ended")
            assert second.process.poll() is None
            if repeats < 4:
                assert this.stop() == 0
                assert second.stop() == 0
    check(app, repeats)


def test_jobs_of_both_releases(both: tuple[Installation, Installation, ConventionsApp]) -> None:
    """A process of each pool is killed, and a worker of before ends in order and is replaced."""

    def kill(_: Worker, __: Worker, running: dict[bytes, list[str]]) -> int:
        by_release = {release: int(process) for process, release in running.values()}
        for process in by_release.values():
            os.kill(process, signal.SIGKILL)
        return len(by_release)

    run_both(both, kill)


@pytest.mark.soak
def test_workers_of_both_releases_are_killed(both: tuple[Installation, Installation, ConventionsApp]) -> None:
    """Whole workers: their messages come back to the other release."""

    def kill(first: Worker, this: Worker, _: dict[bytes, list[str]]) -> int:
        first.kill()
        time.sleep(0.5)
        for child in Path(f"/proc/{this.process.pid}/task/{this.process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        return 3 + 3

    run_both(both, kill)
