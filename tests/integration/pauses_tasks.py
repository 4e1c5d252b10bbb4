"""Tasks that say that they ran, for the tests of pauses."""

from pathlib import Path

from celery import shared_task

from conventions import EVERY_ARGUMENT, ImmediateTask
from tests.support import wait_until


def note(folder: Path, text: str) -> None:
    """Add a line to the file `ran`."""
    with (folder / "ran").open("a") as lines:
        lines.write(f"{text}\n")


class Note(ImmediateTask):
    """Say that it ran."""

    idempotent_on = EVERY_ARGUMENT
    aliases = ("old.note",)

    def run(self, folder: Path, number: int) -> None:
        note(folder, f"note {number} {self.attempt}")


class Other(ImmediateTask):
    """Say that it ran; in the same queue."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path, number: int) -> None:
        note(folder, f"other {number} {self.attempt}")


class Apart(ImmediateTask):
    """Say that it ran; in another queue."""

    queue_name = "apart"
    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path, number: int) -> None:
        note(folder, f"apart {number} {self.attempt}")


class Hold(ImmediateTask):
    """Wait for the file `go`, however long the test takes."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 500
    time_limit = 510

    def run(self, folder: Path, number: int) -> None:
        note(folder, f"hold {number}")
        wait_until((folder / "go").exists, timeout=400)


@shared_task(name="pauses.holds")
def holds(folder: str, number: int) -> None:
    """Wait for the file `go`, as a function of plain Celery."""
    note(Path(folder), f"holds {number}")
    wait_until((Path(folder) / "go").exists, timeout=60)


@shared_task(name="pauses.plain")
def plain(folder: str, number: int) -> None:
    """Say that it ran, as a function of plain Celery."""
    note(Path(folder), f"plain {number}")
