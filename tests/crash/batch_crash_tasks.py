"""Batches whose processes die at a chosen step, once, for workers that go on from there.

Each batch has a folder of its own. There it writes every item that was processed into `items`, what `finish` and
`recovered` were given into `calls`, each line by one write, so that the lines of a process that was killed are there.
"""

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from celery import current_task

from conventions import BatchTask, BusinessError, RetryPolicy
from conventions.batches.batch_state import Batches
from conventions.batches.batch_summary import BatchSummary
from conventions.execution import batch_follow_up
from conventions.idempotency.claims import Claims
from conventions.sending.bulk_sender import Bulk

ITEMS = 175  # of a batch that is killed: 18 chunks, the last one shorter, in turns of 7, 7 and 4
PER_TURN = 70
STORM_CHUNK = 3  # items
KILLED_IN, DEAD_IN = 10, 100  # every tenth chunk of the storm, and every hundredth
MILLION = 1_000_000
GIB = 1 << 30
LIMITED_BELOW = 3 * GIB // 4  # of address space that is there already: a limit that is reached at once shows nothing


def write(folder: Path, name: str, *lines: Any) -> None:
    """Append lines by one write."""
    file = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, "".join(f"{line}\n" for line in lines).encode())
    finally:
        os.close(file)


def is_first(folder: Path, name: str) -> bool:
    """Whether nobody has asked this before."""
    try:
        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def die_once(folder: Path, name: str = "killed") -> None:
    """Kill this process, unless one was killed here before."""
    if is_first(folder, name):
        os.kill(os.getpid(), signal.SIGKILL)


class Diary(BatchTask, abstract=True):
    """Write down what is done."""

    idempotent_on = ("folder",)
    chunk_size = 10
    retry_policy = RetryPolicy(attempts=1)

    def call(self, folder: Path, what: str, summary: BatchSummary) -> None:
        """Write down that `finish` or `recovered` was called."""
        write(folder, "calls", json.dumps({"what": what, "at": time.monotonic()} | asdict(summary)))


class Storm(Diary):
    """Chunks whose processes die, that fail, and that take longer or shorter."""

    chunk_size = STORM_CHUNK

    def items(self, folder: Path, chunks: int) -> Iterator[int]:  # noqa: ARG002  # an argument of `process`
        yield from range(chunks * STORM_CHUNK)

    def count(self, folder: Path, chunks: int) -> int:  # noqa: ARG002  # the same
        return chunks * STORM_CHUNK

    def process(self, chunk: list[int], folder: Path, chunks: int) -> None:
        index = chunk[0] // STORM_CHUNK
        kills = index % KILLED_IN == 3
        if kills and index % 20 == 3:
            die_once(folder, f"killed-{index}")
        # Chunks overtake each other, and all others have ended when the last one does.
        time.sleep(1 if index == chunks - 1 else random.uniform(0, 0.02))
        if index % DEAD_IN == 0 and not (folder / "mended").exists():
            write(folder, "ends", time.monotonic())
            raise BusinessError("not mended yet")
        write(folder, "items", *chunk)
        write(folder, "ends", time.monotonic())
        if kills:  # the others, after their effect
            die_once(folder, f"killed-{index}")

    def finish(self, summary: BatchSummary, folder: Path, chunks: int) -> None:  # noqa: ARG002  # the same
        self.call(folder, "finish", summary)

    def recovered(self, summary: BatchSummary, folder: Path, chunks: int) -> None:  # noqa: ARG002  # the same
        self.call(folder, "recovered", summary)


STEPS: dict[str, Any] = {"save_cursor": Batches, "note_is_cut": Batches, "send": Bulk, "flush": Bulk, "settle": Claims}


class Killed(Diary, abstract=True):
    """A splitter that dies at a point, and may find other items when it goes on.

    A point is `count`, `item 34` (before it is yielded), `end` (after the last item), or a step of the platform in one
    of its turns: `before save_cursor 1`. What it finds then is `same`, `other 34` (another item there), or `only 40`.
    """

    chunks_per_turn = PER_TURN // 10

    def numbers(self, start: int, folder: Path, point: str, then: str) -> Iterator[int]:
        self.arm(folder, point)
        change, _, number = (then if (folder / "killed").exists() else "same").partition(" ")
        for item in range(start, int(number) if change == "only" else ITEMS):
            if point == f"item {item}":
                die_once(folder)
            yield -item if change == "other" and item == int(number) else item
        if point == "end":
            die_once(folder)

    def arm(self, folder: Path, point: str) -> None:
        """Let this process die at a step of this turn."""
        write(folder, "turns", "begun")
        match point.split(), (folder / "turns").read_text().count("begun"):
            case [("before" | "after") as when, step, number], turn if int(number) == turn:
                owner, batch_id = STEPS[step], self.request.id
            case _:
                return
        original: Callable[..., Any] = getattr(owner, step)

        def dying(*args: Any, **kwargs: Any) -> Any:
            mine = current_task and current_task.request.id == batch_id
            if mine and when == "before":
                die_once(folder)
            result = original(*args, **kwargs)
            if mine:
                die_once(folder)
            return result

        setattr(owner, step, dying)

    def process(self, chunk: list[int], folder: Path, point: str, then: str) -> None:  # noqa: ARG002  # those of `items`
        write(folder, "items", *chunk)

    def finish(self, summary: BatchSummary, folder: Path, point: str, then: str) -> None:  # noqa: ARG002  # the same
        self.call(folder, "finish", summary)

    def count(self, folder: Path, point: str, then: str) -> int | None:  # noqa: ARG002  # the same
        if point == "count":
            die_once(folder)
        return None


class Reread(Killed):
    """Yields all items each time."""

    def items(self, folder: Path, point: str, then: str) -> Iterable[int]:
        return self.numbers(0, folder, point, then)


class GoneOn(Killed):
    """Yields what comes after the last item that was cut."""

    def items(self, folder: Path, point: str, then: str, after: int | None = None) -> Iterable[int]:
        return self.numbers(0 if after is None else after + 1, folder, point, then)


class Orphaned(Diary):
    """The process of its last chunk dies when it should send what follows."""

    def items(self, folder: Path) -> Iterator[int]:  # noqa: ARG002  # an argument of `process`
        yield from range(20)

    def process(self, chunk: list[int], folder: Path) -> None:
        write(folder, "items", *chunk)
        if chunk[0] > 0:
            batch_follow_up.send_next_message = lambda *_: die_once(folder)

    def finish(self, summary: BatchSummary, folder: Path) -> None:
        self.call(folder, "finish", summary)


class Million(Diary):
    """So many items that a list of them would not fit into the memory that is left."""

    chunk_size = 1000

    def items(self, folder: Path) -> Iterator[dict[str, Any]]:
        limit_memory(folder)
        yield from ({"id": number, "name": f"customer {number}"} for number in range(MILLION))
        write(folder, "peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    def process(self, chunk: list[dict[str, Any]], folder: Path) -> None:
        """Do nothing."""


def limit_memory(folder: Path) -> None:
    """Let this process have 1 GiB of address space, where it is far below that now, and write down that it has."""
    statm = Path("/proc/self/statm")
    if statm.exists() and int(statm.read_text().split()[0]) * resource.getpagesize() < LIMITED_BELOW:
        resource.setrlimit(resource.RLIMIT_AS, (GIB, resource.getrlimit(resource.RLIMIT_AS)[1]))
        write(folder, "limited", GIB)
