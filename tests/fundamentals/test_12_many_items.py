"""Chapter 12: many items: ranges and ids for items that are big, sending a list, going on after a kill (R5, R19)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, LongRunningTask, PayloadError, RetryPolicy
from conventions.app import ConventionsApp
from tests.support import wait_until
from tests.workers import messages, wait_until_empty


class Resize(BatchTask):
    """Items are ids of big things: a chunk carries ids, and `process` looks them up."""

    idempotent_on = ("folder",)
    chunk_size = 3

    def items(self, folder: Path, after: int | None = None) -> Iterator[int]:
        """In the order of their ids, those after the last one that was cut: nothing is read twice."""
        pictures = sorted(int(path.stem) for path in folder.glob("*.picture"))
        return (id_ for id_ in pictures if after is None or id_ > after)

    def process(self, chunk: list[int], folder: Path) -> None:
        for id_ in chunk:
            picture = (folder / f"{id_}.picture").read_text()
            (folder / f"{id_}.small").write_text(picture[:1])


class Checksum(BatchTask):
    """Items are ranges of a big file: each item is an offset and a length, a chunk is a few of them."""

    idempotent_on = ("file",)
    chunk_size = 2

    def items(self, file: Path) -> Iterator[tuple[int, int]]:
        size = file.stat().st_size
        return ((start, min(1000, size - start)) for start in range(0, size, 1000))

    def process(self, chunk: list[list[int]], file: Path) -> int:
        total = 0
        with file.open("rb") as data:
            for start, length in chunk:
                data.seek(start)
                total += sum(data.read(length))
        return total

    def finish(self, summary: Any, file: Path) -> None:
        file.with_name("sum").write_text(str(sum(summary.returns)))


class Welcome(ImmediateTask):
    """One e-mail to one user; a thousand users are a thousand messages."""

    idempotent_on = ("user_id",)

    def run(self, user_id: int, folder: Path) -> None:
        (folder / f"{user_id}.sent").touch()


class Sum(ImmediateTask):
    """Take a chunk of a list that the sender has."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, items: list[int], chunk_index: int, total_chunks: int | None, folder: Path) -> None:
        (folder / f"{chunk_index} of {total_chunks}").write_text(str(sum(items)))


class Crawl(LongRunningTask):
    """Go on where the last attempt was."""

    idempotent_on = ("folder",)
    retry_policy = RetryPolicy(attempts=2, first_wait=0.1)

    def run(self, folder: Path) -> None:
        self.progress.total = 6
        for page in range(self.resumed_from or 1, 7):
            if page == 4 and not (folder / "failed").exists():
                (folder / "failed").touch()
                raise ValueError("the fourth page does not answer")
            with (folder / "pages").open("a") as pages:
                pages.write(f"{page}\n")
            self.progress.advance(note=f"page {page}")
            self.checkpoint(page + 1)


def test_a_chunk_of_big_items_carries_their_ids(live_app: ConventionsApp, tmp_path: Path) -> None:
    """The message stays small, whatever the pictures."""
    for number in range(8):
        (tmp_path / f"{number}.picture").write_text("x" * 100_000)
    batch = Resize.delay(tmp_path)
    wait_until(lambda: live_app.batches.state(batch.id) == "done", description="done")
    assert sorted(int(path.stem) for path in tmp_path.glob("*.small")) == list(range(8))


def test_a_chunk_of_a_big_file_carries_ranges(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Each worker reads its part itself."""
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)) * 20)
    batch = Checksum.delay(file)
    wait_until(lambda: live_app.batches.state(batch.id) == "done", description="done")
    assert (tmp_path / "sum").read_text() == str(sum(range(256)) * 20)
    summary = live_app.batches.summary(batch.id)
    assert summary is not None
    assert (summary.total, summary.chunks) == (6, 3)


def test_a_message_for_each_of_many(live_app: ConventionsApp, tmp_path: Path) -> None:
    """One call, few round trips, each a job of its own; a generator is never a list."""
    ids = Welcome.enqueue_many({"user_id": number, "folder": tmp_path} for number in range(1000))
    assert len(set(ids)) == 1000
    wait_until_empty(live_app, 60)
    assert len(list(tmp_path.glob("*.sent"))) == 1000


def test_a_fault_in_a_list_sends_nothing_of_its_part(app: ConventionsApp, tmp_path: Path) -> None:
    """The error names each faulty one by its index."""
    with pytest.raises(PayloadError, match=r"\[2\] Welcome: argument 'user_id'"):
        Welcome.enqueue_many([{"user_id": id_, "folder": tmp_path} for id_ in (1, 2, "three")])
    assert messages(app) == []


def test_a_list_is_sent_in_chunks(live_app: ConventionsApp, tmp_path: Path) -> None:
    """`run` takes `items`, and the index and number of chunks if it names them."""
    Sum.enqueue_chunks(list(range(250)), 100, kwargs={"folder": tmp_path})
    wait_until_empty(live_app)
    found = {path.name: int(path.read_text()) for path in tmp_path.iterdir()}
    assert found == {"0 of 3": sum(range(100)), "1 of 3": sum(range(100, 200)), "2 of 3": sum(range(200, 250))}


def test_a_long_job_goes_on_at_its_checkpoint(live_app: ConventionsApp, tmp_path: Path) -> None:
    """A retry, a kill, a redrive: `resumed_from` is what `checkpoint` was given last."""
    Crawl.delay(tmp_path)
    wait_until_empty(live_app, 20)
    assert (tmp_path / "pages").read_text().split() == ["1", "2", "3", "4", "5", "6"]


def test_a_chunk_is_json(app: ConventionsApp) -> None:
    """What a chunk's message carries (R19); anybody can read it."""
    kwargs = {"batch_id": "b", "chunk_index": 0, "total_chunks": None, "items": [3, 4], "arguments": {"folder": "f"}}
    Resize.chunk_task.apply_async(kwargs=kwargs)
    (sent,) = messages(app)
    assert json.loads(json.dumps(sent.arguments)) == kwargs
