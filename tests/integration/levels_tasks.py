"""Tasks that wait for the file `go`, for the tests of how things stand."""

from pathlib import Path

from celery import shared_task

from conventions import EVERY_ARGUMENT, ImmediateTask, LongRunningTask
from tests.support import wait_until


class Hold(ImmediateTask):
    """Wait for the file `go`."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path, number: int) -> None:  # noqa: ARG002  # it tells jobs apart
        wait_until((folder / "go").exists, timeout=60)


class Far(LongRunningTask):
    """Report how far it is, and wait for the file `go`."""

    queue_name = "far"
    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> None:
        self.progress.total = 4
        self.progress.advance(1)
        self.progress.flush()
        wait_until((folder / "go").exists, timeout=60)


class Nobody(ImmediateTask):
    """Has no worker."""

    queue_name = "nobody"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


@shared_task
def plain(folder: str) -> None:
    """Wait for the file `go`, as a function of plain Celery."""
    wait_until((Path(folder) / "go").exists, timeout=60)
