"""Jobs whose process stands still while their claim is asked for: their arguments are checked in that moment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from conventions import ImmediateTask
from tests.crash.lane_crash_tasks import note, stand_still

STANDS_AT, STANDING = 200, "standing"  # the job at which a process stops, once, where this file is in its folder


def standing(number: int) -> int:
    """Check the argument of a job; takes long, in a worker that is to."""
    if number == STANDS_AT and Path(STANDING).exists():
        stand_still()
    return number


class Together(ImmediateTask):
    """Write a line."""

    idempotent_on = ("number",)

    def run(self, number: Annotated[int, AfterValidator(standing)]) -> None:
        """Short: in a group."""
        note(self, "start", number)


class Single(Together):
    """The same, each by itself."""

    idempotent_on = ("number",)
    fast_lane = False
