"""Batches whose workers are killed anywhere: every chunk is there once, and what follows is called once (R5, R19)."""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conventions.app import ConventionsApp
from conventions.batches.send_for_dead_sender import sweep
from conventions.broker.batch_membership import chunk_id
from conventions.dead_letters.resend import redrive
from tests.crash import batch_crash_tasks
from tests.crash.batch_crash_tasks import (
    DEAD_IN,
    ITEMS,
    KILLED_IN,
    MILLION,
    PER_TURN,
    STORM_CHUNK,
    GoneOn,
    Killed,
    Million,
    Orphaned,
    Reread,
    Storm,
)
from tests.crash.server import Breakable
from tests.crash.set_ups import on_each_set_up
from tests.support import wait_until
from tests.workers import Installation, Worker, letters, wait_for_letter, wait_until_empty

LONG = ("-Q", "long")  # all that is of a batch
PEAK = 300 * 1024  # KiB

ANYWHERE = [
    "count", "item 0", "item 34", f"item {PER_TURN - 1}", f"item {PER_TURN}", "end",
    "before save_cursor 1", "after save_cursor 1", "after send 1", "after flush 1", "before settle 1", "after settle 1",
    "before save_cursor 2", "after save_cursor 2", "after send 2", "after flush 2", "before settle 2", "after settle 2",
    "before note_is_cut 3", "after note_is_cut 3", "before settle 3",
]  # fmt: skip

# Where it is killed, what it finds then, and how many items were sent before that.
CHANGES = [
    (Reread, f"item {PER_TURN + 10}", "other 5", PER_TURN),
    (Reread, f"item {PER_TURN + 10}", "only 40", PER_TURN),
    *[(kind, "after save_cursor 1", "other 34", 0) for kind in (Reread, GoneOn)],
    *[(kind, "after save_cursor 1", "only 40", 0) for kind in (Reread, GoneOn)],
    *[(kind, "after flush 1", "other 34", PER_TURN) for kind in (Reread, GoneOn)],
    *[(kind, "after flush 2", f"other {PER_TURN + 30}", 2 * PER_TURN) for kind in (Reread, GoneOn)],
    *[(kind, "after flush 2", f"only {PER_TURN + 30}", 2 * PER_TURN) for kind in (Reread, GoneOn)],
    *[(kind, "after flush 2", f"only {PER_TURN}", 2 * PER_TURN) for kind in (Reread, GoneOn)],
    *[(kind, "before note_is_cut 3", f"only {2 * PER_TURN}", ITEMS) for kind in (Reread, GoneOn)],
]


@pytest.fixture
def task_module() -> str:
    """The tasks of these tests."""
    return batch_crash_tasks.__name__


@pytest.fixture
def worker(installation: Installation) -> Iterator[Worker]:
    """A worker with four pool processes, some of which die."""
    with installation.worker(*LONG, "-c", "4") as worker:
        yield worker


class Trace:
    """What a batch wrote down in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def lines(self, name: str) -> list[str]:
        """The lines of one of its files."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def items(self) -> Counter[int]:
        """How often each item was processed."""
        return Counter(map(int, self.lines("items")))

    def calls(self, what: str) -> list[dict[str, Any]]:
        """The summaries that `finish` or `recovered` was given, in order."""
        return [call for call in map(json.loads, self.lines("calls")) if call["what"] == what]


def wait_for_state(app: ConventionsApp, batch_id: str, state: str, timeout: float, what: str = "the batch") -> None:
    """Wait until a batch is in this state."""
    try:
        wait_until(lambda: app.batches.state(batch_id) == state, timeout)
    except AssertionError:
        found = app.batches.summary(batch_id), app.batches.cursor(batch_id)
        raise AssertionError(f"{what} is not {state} after {timeout:g} s: {found}") from None


