"""Batches at their edges, with a real worker: nothing to do, faulty items, repeats, cancellation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, Progress, RetryPolicy
from conventions.app import ConventionsApp
from conventions.batches import BatchSummary, chunk_id, finish_id
from tests.support import wait_until
from tests.workers import messages, wait_for_letter


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


def test_a_duplicate_batch_is_not_cut_again(live_app: ConventionsApp, diary: Path) -> None:
    """The same arguments are the same job."""
    ended(live_app, Numbers.delay(11, diary))
    before = diary.read_text()
    again = Numbers.apply_async((11, diary), ignore_result=False)
    assert again.get(timeout=10)["chunks"] == 2
    assert diary.read_text() == before


def test_a_batch_that_is_cut_again_repeats_nothing(live_app: ConventionsApp, diary: Path) -> None:
    """As after a kill of the worker between two chunks: same ids, same keys, one finish."""
    batch = Numbers.delay(35, diary)
    first = ended(live_app, batch)
    for key in live_app.store.redis.scan_iter(match=live_app.store.key("claim", Numbers.name, "*")):
        live_app.store.redis.delete(key)
    again = Numbers.apply_async((35, diary), task_id=batch.id, ignore_result=False)
    assert again.get(timeout=10)["chunks"] == 4
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
    """Chunks that did not start are acknowledged and not run."""
    live_app.batches.create("cancelled", Numbers.name, 10)
    live_app.batches.set_state("cancelled", "cancelled")
    chunk = Numbers.chunk_task.apply_async(
        kwargs={
            "batch_id": "cancelled",
            "chunk_index": 0,
            "total_chunks": 1,
            "items": [1, 2],
            "arguments": {"n": 2, "diary": str(diary)},
        },
        ignore_result=False,
    )
    assert chunk.get(timeout=10) is None
    assert diary.read_text() == ""


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
