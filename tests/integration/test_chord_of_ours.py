"""A chord of our tasks of which one member is a dead letter: it ends, visibly, and its body does not run."""

import os
import signal
from pathlib import Path

import pytest
from celery import chord
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as NotInTime

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from tests.workers import letters, wait_for_letter, wait_until_empty

MEMBERS = 5
WITHIN = 60  # seconds
ENDS = {"refuses": ("BusinessError", 1), "is killed": ("TooManyStarts", 3)}  # the letter's error, and how many starts


class Part(ImmediateTask):
    """Write down the start, and return the number; one of them ends badly."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int, folder: Path, fate: str = "") -> int:
        with (folder / f"starts-{number}").open("a") as lines:
            lines.write("started\n")
        if fate == "refuses":
            raise BusinessError("not this one")
        if fate == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return number


class Whole(ImmediateTask):
    """The body: write down what it was given."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int], folder: Path) -> int:
        with (folder / "body").open("a") as lines:
            lines.write(f"{numbers}\n")
        return sum(numbers)


def starts(folder: Path) -> list[int]:
    """How often each member was started."""
    files = (folder / f"starts-{number}" for number in range(MEMBERS))
    return [len(file.read_text().split()) if file.exists() else 0 for file in files]


@pytest.mark.parametrize("position", [0, MEMBERS - 1])
@pytest.mark.parametrize("fate", ENDS)
def test_a_chord_with_a_dead_member_ends(live_app: ConventionsApp, tmp_path: Path, fate: str, position: int) -> None:
    """Whoever waits for it hears that it failed, and why; the letter of the member is there."""
    error, started = ENDS[fate]
    before = len(letters(live_app, state=None))
    members = [Part.s(n, tmp_path, fate) if n == position else Part.s(n, tmp_path) for n in range(MEMBERS)]
    result = chord(members)(Whole.s(tmp_path))
    try:  # else the first error of a member would be raised instead, also when the chord itself hangs
        failure = result.get(timeout=WITHIN, propagate=False)
    except NotInTime:
        states = [member.state for member in result.parent.results]
        raise AssertionError(f"the chord hangs: {result.state}, its members: {states}") from None
    assert result.state == "FAILURE"
    assert isinstance(failure, ChordError)
    dead = result.parent.results[position].id
    assert dead in str(failure)
    assert error in str(failure)
    letter = wait_for_letter(live_app, dead)
    assert (letter.task, letter.error, letter.state) == (Part.name, error, "dead")
    wait_until_empty(live_app, 30)
    assert starts(tmp_path) == [started if n == position else 1 for n in range(MEMBERS)]
    assert not (tmp_path / "body").exists()
    assert len(letters(live_app, state=None)) == before + 1
