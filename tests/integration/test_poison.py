"""Jobs that end badly: whatever they do, the worker lives, and each is one dead letter with all that is known of it."""

import ctypes
import gc
import json
import os
import signal
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from conventions import EVERY_ARGUMENT, ImmediateTask, RetryPolicy, dead_letters, executions
from conventions.app import ConventionsApp
from conventions.database import DeadLetterRow
from tests import raw_messages as raw
from tests.support import wait_until
from tests.workers import Installation, Worker, letters, wait_for_letter

QUEUE = "immediate"
ONCE = RetryPolicy(attempts=1)
START_LIMIT = 3


class Good(ImmediateTask):
    """Return a number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: str) -> str:
        return number


class Unpicklable(Exception):
    """Needs an argument that it does not hand on."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second
        self.lock = __import__("threading").Lock()


class Irreducible(Exception):
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle of me")


class Speechless(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text of me")

    __repr__ = __str__


class Slippery(BaseException):
    """Is no `Exception`."""


class Bad(ImmediateTask):
    """Count the start in a file, then end badly."""

    idempotent_on = ("folder", "how")
    retry_policy = ONCE
    soft_time_limit = 1
    time_limit = 2

    def run(self, folder: Path, how: str) -> Any:
        with (folder / how).open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        return getattr(self, how)()

    def memory(self) -> None:
        raise MemoryError("of 1 GiB")

    def exit_hard(self) -> None:
        os._exit(3)

    def exit_clean(self) -> None:
        os._exit(0)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fault(self) -> None:
        gc.collect()
        ctypes.string_at(0)

    def exit_system(self) -> None:
        raise SystemExit(3)

    def exit_killed(self) -> None:
        raise SystemExit(-247)  # as billiard ends a process that is killed

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def generator_exit(self) -> None:
        raise GeneratorExit

    def slippery(self) -> None:
        raise Slippery("base")

    def recursion(self) -> None:
        self.recursion()

    def stubborn(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                time.sleep(60)
            except SoftTimeLimitExceeded:
                continue

    def deaf(self) -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        time.sleep(60)

    def unpicklable(self) -> None:
        raise Unpicklable("one", "two")

    def irreducible(self) -> None:
        raise Irreducible("three")

    def speechless(self) -> None:
        raise Speechless("four")

    def odd_text(self) -> None:
        raise ValueError("nul \0 half \udc80 " + "x" * 200_000)

    def unserializable(self) -> Any:
        return object()

    def infinite(self) -> Any:
        return float("inf")

    def circular(self) -> Any:
        result: list[Any] = []
        result.append(result)
        return result

    def group(self) -> None:
        raise ExceptionGroup("several", [ValueError("one"), OSError("two")])

    def stop(self) -> None:
        raise StopIteration("five")

    def reject(self) -> None:
        raise Reject("not wanted", requeue=False)

    def reject_error(self) -> None:
        raise Reject(ValueError("the reason"), requeue=False)

    def requeue(self) -> None:
        raise Reject("not now", requeue=True)

    def ignore(self) -> None:
        raise Ignore("never mind")


@pytest.fixture(scope="module")
def keeper(module_installation: Installation) -> Iterator[raw.Keeper]:
    """Runs the worker of these tests."""
    with raw.Keeper(module_installation) as keeper:
        yield keeper


@pytest.fixture
def worker(keeper: raw.Keeper) -> Worker:
    """The worker: the same one for all tests, unless one of them ended it."""
    return keeper.running()


@pytest.fixture(autouse=True)
def _unharmed(worker: Worker, live_app: ConventionsApp) -> Iterator[None]:
    """The same main process runs a good job afterwards, and nothing is left in the broker."""
    yield
    raw.check_unharmed(live_app, worker, QUEUE)
    assert Good.delay(str(uuid4())).get(timeout=10)


def starts(folder: Path, how: str) -> int:
    """How often the job began."""
    file = folder / how
    return len(file.read_text().split()) if file.exists() else 0


def one_letter(app: ConventionsApp, how: str, folder: Path) -> tuple[DeadLetterRow, list[dict[str, Any]]]:
    """Send the job, and return its letter, which has all of the message, and its history."""
    sent = Bad.apply_async((folder, how), actor="u-7")
    payload = _payload(app, sent.id)
    letter = wait_for_letter(app, sent.id)
    assert (letter.task, letter.queue, letter.actor, letter.state) == (Bad.name, QUEUE, "u-7", "dead")
    assert letter.arguments == {"folder": str(folder), "how": how}
    assert (letter.headers["x_actor"], len(letter.headers["x_key"])) == ("u-7", 32)
    kept = dead_letters.message(letter)
    assert json.loads(b64decode(kept["body"]))[1] == letter.arguments
    assert (kept["headers"]["id"], kept["headers"]["task"]) == (sent.id, Bad.name)
    assert payload in (None, kept)
    assert len(letter.fingerprint) == 16
    with app.database.session() as session:
        found = history(session, sent.id)
    assert [one["kind"] for one in found] == ["dead"]
    assert [one.id for one in letters(app, state=None)].count(sent.id) == 1
    return letter, found


def _payload(app: ConventionsApp, message_id: str) -> Any:
    """The message as it lies in the broker, where it has not ended yet."""
    stored: Any = app.store.redis.hget(app.store.key("message", message_id), "payload")
    return stored and json.loads(stored)


def history(session: Session, message_id: str) -> list[dict[str, Any]]:
    """Every execution of a message, of all kinds."""
    return [{"kind": row.kind, "attempt": row.attempt} for row in executions.of_message(session, message_id)]


RAISED = {
    "memory": ("MemoryError", "of 1 GiB"),
    "exit_system": ("JobExited", "3"),
    "interrupt": ("KeyboardInterrupt", ""),
    "generator_exit": ("GeneratorExit", ""),
    "slippery": ("Slippery", "base"),
    "recursion": ("RecursionError", "recursion"),
    "unpicklable": ("Unpicklable", "one"),
    "irreducible": ("Irreducible", "three"),
    "speechless": ("Speechless", "text cannot be had"),
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
def test_a_job_that_raises(live_app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """One start, one letter with the error, its text and its traceback."""
    error, text = RAISED[how]
    letter, _ = one_letter(live_app, how, tmp_path)
    assert (letter.error, letter.attempts, starts(tmp_path, how)) == (error, 1, 1)
    assert text in letter.error_message
    if how not in ("reject", "reject_error"):
        assert error in letter.traceback
        assert how in letter.traceback or error == "PayloadError"


@pytest.mark.parametrize("how", ["exit_hard", "exit_clean", "kill", "fault", "exit_killed"])
def test_a_job_that_kills_its_process(live_app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """Three starts without an outcome, then a letter; a process that ends never ends the worker."""
    letter, _ = one_letter(live_app, how, tmp_path)
    assert (letter.error, starts(tmp_path, how)) == ("TooManyStarts", START_LIMIT)
    assert "3 times" in letter.error_message


@pytest.mark.parametrize("how", ["stubborn", "deaf"])
def test_a_job_beyond_its_hard_limit(live_app: ConventionsApp, tmp_path: Path, how: str) -> None:
    """One start, one letter, although Celery reports it twice."""
    letter, _ = one_letter(live_app, how, tmp_path)
    assert (letter.error, letter.attempts, starts(tmp_path, how)) == ("TimeLimitExceeded", 1, 1)


def test_a_job_that_rejects_and_wants_to_come_again(live_app: ConventionsApp, tmp_path: Path) -> None:
    """It comes again, but neither a thousand times a second nor for ever without a trace."""
    sent = Bad.delay(tmp_path, "requeue")
    wait_until(lambda: starts(tmp_path, "requeue") >= 3, 20)
    began = time.monotonic()
    first = starts(tmp_path, "requeue")
    wait_until(lambda: time.monotonic() - began > 3, 5)
    assert starts(tmp_path, "requeue") - first <= 6
    assert Bad.cancel(sent.id) in ("queued", "running")
    wait_until(lambda: raw.left(live_app, QUEUE) == (raw.EMPTY, []), 10, f"{raw.left(live_app, QUEUE)}")
    with live_app.database.session() as session:
        wait_until(lambda: [one["kind"] for one in history(session, sent.id)] == ["cancelled"])


def test_a_job_that_ignores_its_message(live_app: ConventionsApp, tmp_path: Path) -> None:
    """It has ended: recorded, and no letter."""
    sent = Bad.delay(tmp_path, "ignore")
    with live_app.database.session() as session:
        wait_until(lambda: [one["kind"] for one in history(session, sent.id)] == ["superseded"])
    assert starts(tmp_path, "ignore") == 1
    assert sent.id not in [letter.id for letter in letters(live_app, state=None)]


def test_many_killers_at_once(live_app: ConventionsApp, tmp_path: Path) -> None:
    """Twenty of them beside twenty good jobs: each good one is done, each bad one a letter after three starts."""
    folders = [tmp_path / str(number) for number in range(20)]
    for folder in folders:
        folder.mkdir()
    bad, good = [], []
    for number, folder in enumerate(folders):
        bad.append(Bad.delay(folder, "kill" if number % 2 else "exit_hard").id)
        good.append(Good.delay(folder.name))
    assert [one.get(timeout=50) for one in good] == [folder.name for folder in folders]
    wait_until(lambda: {*bad} <= {one.id for one in letters(live_app, error="TooManyStarts")}, 50, "all are letters")
    for number, folder in enumerate(folders):
        assert starts(folder, "kill" if number % 2 else "exit_hard") == START_LIMIT
