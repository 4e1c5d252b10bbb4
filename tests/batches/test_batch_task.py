"""Batches at their edges, with a real worker: nothing to do, faulty items, repeats, cancellation."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, Progress, RetryPolicy
from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.batches.batch_summary import BatchSummary
from conventions.batches.send_for_dead_sender import sweep
from conventions.broker.batch_membership import chunk_id, finish_id
from conventions.dead_letters.resend import redrive
from tests import raw_messages as raw
from tests.support import patient, wait_until
from tests.workers import messages, wait_for_letter, wait_until_empty


class Diary(BatchTask, abstract=True):
    """Write down every call."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 10
    retry_policy = RetryPolicy(attempts=1)

    def process(self, chunk: list[int], n: int, diary: Path) -> int:
        self.write(diary, f"process {chunk[0]}..{chunk[-1]} of {n}")
        return len(chunk)

    def finish(self, summary: BatchSummary, n: int, diary: Path) -> None:
        self.write(diary, f"finish {summary.done}+{summary.failed}/{summary.total} {summary.chunks} of {n}")

    def write(self, diary: Path, line: str) -> None:
        with diary.open("a") as lines:
            lines.write(line + "\n")


class Numbers(Diary):
    """Process numbers."""

    aliases = ("test_batch_task.OldNumbers",)

    def items(self, n: int, diary: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        yield from range(n)


class Unreadable(Diary):
    """Fail after the last item."""

    def items(self, n: int, diary: Path) -> Iterator[int]:
        yield from range(n)
        raise BusinessError(f"{diary.name} ends at {n}")


class NotJson(Diary):
    """Yield an item that no message can hold."""

    def items(self, n: int, diary: Path) -> Iterator[Any]:  # noqa: ARG002  # it is an argument of `process`
        yield from (object() for _ in range(n))


class Huge(Diary):
    """Yield items that are too large together."""

    def items(self, n: int, diary: Path) -> Iterator[str]:  # noqa: ARG002  # it is an argument of `process`
        yield from ("x" * 200_000 for _ in range(n))


class Turns(Diary):
    """Cut three chunks in a turn."""

    chunks_per_turn = 3

    def items(self, n: int, diary: Path) -> Iterator[int]:
        self.write(diary, f"cut from the start by {self.actor}")
        yield from range(n)


class Keyed(Diary):
    """Yield what comes after an item, three chunks in a turn."""

    chunks_per_turn = 3

    def items(self, n: int, diary: Path, after: dict[str, int] | None = None) -> Iterator[dict[str, int]]:
        self.write(diary, f"cut after {after and after['key']}")
        for key in range(after["key"] + 1 if after else 0, n):
            yield {"key": key}

    def process(self, chunk: list[dict[str, int]], n: int, diary: Path) -> None:  # type: ignore[override]  # other items
        self.write(diary, f"process {chunk[0]['key']}..{chunk[-1]['key']} of {n}")


class Broken(Diary):
    """Fail for some numbers until a file is there; say what was recovered."""

    def items(self, n: int, diary: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        yield from range(n)

    def process(self, chunk: list[int], n: int, diary: Path) -> int:
        if chunk[0] in (10, 30) and not diary.with_name("mended").exists():
            raise BusinessError(f"broken at {chunk[0]}")
        return super().process(chunk, n, diary)

    def recovered(self, summary: BatchSummary, n: int, diary: Path) -> None:
        self.write(diary, f"recovered {summary.done}+{summary.failed}/{summary.total} of {n}")


class Slow(Diary):
    """Wait for a file in the middle."""

    chunk_size = 5

    def items(self, diary: Path) -> Iterator[int]:
        for number in range(1500):
            if number == 800:
                diary.with_name("waiting").touch()
                while not diary.with_name("go").exists():
                    time.sleep(0.02)
            yield number

    def process(self, chunk: list[int], diary: Path) -> None:  # type: ignore[override]  # takes no number
        self.write(diary, f"process {chunk[0]}")

    def finish(self, summary: BatchSummary, diary: Path) -> None:  # type: ignore[override]  # the same
        self.write(diary, f"finish {summary.done}")


class Held(Diary):
    """Hold every chunk until a file is there."""

    def items(self, diary: Path) -> Iterator[int]:  # noqa: ARG002  # it is an argument of `process`
        yield from range(40)

    def process(self, chunk: list[int], diary: Path) -> None:  # type: ignore[override]  # noqa: ARG002  # takes no number
        while not diary.with_name("open").exists():
            time.sleep(0.02)
            self.progress.advance(0)

    def finish(self, summary: BatchSummary, diary: Path) -> None:  # type: ignore[override]  # the same
        self.write(diary, f"finish {summary.done}")


class Plain(BatchTask):
    """Process without a finish, and without annotations but those of `items`."""

    idempotent_on = ("path",)

    def items(self, path: Path):  # type: ignore[no-untyped-def]  # what is tested
        yield from path.read_text()

    def process(self, chunk, path):  # type: ignore[no-untyped-def]  # what is tested
        path.with_name("processed").write_text("".join(chunk))


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    """Where the calls are written down."""
    path = tmp_path / "diary"
    path.touch()
    return path


def ended(app: ConventionsApp, batch: AsyncResult[Any], state: str = "done") -> BatchSummary:
    """Wait until a batch is in this state."""
    wait_until(lambda: app.batches.state(batch.id) == state, description=f"the batch is {state}")
    summary = app.batches.summary(batch.id)
    assert summary is not None
    return summary


def test_one_class_makes_three_tasks(app: ConventionsApp) -> None:
    """The splitter under its own name, the chunk and the finish; aliases follow."""
    for role in ("", ".chunk", ".finish"):
        task = app.tasks[Numbers.name + role]
        assert task.queue_name == "long"
        assert task.aliases == (f"test_batch_task.OldNumbers{role}",)


def test_a_batch_without_items_finishes(live_app: ConventionsApp, diary: Path) -> None:
    """Zero of zero is a hundred percent."""
    batch = Numbers.delay(0, diary)
    summary = ended(live_app, batch)
    assert (summary.total, summary.done, summary.chunks, summary.percent) == (0, 0, 0, 100)
    assert diary.read_text() == "finish 0+0/0 0 of 0\n"


def test_the_last_chunk_is_shorter(live_app: ConventionsApp, diary: Path) -> None:
    """And items are cut in their order."""
    ended(live_app, Numbers.delay(23, diary))
    *chunks, last = diary.read_text().splitlines()
    assert sorted(chunks) == ["process 0..9 of 23", "process 10..19 of 23", "process 20..22 of 23"]
    assert last == "finish 23+0/23 3 of 23"


def test_chunks_say_which_they_are(app: ConventionsApp) -> None:
    """Each message carries its items, its index and the number of chunks, when that is known (R19)."""
    Plain.chunk_task.apply_async(
        kwargs={"batch_id": "b", "chunk_index": 2, "total_chunks": 7, "items": ["x"], "arguments": {"path": "p"}}
    )
    (sent,) = messages(app)
    assert sent.arguments == {
        "batch_id": "b",
        "chunk_index": 2,
        "total_chunks": 7,
        "items": ["x"],
        "arguments": {"path": "p"},
    }


@pytest.mark.parametrize("task", [Numbers, Keyed])
def test_a_batch_runs_here_by_apply(app: ConventionsApp, diary: Path, task: type[Diary]) -> None:
    """For a test without a worker: all chunks one after the other, then the finish; nothing is sent."""
    result = task.apply((23, diary))
    assert result.get()["chunks"] == 3
    lines = diary.read_text().splitlines()
    assert [line for line in lines if "cut" not in line] == [
        "process 0..9 of 23",
        "process 10..19 of 23",
        "process 20..22 of 23",
        "finish 23+0/23 3 of 23",
    ]
    assert messages(app) == []


def test_a_batch_is_cut_in_turns(live_app: ConventionsApp, diary: Path) -> None:
    """So that others run meanwhile: what was cut is skipped, each chunk is sent once, all for the same actor."""
    batch = Turns.apply_async((75, diary), actor="u-7")
    summary = ended(live_app, batch)
    assert (summary.done, summary.chunks, summary.actor) == (75, 8, "u-7")
    lines = diary.read_text().splitlines()
    assert lines.count("cut from the start by u-7") == 3
    assert len([line for line in lines if line.startswith("process")]) == 8
    assert lines[-1] == "finish 75+0/75 8 of 75"
    wait_until_empty(live_app)


def test_a_batch_with_a_keyset_reads_nothing_twice(live_app: ConventionsApp, diary: Path) -> None:
    """`items` gets the last item as JSON, and is no argument of the task."""
    assert list(Keyed.registered.arguments.names) == ["n", "diary"]
    batch = Keyed.delay(75, diary)
    summary = ended(live_app, batch)
    assert (summary.done, summary.chunks) == (75, 8)
    lines = diary.read_text().splitlines()
    assert [line for line in lines if line.startswith("cut")] == ["cut after None", "cut after 29", "cut after 59"]
    assert len([line for line in lines if line.startswith("process")]) == 8


def test_a_duplicate_waits_until_the_batch_is_cut(live_app: ConventionsApp, diary: Path) -> None:
    """The key is held from turn to turn: no second batch cuts the same items in between."""
    first = Turns.apply_async((200, diary), ignore_result=False)
    # Two threads take them in any order.
    wait_until(lambda: live_app.batches.state(first.id), 10, "the first has begun")
    second = Turns.apply_async((200, diary), ignore_result=False)
    assert (
        first.get(timeout=patient(30))
        == second.get(timeout=patient(60))
        == {"batch": first.id, "chunks": 20, "total": 200}
    )
    ended(live_app, first)
    found = live_app.batches.summary(second.id)
    assert found is not None
    assert found.id == first.id, "whoever looks for the second finds the first"
    assert Progress.of(second.id).done == 200
    assert diary.read_text().count("process") == 20


def test_redriven_chunks_correct_the_summary(live_app: ConventionsApp, diary: Path) -> None:
    """`finish` says what failed; as soon as a dead chunk has succeeded, `recovered` says what there is now."""
    batch = Broken.delay(45, diary)
    summary = ended(live_app, batch)
    assert (summary.done, summary.failed, summary.failed_chunks) == (25, 20, [1, 3])
    diary.with_name("mended").touch()
    for index in summary.failed_chunks:
        wait_for_letter(live_app, chunk_id(batch.id, index))
        assert redrive(live_app, chunk_id(batch.id, index), "ann")
    wait_until(lambda: "recovered 45+0/45 of 45" in diary.read_text(), description="the last recovered")
    lines = diary.read_text().splitlines()
    assert [line for line in lines if line.startswith("finish")] == ["finish 25+20/45 5 of 45"]
    assert ended(live_app, batch).failed_chunks == []


@pytest.mark.parametrize("how", ["cancelled", "revoked", "expired"])
def test_a_chunk_that_ends_without_having_run_joins(live_app: ConventionsApp, diary: Path, how: str) -> None:
    """The batch is finished without it, and says which it was."""
    origin = Origin(Numbers.name, {"n": 4, "diary": str(diary)}, "system")
    live_app.batches.create(f"batch-{how}", origin, 4)
    live_app.batches.note_is_cut(f"batch-{how}", chunks=2, total=4)
    for index in (0, 1):
        options: dict[str, Any] = {}
        if index and how == "expired":
            options["expires"] = -1
        if index and how == "cancelled":
            Numbers.chunk_task.cancel(f"{how}-{index}")
        if index and how == "revoked":
            live_app.control.revoke(f"{how}-{index}", reply=True, timeout=20, limit=1)
        kwargs = {"batch_id": f"batch-{how}", "chunk_index": index, "total_chunks": 2, "items": [index, index]}
        Numbers.chunk_task.apply_async(
            kwargs=kwargs | {"arguments": origin.arguments}, task_id=f"{how}-{index}", **options
        )
    wait_until(lambda: live_app.batches.state(f"batch-{how}") == "done", 20, "the batch is finished")
    summary = live_app.batches.summary(f"batch-{how}")
    assert summary is not None
    assert (summary.done, summary.failed, summary.cancelled_chunks, summary.failed_chunks) == (2, 2, [1], [])
    assert "finish 2+2/4 2 of 4" in diary.read_text()


def test_a_chunk_that_no_worker_can_read_joins(live_app: ConventionsApp, diary: Path) -> None:
    """Its header says which it was: unknown arguments are a dead letter, and the batch is finished."""
    origin = Origin(Numbers.name, {"n": 4, "diary": str(diary)}, "system")
    live_app.batches.create("unread", origin, 2)
    live_app.batches.note_is_cut("unread", chunks=1, total=2)
    body = raw.body(kwargs={"batch_id": "unread", "what": "is this"})
    member: dict[str, Any] = {"x_batch": ["unread", "chunk", 0, 2]}
    raw.publish(live_app, "long", body, raw.headers(Numbers.chunk_task.name, "unread-0", **member))
    assert wait_for_letter(live_app, "unread-0").error == "PayloadError"
    wait_until(lambda: live_app.batches.state("unread") == "done", 20, "the batch is finished")
    assert "finish 0+2/2 1 of 4" in diary.read_text()


def test_a_duplicate_batch_is_not_cut_again(live_app: ConventionsApp, diary: Path) -> None:
    """The same arguments are the same job."""
    ended(live_app, Numbers.delay(11, diary))
    before = diary.read_text()
    again = Numbers.apply_async((11, diary), ignore_result=False)
    assert again.get(timeout=patient(10))["chunks"] == 2
    assert diary.read_text() == before


def test_a_batch_that_is_cut_again_repeats_nothing(live_app: ConventionsApp, diary: Path) -> None:
    """As after a kill of the worker between two chunks: same ids, same keys, one finish."""
    batch = Numbers.delay(35, diary)
    first = ended(live_app, batch)
    for key in live_app.store.redis.scan_iter(match=live_app.store.key("claim", Numbers.name, "*")):
        live_app.store.redis.delete(key)
    Numbers.apply_async((35, diary), task_id=batch.id)
    wait_until_empty(live_app)
    second = ended(live_app, batch)
    assert (second.done, second.chunks, second.returns) == (first.done, first.chunks, first.returns)
    assert diary.read_text().count("process") == 4
    assert diary.read_text().count("finish") == 1


def test_items_that_cannot_be_read(live_app: ConventionsApp, diary: Path) -> None:
    """The batch is dead, its message is a letter, and `finish` is not called."""
    batch = Unreadable.delay(25, diary)
    letter = wait_for_letter(live_app, batch.id)
    assert (letter.task, letter.error, letter.error_message) == (
        Unreadable.name,
        "BusinessError",
        "diary ends at 25",
    )
    summary = ended(live_app, batch, "dead")
    assert summary.chunks is None
    assert "finish" not in diary.read_text()


def test_an_item_that_is_not_json(live_app: ConventionsApp, diary: Path) -> None:
    """The message says so, with the name of the task."""
    letter = wait_for_letter(live_app, NotJson.delay(3, diary).id)
    assert letter.error == "PayloadError"
    assert "JSON" in letter.error_message


def test_a_chunk_that_is_too_large(live_app: ConventionsApp, diary: Path) -> None:
    """A chunk has a limit of its own, 1 MiB."""
    letter = wait_for_letter(live_app, Huge.delay(10, diary).id)
    assert letter.error == "PayloadError"
    assert "the limit is 1,048,576" in letter.error_message


def test_a_batch_needs_no_finish_and_few_annotations(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Two methods are enough."""
    path = tmp_path / "text"
    path.write_text("hello")
    summary = ended(live_app, Plain.delay(path))
    assert (summary.done, summary.total, summary.returns) == (5, 5, [])
    assert (tmp_path / "processed").read_text() == "hello"


def test_a_cancelled_batch_does_no_more(live_app: ConventionsApp, diary: Path) -> None:
    """Chunks that did not start end as cancelled, and are not run; nothing is finished."""
    live_app.batches.create("cancelled", Origin(Numbers.name, {"n": 2, "diary": str(diary)}, "system"), 10)
    assert live_app.batches.cancel("cancelled")
    Numbers.chunk_task.apply_async(
        kwargs={
            "batch_id": "cancelled",
            "chunk_index": 0,
            "total_chunks": 1,
            "items": [1, 2],
            "arguments": {"n": 2, "diary": str(diary)},
        },
    )
    wait_until_empty(live_app)
    summary = live_app.batches.summary("cancelled")
    assert summary is not None
    assert (summary.state, summary.cancelled_chunks, summary.failed) == ("cancelled", [0], 2)
    assert diary.read_text() == ""


@pytest.mark.parametrize("how", ["the batch", "its message"])
def test_a_batch_that_is_cancelled_while_it_is_cut(live_app: ConventionsApp, diary: Path, how: str) -> None:
    """By either name: nothing more is cut or processed, nothing is finished, and the same can be sent again."""
    waiting = diary.with_name("waiting")
    batch = Slow.delay(diary)
    wait_until(waiting.exists, description="it is cut")
    if how == "the batch":
        assert live_app.batches.cancel(batch.id)
    else:
        assert Slow.cancel(batch.id) == "running"
    diary.with_name("go").touch()
    wait_until_empty(live_app, 20)
    assert live_app.batches.state(batch.id) == "cancelled"
    assert "finish" not in diary.read_text()
    again = Slow.delay(diary)
    assert ended(live_app, again).total == 1500


def test_a_batch_that_is_cancelled_after_it_was_cut_can_be_sent_again(live_app: ConventionsApp, diary: Path) -> None:
    """As one that is cancelled before: its key is free."""
    diary.with_name("go").touch()
    first = Held.delay(diary)
    wait_until(lambda: (found := live_app.batches.summary(first.id)) and found.chunks == 4, description="it is cut")
    assert live_app.batches.cancel(first.id)
    diary.with_name("open").touch()
    wait_until_empty(live_app)
    assert "finish" not in diary.read_text()
    second = Held.delay(diary)
    assert ended(live_app, second).done == 40
    assert live_app.batches.state(first.id) == "cancelled"


def test_the_listing_has_the_newest_first(live_app: ConventionsApp, diary: Path) -> None:
    """For `celery batch list`."""
    first, second = Numbers.delay(1, diary), Numbers.delay(2, diary)
    ended(live_app, first)
    ended(live_app, second)
    newest = [summary.id for summary in live_app.batches.listing(2)]
    assert set(newest) == {first.id, second.id}


def test_a_batch_arrives_under_its_old_name(live_app: ConventionsApp, diary: Path) -> None:
    """A message that was sent before the class was renamed."""
    batch = live_app.send_task(
        "test_batch_task.OldNumbers", kwargs={"n": 3, "diary": str(diary)}, queue="long", task_id="old"
    )
    assert ended(live_app, batch).done == 3


def test_ids_of_a_batch_are_fixed() -> None:
    """They must not change with a release: messages in flight have them."""
    assert chunk_id("b", 0) == "dc85e88f-6e70-5e45-b5c0-e3e0230025a0"
    assert finish_id("b") == "02355a47-eb29-5b70-a1cd-1057082f10b5"


def test_progress_of_a_batch_that_never_was(live_app: ConventionsApp) -> None:
    """Zero, and no percentage."""
    assert Progress.of("never").percent is None
    assert live_app.batches.summary("never") is None


def test_one_batch_keeps_no_other_from_being_finished(app: ConventionsApp, tmp_path: Path) -> None:
    """What its process should have sent is sent by a sweep, also behind a batch of which Redis has something odd."""
    fine = Origin(Numbers.name, {"n": 0, "diary": str(tmp_path / "d")}, "u-42")
    for batch_id in ("a-odd", "b-fine"):
        app.batches.create(batch_id, fine, 0)
        app.batches.note_is_cut(batch_id, chunks=0, total=0)
        app.store.redis.zadd(app.store.key("closing"), {batch_id: 0})
    app.store.redis.hset(app.store.key("batch", "a-odd"), "arguments", "no json")
    app.store.redis.zadd(app.store.key("closing"), {b"\xff\xfe": 0})
    assert sweep(app) == 3
    assert [one.id for one in messages(app)] == [finish_id("b-fine")]
