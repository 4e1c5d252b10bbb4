"""What jobs wrote down about themselves, read again: which ran, where, and what was in progress when."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import patient

SETTLES_WITHIN = 1.0  # seconds after its end in which the outcome of a job may not be recorded yet, on a free machine


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened to a job.

    Attributes:
        what: `started`, `effect` or `ended`.
        pid: the process that ran it.
        thread: the thread of that process, by its number in the system.
        main: the parent of that process; with prefork it is the main process of that worker.
        at: seconds of the monotonic clock, which all processes share.
    """

    what: str
    number: int
    id: str
    attempt: int
    pid: int
    thread: int
    main: int
    at: float


class Runs:
    """The lines that jobs have written into a folder, as they are at this moment."""

    def __init__(self, folder: Path) -> None:
        path = folder / "runs.log"
        text = path.read_text(encoding="ascii") if path.exists() else ""
        self.lines = [_line(line) for line in text.splitlines()]

    def effects(self) -> Counter[int]:
        """How often each job had its effect."""
        return Counter(line.number for line in self.lines if line.what == "effect")

    def starts(self) -> Counter[int]:
        """How often each job was started."""
        return Counter(line.number for line in self.lines if line.what == "started")

    def processes_of(self, main: int) -> set[int]:
        """Pool processes of a worker; one whose worker was dead when it wrote named another parent.

        Where the jobs are threads, it is the worker itself.
        """
        return {line.pid for line in self.lines if main in (line.main, line.pid)}

    def running_in(self, pids: Collection[int]) -> list[Line]:
        """The starts of what has not ended in these processes."""
        return [start for start, end in self._last(pids, float("inf")) if end is None]

    def in_progress(self, pids: Collection[int], at: float, unrecorded: Collection[str] = ()) -> set[int]:
        """The jobs whose outcome may not have been recorded when something happened to these processes.

        `unrecorded`: ids of those of which it is known that it was not, however long ago they ended.
        """
        return {
            start.number
            for start, end in self._last(pids, at)
            if end is None or end.at > at - patient(SETTLES_WITHIN) or start.id in unrecorded
        }

    def _last(self, pids: Collection[int], at: float) -> Iterator[tuple[Line, Line | None]]:
        for one in {(line.pid, line.thread) for line in self.lines if line.pid in pids}:
            own = [line for line in self.lines if (line.pid, line.thread) == one]
            starts = [line for line in own if line.what == "started" and line.at <= at]
            if starts:
                ends = (line for line in own if line.what == "ended" and starts[-1].at <= line.at <= at)
                yield starts[-1], next(ends, None)

    def recoveries(self, numbers: Collection[int], pids: Collection[int], at: float) -> dict[int, float]:
        """Seconds until each of these jobs was started in another process; those that were not are left out."""
        found: dict[int, float] = {}
        for line in self.lines:
            if line.what == "started" and line.number in numbers and line.at > at and line.pid not in pids:
                found.setdefault(line.number, line.at - at)
        return found


def unrecorded(log: str) -> set[str]:
    """The ids of messages of which a worker has said last that their outcome is not recorded yet, as while the server is away."""
    waits = re.compile(r"outcome not recorded yet: id=(\S+):|Task \S+\[(\S+)\] ")
    found = set[str]()
    for waiting, other in waits.findall(log):
        found.add(waiting)
        found.discard(other)
    return found - {""}


def _line(text: str) -> Line:
    what, number, message_id, attempt, pid, thread, main, at = text.split()
    return Line(what, int(number), message_id, int(attempt), int(pid), int(thread), int(main), float(at))
