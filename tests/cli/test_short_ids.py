"""The beginning of an id, as lists and pages show it: `job` takes it for the one that begins so, `cancel` says that it is one."""

from collections.abc import Callable
from datetime import date
from typing import TypeAlias

import pytest
from click.testing import Result
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import HeldMessage
from conventions.cli.cancel import UNSURE, cancel
from conventions.cli.dead_letters import dead_letters
from conventions.cli.job import job
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.groups import groups
from conventions.idempotency.claims import ClaimRequest
from conventions.jobs.job import Job
from conventions.metrics.worker_reports import WorkerReport, WorkerReports
from conventions.now.whole_id import SHORT, whole_ids
from conventions.records import audit
from conventions.records.journal import Event
from conventions.storage.tables import DeadLetterRow
from tests.cli.command_tasks import Send
from tests.failures import failure, record
from tests.recorded import drain, recorder

Run: TypeAlias = Callable[..., Result]
Bury: TypeAlias = Callable[..., None]

ENDED, OTHER, DEAD, WAITS = (
    "6d96ffb7-0000-4000-8000-000000000001", "6D96ffb7-0000-4000-8000-000000000009", "09cb8c79-0000-4000-8000-000000000002",
    "700d6230-0000-4000-8000-000000000003",
)  # fmt: skip


@pytest.fixture
def known(commands_app: ConventionsApp, bury: Bury) -> ConventionsApp:
    """One that has ended, one whose id differs by a capital letter, a dead one, and one that waits."""
    commands_app.journal.append([Event(one, "succeeded", task=Send.name, attempt=1) for one in (ENDED, OTHER)])
    drain(recorder(commands_app.store, commands_app.database))
    bury(DEAD)
    Send.apply_async(kwargs={"user_id": 7, "day": date(2026, 1, 5)}, task_id=WAITS)
    return commands_app


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("whole", [ENDED, DEAD, WAITS])
def test_job_takes_the_beginning_of_an_id(run: Run, whole: str) -> None:
    """Where it is that of one."""
    found = run(job, whole[:8])
    assert (found.exit_code, found.stdout.splitlines()[0]) == (0, f"id{' ' * 13}{whole}")


def test_the_beginning_of_several_ids(run: Run, known: ConventionsApp) -> None:
    """They are named, and none is taken."""
    more = f"{ENDED[:8]}-0000-4000-8000-000000000007"
    known.journal.append([Event(more, "succeeded", task=Send.name, attempt=1)])
    drain(recorder(known.store, known.database))
    found = run(job, ENDED[:8])
    assert (found.exit_code, found.stderr) == (1, f"several ids begin with {ENDED[:8]}: {ENDED}, {more}\n")
    assert whole_ids(known, ENDED[:5]) == [], "too short to be looked for"
    assert whole_ids(known, ENDED) == [], "it is whole"


@pytest.mark.usefixtures("known")
def test_the_beginning_of_no_id(run: Run) -> None:
    """It is said that it is shorter than an id."""
    found = run(job, "ffffffff")
    assert (found.exit_code, found.stderr) == (1, f"ffffffff: {SHORT}\n")
    assert run(job, f"{ENDED[:-1]}f").stderr == ""


def deeds(app: ConventionsApp) -> list[tuple[str, str]]:
    """What the audit has."""
    drain(recorder(app.store, app.database))
    with app.database.session(read_only=True) as session:
        return [(one.action, one.target) for one in audit.listing(session, 9)]


@pytest.mark.parametrize("more", [(), ("--force", "--reason", "x")])
@pytest.mark.parametrize("whole", [WAITS, DEAD])
def test_cancel_never_guesses(run: Run, known: ConventionsApp, whole: str, more: tuple[str, ...]) -> None:
    """It says of which id this is the beginning, and does nothing."""
    done = run(cancel, whole[:8], *more)
    said = f"{SHORT}; it is the beginning of {whole}: give a whole one. Nothing is done\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)
    assert known.claims.is_cancelled(whole) is False
    assert known.claims.is_cancelled(whole[:8]) is False
    assert deeds(known) == []


def test_cancel_says_that_what_nobody_knows_is_short(run: Run, known: ConventionsApp) -> None:
    """It is cancelled as it is given: its sender may have chosen it."""
    assert run(cancel, "ffffffff").stderr == f"{SHORT}\n"
    assert run(cancel, DEAD).stderr == ""
    assert sorted(deeds(known)) == [("cancel", DEAD), ("cancel", "ffffffff")]