def send_twice(app: ConventionsApp, batch_id: str, folder: Path, chunks: int) -> None:
    """Send a tenth of the chunks once more under their ids, some that have ended and some that have not."""
    wait_until(lambda: app.batches.summary(batch_id), description="the batch has begun")  # only then is a chunk counted
    indexes = random.Random(19).sample(range(chunks), chunks // 10)
    for position, index in enumerate(sorted(indexes)):
        # Every other one when about as many chunks have ended: that is when the first copy runs, or has ended.
        if position % 2:
            wait_until(lambda index=index: ended(app, batch_id) >= index, 60, f"{index} chunks have ended")  # type: ignore[misc]
        first = index * STORM_CHUNK
        kwargs = {
            "batch_id": batch_id,
            "chunk_index": index,
            "total_chunks": chunks,
            "items": [*range(first, first + STORM_CHUNK)],
            "arguments": {"folder": str(folder), "chunks": chunks},
        }
        Storm.chunk_task.apply_async(kwargs=kwargs, task_id=chunk_id(batch_id, index))


def ended(app: ConventionsApp, batch_id: str) -> int:
    """How many chunks have ended."""
    summary = app.batches.summary(batch_id)
    return (summary.done + summary.failed) // STORM_CHUNK if summary else 0


def check_finish(trace: Trace, chunks: int, dead: Sequence[int]) -> None:
    """`finish` was called once, after all chunks, with what is true then."""
    (finish,) = trace.calls("finish")
    assert finish["at"] >= max(map(float, trace.lines("ends")))
    assert (finish["total"], finish["chunks"]) == (chunks * STORM_CHUNK, chunks)
    assert finish["failed"] == len(dead) * STORM_CHUNK
    assert finish["done"] == finish["total"] - finish["failed"]
    assert (finish["failed_chunks"], finish["cancelled_chunks"]) == (dead, [])


def check_summary(app: ConventionsApp, batch_id: str, chunks: int, failed: list[int]) -> None:
    """What everybody can read of the batch, with these chunks dead."""
    summary = app.batches.summary(batch_id)
    assert summary is not None
    total, items = chunks * STORM_CHUNK, len(failed) * STORM_CHUNK
    assert (summary.state, summary.total, summary.chunks) == ("done", total, chunks)
    assert (summary.done, summary.failed, summary.failed_chunks) == (total - items, items, failed)


def wait_for_dead(app: ConventionsApp, ids: set[str], generation: int) -> None:
    """Wait until exactly these messages are dead letters that were redriven so often."""
    wait_until(lambda: {one.id for one in letters(app) if one.generation == generation} == ids, 30, "all are dead")
    assert len(letters(app, state=None)) == len(ids)


@on_each_set_up
@pytest.mark.parametrize("chunks", [300, pytest.param(1000, marks=pytest.mark.soak)])
def test_chunks_in_a_storm(
    app: ConventionsApp, worker: Worker, servers: Sequence[Breakable], tmp_path: Path, chunks: int
) -> None:
    """A tenth of the processes die, a tenth of the messages come twice, a hundredth are dead letters and are redriven."""
    trace, total, failing = Trace(tmp_path / "storm"), chunks * STORM_CHUNK, [*range(0, chunks, DEAD_IN)]
    batch = Storm.delay(folder=trace.folder, chunks=chunks)
    send_twice(app, batch.id, trace.folder, chunks)
    wait_for_state(app, batch.id, "done", 180)
    check_finish(trace, chunks, failing)
    assert len([*trace.folder.glob("killed-*")]) == chunks // KILLED_IN

    dead = {chunk_id(batch.id, index) for index in failing}
    wait_for_dead(app, dead, generation=0)
    assert all(redrive(app, id_, "ann") for id_ in dead)
    wait_for_dead(app, dead, generation=1)  # too early, so they died again, which changes nothing
    check_summary(app, batch.id, chunks, failed=failing)
    assert trace.calls("recovered") == []

    (trace.folder / "mended").touch()
    assert all(redrive(app, id_, "ann") for id_ in dead)
    wait_until(lambda: (calls := trace.calls("recovered")) and calls[-1]["failed"] == 0, 30, "it has recovered")
    wait_until_empty(app, 30, servers)
    assert trace.calls("recovered")[-1]["done"] == total
    check_summary(app, batch.id, chunks, failed=[])
    assert len(trace.calls("finish")) == 1
    # A process that died after the effect, and before anybody knew of it, is the one reason for a second time.
    twice = {item for item in range(total) if item // STORM_CHUNK % 20 == 13}
    assert trace.items == Counter({item: 2 if item in twice else 1 for item in range(total)})
    assert worker.process.poll() is None


@on_each_set_up
def test_a_splitter_that_is_killed_anywhere_repeats_and_skips_no_chunk(
    installation: Installation, app: ConventionsApp, worker: Worker, servers: Sequence[Breakable], tmp_path: Path
) -> None:
    """Before, between and after all of its steps, with items that are read again, and with items that go on."""
    sent: dict[str, tuple[Trace, str]] = {}
    for kind in (Reread, GoneOn):
        for point in ANYWHERE:
            trace = Trace(tmp_path / f"{kind.__name__}-{point}")
            sent[kind.delay(folder=trace.folder, point=point, then="same").id] = trace, f"{kind.__name__} {point}"
    for batch_id, (_, which) in sent.items():
        wait_for_state(app, batch_id, "done", 120, which)
    wait_until_empty(app, 30, servers)
    for batch_id, (trace, which) in sent.items():
        assert (trace.folder / "killed").exists(), which
        assert trace.items == Counter(range(ITEMS)), which
        (finish,) = trace.calls("finish")
        found = finish["total"], finish["done"], finish["failed"], finish["chunks"]
        assert found == (ITEMS, ITEMS, 0, math.ceil(ITEMS / Killed.chunk_size)), which
        summary = app.batches.summary(batch_id)
        assert summary is not None
        assert (summary.done, summary.failed) == (ITEMS, 0), which
    assert letters(app, state=None) == []


def test_items_that_changed_meanwhile_are_said_so(
    installation: Installation, app: ConventionsApp, worker: Worker, tmp_path: Path
) -> None:
    """The splitter is a dead letter, what was sent goes on, and nothing is finished; later items may change."""
    sent: dict[str, tuple[Trace, str, int]] = {}
    for number, (kind, point, then, items) in enumerate(CHANGES):
        trace = Trace(tmp_path / f"changed-{number}")
        which = f"{kind.__name__}: {point}, {then}"
        sent[kind.delay(folder=trace.folder, point=point, then=then).id] = trace, which, items
    later = Trace(tmp_path / "later")
    unharmed = Reread.delay(folder=later.folder, point="before save_cursor 2", then=f"other {PER_TURN}")
    for batch_id, (_, which, _) in sent.items():
        wait_for_state(app, batch_id, "dead", 120, which)
        letter = wait_for_letter(app, batch_id)
        assert (letter.error, letter.state) == ("ItemsChanged", "dead"), which
        assert "the items changed" in letter.error_message, which
    wait_for_state(app, unharmed.id, "done", 120)
    wait_until_empty(app, 30)
    for batch_id, (trace, which, items) in sent.items():
        assert trace.items == Counter(range(items)), which
        assert trace.lines("calls") == [], which
        assert app.batches.state(batch_id) == "dead", which
    assert later.items == Counter(-item if item == PER_TURN else item for item in range(ITEMS))
    assert len(letters(app, state=None)) == len(sent)


@on_each_set_up
def test_the_worker_dies_between_the_last_chunk_and_its_finish(
    installation: Installation, app: ConventionsApp, servers: Sequence[Breakable], tmp_path: Path
) -> None:
    """It was noted in the step that settled the chunk, so a sweep sends it, and a second sweep sends nothing more."""
    trace, closing = Trace(tmp_path / "orphaned"), app.store.key("closing")
    with installation.worker(*LONG, "-c", "1"):  # one after the other, so that nobody else looks at the batch after it
        batch = Orphaned.delay(folder=trace.folder)
        wait_until((trace.folder / "killed").exists, 30, "the process died")
        wait_until_empty(app, 20, servers)
        assert app.batches.state(batch.id) == "running"
        assert trace.lines("calls") == []
        assert app.store.redis.zscore(closing, batch.id) is not None
        for _ in range(2):
            app.store.redis.zadd(closing, {batch.id: 0})
            sweep(app)
        wait_for_state(app, batch.id, "done", 40)  # sooner than a minute, after which it would be sent without this
        wait_until_empty(app, 20, servers)
    (finish,) = trace.calls("finish")
    assert (finish["done"], finish["failed"], finish["total"], finish["chunks"]) == (20, 0, 20, 2)
    assert trace.items == Counter(range(20))
    assert app.store.redis.zscore(closing, batch.id) is None


def test_a_million_items_in_little_memory(
    installation: Installation, app: ConventionsApp, worker: Worker, tmp_path: Path
) -> None:
    """They are never all there at once, neither in the splitter nor in what it sends."""
    trace = Trace(tmp_path / "million")
    batch = Million.delay(folder=trace.folder)
    wait_for_state(app, batch.id, "done", 240)
    summary = app.batches.summary(batch.id)
    assert summary is not None
    assert (summary.done, summary.failed, summary.total, summary.chunks) == (MILLION, 0, MILLION, 1000)
    peaks = [*map(int, trace.lines("peak"))]
    assert peaks
    assert max(peaks) < PEAK
