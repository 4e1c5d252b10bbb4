"""Short jobs that write down where they run, for workers whose processes are killed in the middle of a group."""

import os
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from conventions import ImmediateTask
from tests import lanes

LOG, STOOD, STOOD_AGAIN = "lane.log", "stood", "stood again"  # in the worker's folder
MANY, FEW = 8, 4
ALONE = -1
TAIL = 400  # bytes that have a whole line


class Quick(ImmediateTask):
    """Write a line at the start and one at the end, each by one write; the first is its effect."""

    idempotent_on = ("number",)
    soft_time_limit, time_limit = 18, 20  # of a process that stands still, which takes no signal

    def run(self, number: int, stands: bool = False, fatal: bool = False, again: bool = False) -> None:
        """A fatal one kills its process each time; the first that `stands`, with many behind it, stops its process.

        `again`: so does the first one after it that has a few behind it.
        """
        note(self, "start", number)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if stands and waiting_behind(self) >= MANY:
            stand_still()
        elif again and 0 < waiting_behind(self) <= FEW and Path(STOOD).exists():
            stand_still(STOOD_AGAIN)
        note(self, "end", number)


def stand_still(mark: str = STOOD) -> None:
    """Stop this process, unless one has stood before with this mark."""
    with suppress(FileExistsError):
        file = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(file, f"{os.getpid()}\n".encode())
        os.close(file)
        os.kill(os.getpid(), signal.SIGSTOP)


def note(task: ImmediateTask, what: str, number: int) -> None:
    """Write a line that is there when the process dies after this: what, which, where, and how many wait behind it."""
    file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{what} {number} {os.getpid()} {os.getppid()} {waiting_behind(task)}\n".encode())
    finally:
        os.close(file)


def waiting_behind(task: ImmediateTask) -> int:
    """How many of its group have not begun; `ALONE` where it is in none."""
    waiting = lanes.waiting_behind(task)
    return ALONE if waiting is None else waiting


@dataclass(frozen=True, slots=True)
class Line:
    """What a job wrote at its start or end; `left`: how many waited behind it in its group."""

    what: str
    number: int
    pid: int
    main: int
    left: int

    @classmethod
    def read(cls, text: str) -> "Line":
        """Read a line."""
        what, *numbers = text.split()
        return cls(what, *map(int, numbers))


class Lines:
    """What the jobs of a worker in this folder have written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG

    def count(self) -> int:
        """How many lines there are."""
        return self._path.read_bytes().count(b"\n") if self._path.exists() else 0

    def all(self) -> list[Line]:
        """Every line, in order."""
        return [Line.read(text) for text in self._path.read_text(encoding="ascii").splitlines()]

    def starts(self) -> Counter[int]:
        """How often each job began, and so had its effect."""
        return Counter(line.number for line in self.all() if line.what == "start")

    def last_of(self, pid: int) -> Line:
        """The last line of a process."""
        return next(line for line in reversed(self.all()) if line.pid == pid)

    def in_middle(self, least: int = 3) -> Line | None:
        """The last line of all, where so many of its group wait behind the job."""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - TAIL))
            line = Line.read(file.read().decode("ascii").splitlines()[-1])
        return line if line.left >= least else None

    def stood(self, mark: str = STOOD) -> Line | None:
        """The start of the job whose process stands still."""
        path = self._path.with_name(mark)
        pid = int(path.read_text(encoding="ascii") or 0) if path.exists() else 0
        return self.last_of(pid) if pid and state_of(pid) == "T" else None


def state_of(pid: int) -> str:
    """The state of a process: `T` when it is stopped."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