def test_cancel_takes_a_whole_id_that_is_short(run: Run, known: ConventionsApp) -> None:
    """Also one with which another one begins."""
    Send.apply_async(kwargs={"user_id": 8, "day": date(2026, 1, 5)}, task_id=WAITS[:8])
    done = run(cancel, WAITS[:8])
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{WAITS[:8]}: queued; it will not run\n", "")
    assert (known.claims.is_cancelled(WAITS[:8]), known.claims.is_cancelled(WAITS)) == (True, False)


def test_by_force_where_no_worker_runs_it(run: Run, known: ConventionsApp) -> None:
    """It says that it is cancelled, and what is not done."""
    done = run(cancel, WAITS, "--force", "--reason", "x")
    said = f"{WAITS}: queued; it will not run; no worker lives, so no process is ended\n"
    assert (done.exit_code, done.stdout) == (0, said)
    WorkerReports(known.store).say("w1", WorkerReport(queues=("elsewhere",), processes=1))
    assert (
        "no worker says that it runs it, so no process is ended"
        in run(cancel, WAITS, "--force", "--reason", "x").stdout
    )


def test_by_force_where_its_worker_is_gone(run: Run, known: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has begun, as far as is known, and comes back."""
    monkeypatch.setattr("conventions.now.end_running.SAY_EVERY", 0.1)
    (delivery,) = known.broker.reserve(["mail"], 1)
    held, key = HeldMessage(WAITS, delivery.queue, delivery.receipt), Job.of(WAITS, known).key
    assert key is not None
    known.claims.take([ClaimRequest(str(Send.name), key, delivery.receipt, WAITS, "f", held=held)])
    done = run(cancel, WAITS, "--force", "--reason", "x")
    said = "it is cancelled: it will not run again; no worker lives, so no process is ended; it is running"
    assert (done.exit_code, done.stdout) == (0, f"{WAITS}: {said}\n")
    assert known.claims.is_cancelled(WAITS)


def test_by_force_and_nobody_knows(run: Run, known: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server went away meanwhile: the message is cancelled, and that is said."""

    def away(*_: object) -> None:
        raise RedisConnectionError("no answer")

    monkeypatch.setattr("conventions.now.cancel_or_end.end_running", away)
    done = run(cancel, WAITS, "--force", "--reason", "x")
    assert (done.exit_code, done.stdout) == (2, f"{WAITS}: it is cancelled; {UNSURE}\n")
    assert "no answer" in done.stderr


def test_the_beginning_of_a_letter(run: Run, known: ConventionsApp, bury: Bury) -> None:
    """It is that letter, in the command that shows it; several are named."""
    assert known.database.is_there
    assert run(dead_letters, "show", DEAD[:8]).stdout.splitlines()[0].endswith(DEAD)
    bury(f"{DEAD[:8]}-1111-4000-8000-000000000007")
    several = run(dead_letters, "show", DEAD[:8])
    assert (several.exit_code, several.stderr.startswith(f"several ids begin with {DEAD[:8]}: {DEAD}, ")) == (1, True)
    assert run(dead_letters, "show", "ffffffff").stderr == "there is no dead letter ffffffff\n"


def test_the_beginning_of_a_redrive(run: Run, commands_app: ConventionsApp, bury: Bury) -> None:
    """It selects its letters; a stop is no guess, and says which one begins so."""
    bury("m1")
    run(dead_letters, "redrive", "m1", "--yes", "--no-wait")
    with commands_app.database.session() as session:
        (row,) = redrive_rows.listing(session, 2)
        id_ = str(row.id)
        session.get_one(DeadLetterRow, "m1").redrive_id = id_
    assert "m1" in run(dead_letters, "list", "--redrive", id_[:8]).stdout
    stopped = run(dead_letters, "stop", id_[:8])
    assert stopped.exit_code == 2
    assert f"{id_[:8]} is the beginning of {id_}: give a whole id" in stopped.stderr
    assert "there is no redrive zzz" in run(dead_letters, "stop", "zzz").stderr
    assert run(dead_letters, "stop", id_).exit_code == 0


def test_the_beginning_of_a_group(run: Run, commands_app: ConventionsApp, bury: Bury) -> None:
    """It is the group that begins so, in every command that takes one; several are named."""
    bury("m1")
    with commands_app.database.session() as session:
        (one,) = (str(group.fingerprint) for group in groups(session, Filter(), 10))
    short = one[:7]
    assert "m1" in run(dead_letters, "list", "--group", short).stdout
    assert run(dead_letters, "note", short, "look here").stdout == f"noted on {one}\n"
    redriven = run(dead_letters, "redrive", "--group", short, "--yes", "--no-wait")
    assert redriven.exit_code == 0, redriven.output
    record(commands_app.database, failure("m2", KeyError("x"), task=Send.name))
    assert "several groups begin with " in run(dead_letters, "list", "--group", "").stderr
    assert run(dead_letters, "list", "--group", "zzz").stdout == "nothing found\n"
