"""A batch of short chunks in a queue that a worker reads ahead, for the tests of the fast lane."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from conventions import BatchTask
from conventions.batches.batch_summary import BatchSummary
from tests.integration.lane_tasks import note
from tests.lanes import waiting_behind


class Short(BatchTask):
    """Note each chunk, and the end of the batch; kill the own process in a group, once from each of these items on."""

    idempotent_on = ("folder", "items_in_all")
    queue_name = "immediate"
    chunk_size = 5

    def items(self, folder: Path, items_in_all: int, kill_from: list[int]) -> Iterator[int]:  # noqa: ARG002  # an argument of `process`
        yield from range(items_in_all)

    def process(self, chunk: list[int], folder: Path, items_in_all: int, kill_from: list[int]) -> int:  # noqa: ARG002  # the same
        note(self, folder, str(chunk[0]))
        if waiting_behind(self):
            for first in (one for one in kill_from if one <= chunk[0]):
                if is_first(folder / f"killed from {first}"):
                    os.kill(os.getpid(), signal.SIGKILL)
        return len(chunk)

    def finish(self, summary: BatchSummary, folder: Path, items_in_all: int, kill_from: list[int]) -> None:  # noqa: ARG002  # the same
        with (folder / "finished").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(summary)) + "\n")


def is_first(file: Path) -> bool:
    """Whether nobody made this file before."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
