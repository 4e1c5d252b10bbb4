"""How a batch is cut, at its edges: what `items` holds open, slow items, what the sender chose, what is refused."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conventions import BatchTask, LongRunningTask, PayloadError, Priority, RetryPolicy
from conventions.app import ConventionsApp
from conventions.batches.batch_summary import BatchSummary
from conventions.batches.splitting_turn import options_of
from tests.support import patient, wait_until
from tests.workers import messages, wait_for_letter, wait_until_empty


class Source(BatchTask, abstract=True):
    """Write down what is done."""

    idempotent_on = ("folder",)
    chunk_size = 10
    retry_policy = RetryPolicy(attempts=1)

    def process(self, chunk: list[Any], folder: Path) -> None:
        write(folder, f"process {len(chunk)}")

    def finish(self, summary: BatchSummary, folder: Path) -> None:
        write(folder, f"finish {summary.done} of {summary.total}")


def write(folder: Path, line: str) -> None:
    """Add a line to the diary."""
    with (folder / "diary").open("a") as diary:
        diary.write(f"{line}\n")


def lines(folder: Path) -> list[str]:
    """The diary."""
    path = folder / "diary"
    return path.read_text().splitlines() if path.exists() else []


class Opens(Source):
    """Hold something open while items are read."""

    chunks_per_turn = 2

    def items(self, folder: Path) -> Iterator[int]:
        write(folder, "opened")
        try:
            yield from range(100)
        finally:
            write(folder, "closed")


class Lazy(Source):
    """Yield slowly, in turns that are shorter than reading again what was cut."""

    seconds_per_turn = 0.2
    chunk_size = 1

    def items(self, folder: Path) -> Iterator[int]:
        write(folder, "opened")
        for number in range(60):
            time.sleep(0.02)
            yield number


class Sleepy(Source):
    """Yield so slowly that a chunk takes longer than `stall_after`."""

    stall_after = 2
    chunk_size = 40

    def items(self, folder: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        for number in range(40):
            time.sleep(0.1)
            yield number


class Counted(Source):
    """Count for a long time, and write what `items` does with progress."""

    def count(self, folder: Path) -> int:
        (folder / "counting").touch()
        while not (folder / "go").exists():
            time.sleep(0.02)
        return 30

    def items(self, folder: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        for number in range(30):
            self.progress.advance(1, note=f"line {number}")
            yield number


class Late(Source):
    """Be cut for longer than its message may wait."""

    expires = 2
    chunks_per_turn = 1

    def items(self, folder: Path) -> Iterator[int]:
        for number in range(40):
            time.sleep(0.1 if number >= len(lines(folder)) * 10 else 0)  # what was read before is quick
            yield number


class Odd(Source):
    """Yield what cannot be cut, or do what a splitter cannot."""

    def items(self, folder: Path) -> Any:
        match folder.name:
            case "sets":
                return iter([{"tags": {"a", "b"}}])
            case "nothing":
                return None
            case "large":
                return iter(["x" * 200_000] * 10)
            case _:
                return self._checkpoint_in_items()

    def _checkpoint_in_items(self) -> Iterator[int]:
        yield 1
        self.checkpoint(1)


class Urgent(Source):
    """Write down with what priority a message came."""

    def items(self, folder: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        yield from range(30)

    def process(self, chunk: list[Any], folder: Path) -> None:  # noqa: ARG002  # they do not matter
        write(folder, f"process at {self.request.delivery_info['priority']}")

    def finish(self, summary: BatchSummary, folder: Path) -> None:  # noqa: ARG002  # the same
        write(folder, f"finish at {self.request.delivery_info['priority']}")


class Heavy(Source):
    """Chunks of nearly a megabyte each."""

    chunk_size = 1

    def items(self, folder: Path) -> Iterator[str]:
        for number in range(30):
            write(folder, f"item {number}, {self.app.broker.sizes('long').ready} wait")
            yield "x" * 900_000


class Extends(LongRunningTask):
    """Extend a lease that Redis has forgotten."""

    idempotent_on = ("folder",)
    retry_policy = RetryPolicy(attempts=1)

    def run(self, folder: Path) -> str:  # noqa: ARG002  # the key
        for key in self.app.store.redis.scan_iter(match=self.app.store.key("claim", "*")):
            self.app.store.redis.delete(key)
        self.extend_lease(30)
        return "went on"


def test_what_items_holds_open_is_closed_with_the_turn(live_app: ConventionsApp, tmp_path: Path) -> None:
    """A session of the database, a file: not when the collector comes by."""
    Opens.delay(tmp_path)
    wait_until(lambda: "finish 100 of 100" in lines(tmp_path), 20, "the batch is finished")
    opened = [line for line in lines(tmp_path) if line in ("opened", "closed")]
    assert opened == ["opened", "closed"] * 6  # five turns, and one that finds the end


@pytest.mark.thorough
def test_a_turn_is_at_least_as_long_as_reading_again(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Else each turn would cut one chunk, after reading all that was cut before."""
    Lazy.delay(tmp_path)
    wait_until(lambda: "finish 60 of 60" in lines(tmp_path), 40, "the batch is finished")
    assert lines(tmp_path).count("opened") <= 7  # 0.2 s, 0.2, 0.4, 0.8: it doubles


