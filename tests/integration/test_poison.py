"""Jobs that end badly: whatever they do, the worker lives, and each is one dead letter with all that is known of it."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.dead_letters import letters as dead_letters
from conventions.records import executions
from conventions.storage.tables import DeadLetterRow
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, keeper, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Bad, Good, Slow
from tests.stored_messages import stored
from tests.support import patient, wait_until
from tests.workers import Worker, acting_through, letters, wait_for_letter

START_LIMIT = 3


@pytest.fixture(autouse=True)
def _unharmed(worker: Worker, app: ConventionsApp) -> Iterator[None]:
    """The same main process runs a good job afterwards, and nothing is left in the broker."""
    yield
    raw.check_unharmed(app, worker, QUEUE)
    assert Good.delay(str(uuid4())).get(timeout=patient(10))


def starts(folder: Path, how: str) -> int:
    """How often the job began."""
    file = folder / how
    return len(file.read_text().split()) if file.exists() else 0


def one_letter(
    app: ConventionsApp, how: str, folder: Path, task: type[ImmediateTask] = Bad, *, interrupted: int = 0
) -> tuple[DeadLetterRow, list[str]]:
    """Send the job, and return its letter, which has all of the message, and its history: so many starts without an outcome, and the end."""
    sent = task.apply_async((folder, how), actor="u-7")
    payload = _payload(app, sent.id)
    letter = wait_for_letter(app, sent.id)
    assert (letter.task, letter.queue, letter.actor, letter.state) == (task.name, QUEUE, "u-7", "dead")
    assert letter.arguments == {"folder": str(folder), "how": how}
    assert (letter.headers["x_actor"], len(letter.headers["x_key"])) == ("u-7", 32)
    kept = dead_letters.message(letter)
    assert json.loads(b64decode(kept["body"]))[1] == letter.arguments
    assert (kept["headers"]["id"], kept["headers"]["task"]) == (sent.id, task.name)
    assert payload in (None, kept)
    assert len(letter.fingerprint) == 16
    found = history(app, sent.id)
    assert found == [*["interrupted"] * interrupted, "dead"]
    assert [one.id for one in letters(app, state=None)].count(sent.id) == 1
    return letter, found


def _payload(app: ConventionsApp, message_id: str) -> Any:
    """The message as it lies in the broker, where it has not ended yet."""
    payload = stored(app.store, message_id).get("payload")
    return payload and json.loads(payload)


def history(app: ConventionsApp, message_id: str) -> list[str]:
    """The kinds of a message's executions, in order."""
    with app.database.session() as session:
        return [row.kind for row in executions.of_message(session, message_id)]


RAISED = {
    "memory": ("MemoryError", "of 1 GiB"),
    "exit_system": ("JobExited", "3"),
    "generator_exit": ("JobExited", "GeneratorExit"),
    "slippery": ("JobExited", "base"),
    "interrupt": ("JobExited", "KeyboardInterrupt"),
    "recursion": ("RecursionError", "recursion"),
    "unpicklable": ("Unpicklable", "one"),
    "irreducible": ("Irreducible", "three"),
    "speechless": ("Speechless", "text cannot be read"),
    "odd_text": ("ValueError", "nul"),
    "unserializable": ("PayloadError", "return JSON values"),
    "infinite": ("PayloadError", "return JSON values"),
    "circular": ("PayloadError", "return JSON values"),
    "group": ("ExceptionGroup", "several"),
    "stop": ("StopIteration", "five"),
    "reject": ("JobRejected", "not wanted"),
    "reject_error": ("ValueError", "the reason"),
}


