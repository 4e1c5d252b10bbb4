"""Chapter 5: when a message runs: priority, delay, expiry, cancellation (R7)."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask, Priority
from conventions.app import ConventionsApp
from tests.support import wait_until
from tests.workers import Installation


class Note(ImmediateTask):
    """Write one word and the time into a file."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, word: str, file: Path) -> None:
        with file.open("a") as lines:
            lines.write(f"{word} {time.time()}\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the notes go."""
    return tmp_path / "notes"


@pytest.fixture
def quiet(installation: Installation) -> Iterator[ConventionsApp]:
    """An application whose worker is started later, by hand."""
    with installation.application() as app:
        yield app


def words(file: Path) -> list[str]:
    """The words in the order in which they were written."""
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def test_an_urgent_message_overtakes(quiet: ConventionsApp, installation: Installation, file: Path) -> None:
    """Four messages wait; a worker with one slot takes the most urgent first."""
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT):
        Note.apply_async((priority.name, file), priority=priority)
    folder, here = str(Path(__file__).parent), Path(__file__).stem
    path = f"{installation.environment['PYTHONPATH']}:{folder}"
    with installation.worker("--pool=solo", PYTHONPATH=path, CONVENTIONS_TASK_PACKAGES=here):
        wait_until(lambda: len(words(file)) == 4, description="four notes")
    assert words(file) == ["URGENT", "HIGH", "NORMAL", "LOW"]


def test_a_bare_number_is_no_priority(app: ConventionsApp, file: Path) -> None:
    """1 is the highest priority on one broker and the lowest on another."""
    with pytest.raises(TypeError, match="write one of Priority"):
        Note.apply_async(("one", file), priority=1)


def test_a_message_may_wait(file: Path) -> None:
    """`countdown` is in seconds."""
    sent = time.time()
    Note.apply_async(("later", file), countdown=1.5)
    wait_until(lambda: words(file) == ["later"], description="the note")
    assert float(file.read_text().split()[1]) - sent >= 1.5


def test_a_message_may_wait_until_a_moment(file: Path) -> None:
    """`eta` is an aware datetime."""
    moment = datetime.now(UTC) + timedelta(seconds=1)
    Note.apply_async(("at", file), eta=moment)
    wait_until(lambda: words(file) == ["at"], description="the note")
    assert float(file.read_text().split()[1]) >= moment.timestamp()


def test_a_delay_beyond_a_week_belongs_into_a_schedule(app: ConventionsApp, file: Path) -> None:
    """A message that waits for months outlives the code that sent it."""
    with pytest.raises(ValueError, match="use a schedule, or raise CONVENTIONS_MAX_DELAY"):
        Note.apply_async(("next year", file), countdown=timedelta(days=365).total_seconds())


def test_a_message_that_did_not_start_can_be_cancelled(file: Path) -> None:
    """A cancelled message is acknowledged and not run."""
    message = Note.apply_async(("cancelled", file), countdown=1)
    Note.cancel(message.id)
    Note.apply_async(("after", file), countdown=2)
    wait_until(lambda: "after" in words(file), description="the note after it")
    assert words(file) == ["after"]