@pytest.mark.thorough
def test_slow_items_are_signs_of_life(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Each of them, not each chunk."""
    batch = Sleepy.delay(tmp_path)
    wait_until(lambda: "finish 40 of 40" in lines(tmp_path), 30, "the batch is finished")
    summary = live_app.batches.summary(batch.id)
    assert summary is not None
    assert summary.progress.stall_after == 2


def test_progress_in_items_is_a_note(live_app: ConventionsApp, tmp_path: Path) -> None:
    """The items are counted when their chunks end."""
    (tmp_path / "go").touch()
    batch = Counted.delay(tmp_path)
    wait_until(lambda: "finish 30 of 30" in lines(tmp_path), 20, "the batch is finished")
    summary = live_app.batches.summary(batch.id)
    assert summary is not None
    assert (summary.done, summary.progress.note) == (30, "line 29")


@pytest.mark.parametrize("how", ["message", "batch"])
def test_a_cancel_while_it_counts_is_heard(live_app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """Which may take minutes: nothing is cut after it."""
    batch = Counted.delay(tmp_path)
    wait_until((tmp_path / "counting").exists, description="it counts")
    if how == "message":
        assert Counted.cancel(batch.id) == "running"
    else:
        assert live_app.batches.cancel(batch.id)
    (tmp_path / "go").touch()
    wait_until_empty(live_app)
    assert live_app.batches.state(batch.id) == "cancelled"
    assert lines(tmp_path) == []


@pytest.mark.thorough
def test_a_batch_that_began_in_time_does_not_expire(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Neither between two turns, nor its chunks and its finish."""
    Late.delay(tmp_path)
    wait_until(lambda: "finish 40 of 40" in lines(tmp_path), 30, "the batch is finished")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sets", "a set has no order; pass a list"),
        ("nothing", "items must yield items, or return an iterable, not None"),
        ("large", "chunk 0: .* the limit is 1,048,576.*or set a smaller chunk_size"),
        ("checkpoint", "a batch goes on where it was by itself"),
    ],
)
def test_what_cannot_be_cut_says_what_to_do(live_app: ConventionsApp, tmp_path: Path, name: str, message: str) -> None:
    """A dead letter at once, and a dead batch."""
    folder = tmp_path / name
    folder.mkdir()
    batch = Odd.delay(folder)
    letter = wait_for_letter(live_app, batch.id)
    assert re.search(message, letter.error_message), letter.error_message
    assert live_app.batches.state(batch.id) == "dead"


def test_a_chunk_that_is_too_large_is_refused_here_as_when_sent(app: ConventionsApp, tmp_path: Path) -> None:
    """By `apply`: a test must not pass where production fails."""
    folder = tmp_path / "large"
    folder.mkdir()
    result = Odd.apply((folder,))
    assert isinstance(result.result, PayloadError)
    assert "the limit is 1,048,576" in str(result.result)
    assert messages(app) == []


def test_chunks_and_finish_have_the_priority_and_queue_of_the_batch() -> None:
    """Where the sender chose them."""
    chosen = {"priority": int(Priority.URGENT), "routing_key": "nightly"}
    assert options_of(chosen, "long") == {"priority": Priority.URGENT, "queue": "nightly"}
    assert options_of({"priority": int(Priority.NORMAL), "routing_key": "long"}, "long") == {}
    assert options_of({}, "long") == {}


def test_an_urgent_batch_is_urgent_to_its_end(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Its chunks and its finish run with the priority of its message."""
    Urgent.apply_async((tmp_path,), priority=Priority.URGENT)
    urgent = int(Priority.URGENT)
    wait_until(lambda: f"finish at {urgent}" in lines(tmp_path), 20, "the batch is finished")
    assert lines(tmp_path) == [f"process at {urgent}"] * 3 + [f"finish at {urgent}"]


@pytest.mark.thorough
def test_a_flush_of_large_chunks_is_bounded(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Not a hundred of them: the splitter holds a few megabytes."""
    Heavy.delay(tmp_path)
    wait_until(lambda: "finish 30 of 30" in lines(tmp_path), 40, "the batch is finished")
    waits = [line for line in lines(tmp_path) if line.startswith("item")]
    assert waits[0] == "item 0, 0 wait"
    assert len({line.rpartition(", ")[2] for line in waits}) > 1, "some were sent before all were read"


def test_a_lease_that_redis_forgot_is_not_lost(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Nobody else has it: the job goes on, as after a flush."""
    assert Extends.apply_async((tmp_path,), ignore_result=False).get(timeout=patient(20)) == "went on"