@pytest.mark.parametrize("how", RAISED)
def test_a_job_that_raises(app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """One start, one letter with the error, its text and its traceback."""
    error, text = RAISED[how]
    letter, _ = one_letter(app, how, tmp_path)
    assert (letter.error, letter.attempts, starts(tmp_path, how)) == (error, 1, 1)
    assert text in letter.error_message
    if how not in ("reject", "reject_error"):
        assert error in letter.traceback
        assert how in letter.traceback or error == "PayloadError"


@pytest.mark.parametrize(
    "how", ["exit_hard", "exit_clean", pytest.param("kill", marks=pytest.mark.everyday), "fault", "exit_killed"]
)
def test_a_job_that_kills_its_process(app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """Three starts without an outcome, then a letter; a process that ends never ends the worker. The history has each."""
    letter, _ = one_letter(app, how, tmp_path, interrupted=START_LIMIT)
    assert (letter.error, starts(tmp_path, how)) == ("TooManyStarts", START_LIMIT)
    assert "3 times" in letter.error_message


@pytest.mark.parametrize("how", ["stubborn", "deaf"])
def test_a_job_beyond_its_hard_limit(app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """One start, one letter, although Celery reports it twice."""
    letter, _ = one_letter(app, how, tmp_path, Slow)
    assert (letter.error, letter.attempts, starts(tmp_path, how)) == ("TimeLimitExceeded", 1, 1)


def test_a_job_that_rejects_and_wants_to_come_again(app: ConventionsApp, tmp_path: Path) -> None:
    """It comes again, but neither a thousand times a second nor for ever without a trace."""
    sent = Bad.delay(tmp_path, "requeue")
    wait_until(lambda: starts(tmp_path, "requeue") >= 3, 20)
    began = time.monotonic()
    first = starts(tmp_path, "requeue")
    wait_until(lambda: time.monotonic() - began > 3, 5)
    assert starts(tmp_path, "requeue") - first <= 6
    assert Bad.cancel(sent.id) in ("queued", "running")
    wait_until(lambda: raw.left(app, QUEUE) == (raw.EMPTY, []), 10, f"{raw.left(app, QUEUE)}")
    wait_until(lambda: history(app, sent.id) == ["cancelled"])


def test_a_job_that_ignores_its_message(app: ConventionsApp, tmp_path: Path) -> None:
    """It has ended: recorded, and no letter."""
    sent = Bad.delay(tmp_path, "ignore")
    wait_until(lambda: history(app, sent.id) == ["superseded"])
    assert starts(tmp_path, "ignore") == 1
    assert sent.id not in [letter.id for letter in letters(app, state=None)]


def test_many_killers_at_once(app: ConventionsApp, tmp_path: Path) -> None:
    """Twenty of them beside twenty good jobs: each good one is done, each bad one a letter after three starts."""
    folders = [tmp_path / str(number) for number in range(20)]
    for folder in folders:
        folder.mkdir()
    bad, good = [], []
    for number, folder in enumerate(folders):
        bad.append(Bad.delay(folder, "kill" if number % 2 else "exit_hard").id)
        good.append(Good.delay(folder.name))
    assert [one.get(timeout=patient(50)) for one in good] == [folder.name for folder in folders]
    wait_until(lambda: {*bad} <= {one.id for one in letters(app, error="TooManyStarts")}, 50, "all are letters")
    for number, folder in enumerate(folders):
        assert starts(folder, "kill" if number % 2 else "exit_hard") == START_LIMIT


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, pool: str) -> None:
    """There a job runs within the main process, which outlives everything that can be caught."""
    how = [*RAISED]
    bodies = (b"nothing", b"[]", b"[" * 100_000, raw.body(kwargs={"other": 1}))
    with raw.Keeper.at(tmp_path, valkey_url, new_database, "-P", pool, "-c", "2") as keeper, acting_through(keeper.app):
        other = keeper.running()
        sent = {one: Bad.delay(tmp_path, one).id for one in how}
        broken = [raw.publish(keeper.app, QUEUE, body, raw.headers(Good.name)) for body in bodies]
        raw.put(keeper.app, QUEUE, b"foreign")
        raw.put(keeper.app, QUEUE, None, b"a member")
        for one, message_id in sent.items():
            letter = wait_for_letter(keeper.app, message_id, 10)
            assert (one, letter.error, starts(tmp_path, one)) == (one, RAISED.get(one, ("JobExited",))[0], 1)
        for message_id in broken:
            assert wait_for_letter(keeper.app, message_id, 10).error in ("UndeliverableMessage", "PayloadError")
        raw.check_unharmed(keeper.app, other, QUEUE)
        assert Good.delay("7").get(timeout=patient(10)) == "7"
        assert len(letters(keeper.app, state=None)) == len(sent) + len(broken) + 2
