"""Chapter 9: a batch is a task over items, cut into chunks that are messages of their own (R5, R19)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conventions import EVERY_ARGUMENT, BatchTask, BusinessError, Progress, RetryPolicy, chunked
from conventions.app import ConventionsApp
from conventions.broker.batch_membership import chunk_id
from conventions.dead_letters.resend import redrive
from tests.support import wait_until
from tests.workers import wait_for_letter


class Import(BatchTask):
    """Import numbers from a file, one to a line; a chunk with a bad line waits for a file called `mended`."""

    idempotent_on = EVERY_ARGUMENT
    chunk_size = 10
    retry_policy = RetryPolicy(attempts=1)

    def items(self, file: Path) -> Iterator[str]:
        with file.open() as lines:
            yield from (line.strip() for line in lines)

    def count(self, file: Path) -> int:
        return len(file.read_text().splitlines())

    def process(self, chunk: list[str], file: Path) -> int:
        if "bad" in chunk and not file.with_name("mended").exists():
            raise BusinessError("a bad line")
        return sum(int(line) for line in chunk if line != "bad")

    def finish(self, summary: Any, file: Path) -> None:
        result = f"{summary.done} done, {summary.failed} failed, sum {sum(summary.returns)}\n"
        with file.with_name("finished").open("a") as lines:
            lines.write(result)

    def recovered(self, summary: Any, file: Path) -> None:
        file.with_name("recovered").write_text(f"{summary.done} done, {summary.failed} failed")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """25 lines: three chunks."""
    path = tmp_path / "numbers"
    path.write_text("\n".join(str(number) for number in range(25)))
    return path


def finished(file: Path) -> str:
    """Wait for what `finish` writes."""
    path = file.with_name("finished")
    wait_until(lambda: path.exists() and path.read_text(), description="finish was called")
    return path.read_text()


def test_items_are_processed_in_chunks_and_finish_is_called_once(live_app: ConventionsApp, file: Path) -> None:
    """`process` ran for 10, 10 and 5 items; `finish` got the summary."""
    batch = Import.delay(file)
    assert finished(file) == "25 done, 0 failed, sum 300\n"
    summary = live_app.batches.summary(batch.id)
    assert summary is not None
    assert (summary.chunks, summary.returns) == (3, [45, 145, 110])


def test_a_batch_shows_its_progress(file: Path) -> None:
    """The id that `delay` returned is the batch's id."""
    batch = Import.delay(file)
    progress = wait_until(lambda: (read := Progress.of(batch.id)).finished and read, description="finished")
    assert (progress.done, progress.failed, progress.total, progress.percent) == (25, 0, 25, 100)


def test_a_dead_chunk_fails_alone(live_app: ConventionsApp, file: Path) -> None:
    """The other chunks are processed, and `finish` is called all the same."""
    file.write_text("\n".join(["bad", *map(str, range(1, 25))]))
    batch = Import.delay(file)
    assert finished(file) == "15 done, 10 failed, sum 255\n"
    assert wait_for_letter(live_app, chunk_id(batch.id, 0)).error == "BusinessError"


def test_a_mended_chunk_corrects_the_batch(live_app: ConventionsApp, file: Path) -> None:
    """Its letter is redriven, and `recovered` is called with the new summary."""
    file.write_text("\n".join(["bad", *map(str, range(1, 25))]))
    batch = Import.delay(file)
    finished(file)
    wait_until(lambda: live_app.batches.state(batch.id) == "done", description="done")
    file.with_name("mended").touch()
    letter = wait_for_letter(live_app, chunk_id(batch.id, 0))
    assert redrive(live_app, letter.id, "ann")
    path = file.with_name("recovered")
    wait_until(lambda: path.exists() and path.read_text(), description="recovered was called")
    assert path.read_text() == "25 done, 0 failed"
    assert finished(file).count("\n") == 1


def test_a_list_at_hand_is_cut_with_chunked() -> None:
    """For code that has its items already."""
    assert [len(chunk) for chunk in chunked(range(250))] == [100, 100, 50]
