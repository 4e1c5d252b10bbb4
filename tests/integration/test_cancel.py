"""Cancel, revoke, expire: wherever a message is, it does not run, and its end is recorded and is no dead letter."""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError

from conventions import EVERY_ARGUMENT, ImmediateTask, LongRunningTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.dead_letters.resend import redrive
from conventions.jobs.job import Job
from conventions.now.end_running import worker_of
from conventions.records import audit, executions
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, letters, messages, told, wait_for_letter, wait_until_empty

logger = logging.getLogger(__name__)

QUEUE = "immediate"
WORKER = ("-Q", f"{QUEUE},long", "-c", "3")


class Write(ImmediateTask):
    """Write a line."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=2, first_wait=600, max_wait=600)

    def run(self, file: Path, line: str = "ran", fails: bool = False) -> None:
        with file.open("a") as lines:
            lines.write(f"{line}\n")
        if fails:
            raise ValueError("not now")


class Number(ImmediateTask):
    """Return its number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return number


class Total(ImmediateTask):
    """The body of a chord."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int]) -> int:
        return sum(numbers)


class KeptSteps(LongRunningTask):
    """Report progress until a file is there, and keep the result."""

    idempotent_on = ("name",)
    ignore_result = False

    def run(self, folder: Path, name: str) -> int:  # noqa: ARG002  # it is the key
        def step() -> bool:
            self.progress.advance()
            return (folder / "go").exists()

        wait_until(step, 60)
        return 1


class Die(ImmediateTask):
    """Write a line, and fail unless a file is there."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=1)

    def run(self, folder: Path) -> None:
        with (folder / "runs").open("a") as lines:
            lines.write("ran\n")
        if not (folder / "works").exists():
            raise ValueError("not now")


class Steps(LongRunningTask):
    """Report progress while a file is not there."""

    idempotent_on = ("name",)

    def run(self, folder: Path, name: str, reports: bool = True) -> None:
        with (folder / name).open("a") as lines:
            lines.write("began\n")
        logger.warning("began")

        def step() -> bool:
            if reports:
                self.progress.advance()
            return (folder / "go").exists()

        wait_until(step, 60)
        with (folder / name).open("a") as lines:
            lines.write("ended\n")


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """The tasks of this module."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        yield app


@pytest.fixture
def worker(installation: Installation, app: ConventionsApp) -> Iterator[Worker]:  # is closed after it
    """A worker for its messages."""
    with installation.worker(*WORKER) as worker:
        yield worker


def ends(app: ConventionsApp, message_id: str) -> list[str]:
    """How the executions of a message ended."""
    with app.database.session() as session:
        return [row.kind for row in executions.of_message(session, message_id)]


def wait_for_ends(app: ConventionsApp, message_id: str, *kinds: str) -> None:
    """Wait until the message is gone and recorded, and is no dead letter."""
    wait_until(lambda: ends(app, message_id) == [*kinds], 15, f"{kinds}, and not {ends(app, message_id)}")
    wait_until(lambda: message_id not in [one.id for one in messages(app)], 30, "it is gone")
    assert [one.id for one in letters(app, state=None)] == []


# Before it runs.


@pytest.mark.parametrize("at", ["queued", "running"])
def test_those_who_wait_for_it_hear_of_it(app: ConventionsApp, worker: Worker, tmp_path: Path, at: str) -> None:
    """Its caller, its chord, and whoever waits for the rest of its chain: as of one that is revoked."""
    lines = tmp_path / "lines"

    def cancelled(number: int) -> Any:
        if at == "queued":
            return Number.si(number).set(countdown=600)
        return KeptSteps.si(tmp_path, str(number))

    def cancel(result: Any) -> None:
        if at == "running":
            wait_until(lambda: app.AsyncResult(result.id).state == "PROGRESS", 20, "it runs")
        Write.cancel(result.id)

    alone = cancelled(11).apply_async()
    whole = chord([cancelled(12), Number.si(2)])(Total.s().set(link_error=Write.si(lines, "chord")))
    steps = chain(cancelled(13), Number.si(3), Number.si(4)).apply_async()
    for one in (alone, whole.parent.results[0], steps.parent.parent):
        cancel(one)
    for one in (alone, steps):
        with pytest.raises(TaskRevokedError):
            one.get(timeout=patient(30))
    with pytest.raises((ChordError, TaskRevokedError)):
        whole.get(timeout=patient(30))
    wait_until(lines.exists, 30, "the errback of the chord has run")
    wait_until_empty(app, 30)
    ids = [alone.id, whole.parent.results[0].id, steps.parent.parent.id]
    wait_until(lambda: [ends(app, one) for one in ids] == [["cancelled"]] * 3, 15, "each has one end")


def test_a_queued_job(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """No worker runs yet; the mark outlives the restarts of those that come."""
    first, second = Write.delay(tmp_path / "file", "first"), Write.delay(tmp_path / "file", "second")
    assert Write.cancel(first.id) == "queued"
    with installation.worker(*WORKER):
        wait_for_ends(app, first.id, "cancelled")
        wait_for_ends(app, second.id, "succeeded")
    assert (tmp_path / "file").read_text() == "second\n"


def test_a_delayed_job(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """Its end is recorded now, and not when it would have been due."""
    sent = Write.apply_async((tmp_path / "file",), countdown=86_400)
    assert app.broker.sizes(QUEUE) == Sizes(0, 1, 0)
    assert Write.cancel(sent.id) == "queued"
    wait_for_ends(app, sent.id, "cancelled")
    assert app.broker.sizes(QUEUE) == Sizes(0, 0, 0)
    assert not (tmp_path / "file").exists()


def test_a_job_that_waits_for_its_next_attempt(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """Ten minutes of back-off end with the cancel; the attempt before stays what it was."""
    sent = Write.delay(tmp_path / "file", fails=True)
    wait_until(lambda: app.broker.sizes(QUEUE) == Sizes(0, 1, 0), description="it waits")
    assert Write.cancel(sent.id) == "queued"
    wait_for_ends(app, sent.id, "retried", "cancelled")
    assert (tmp_path / "file").read_text() == "ran\n"
    key = Write.delay(tmp_path / "file", fails=True)  # the key is free for another message, or waits for its back-off
    assert Write.cancel(key.id) in ("queued", "running")


def test_a_parked_job(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """The holder of its key goes on."""
    holder = Steps.delay(tmp_path, "one")
    wait_until((tmp_path / "one").exists, description="the holder runs")
    parked = Steps.delay(tmp_path, "one")
    wait_until(lambda: app.broker.sizes("long").delayed == 1, description="the other is parked")
    assert Steps.cancel(parked.id) == "queued"
    wait_for_ends(app, parked.id, "cancelled")
    (tmp_path / "go").touch()
    wait_for_ends(app, holder.id, "succeeded")
    assert (tmp_path / "one").read_text() == "began\nended\n"


def test_a_job_that_a_worker_holds_and_has_not_begun(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """Behind another one, in the same worker."""
    with installation.worker("-Q", QUEUE, "-c", "1"):
        first = Steps.apply_async((tmp_path, "one"), queue=QUEUE)
        wait_until((tmp_path / "one").exists, description="the first runs")
        second = Write.delay(tmp_path / "file")
        wait_until(lambda: app.broker.sizes(QUEUE).in_flight == 2, description="both are in its hands")
        assert Write.cancel(second.id) == "queued"
        (tmp_path / "go").touch()
        wait_for_ends(app, first.id, "succeeded")
        wait_for_ends(app, second.id, "cancelled")
    assert not (tmp_path / "file").exists()


# While it runs, and after.


@pytest.mark.parametrize("pool", [pytest.param("prefork", marks=pytest.mark.everyday), "threads", "solo"])
def test_a_running_job_is_told(app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str) -> None:
    """At its next report of progress; it ends there, and its key is free."""
    with installation.worker("-Q", "long", "-P", pool, "-c", "1"):
        sent = Steps.delay(tmp_path, "one")
        wait_until((tmp_path / "one").exists, description="it runs")
        assert Steps.cancel(sent.id) == "running"
        wait_for_ends(app, sent.id, "cancelled")
        assert (tmp_path / "one").read_text() == "began\n"
        (tmp_path / "go").touch()
        again = Steps.delay(tmp_path, "one")
        wait_for_ends(app, again.id, "succeeded")
    assert (tmp_path / "one").read_text() == "began\nbegan\nended\n"


def test_a_running_job_that_reports_nothing(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """Nobody can tell it: it succeeds, and says so."""
    sent = Steps.delay(tmp_path, "one", reports=False)
    wait_until((tmp_path / "one").exists, description="it runs")
    assert Steps.cancel(sent.id) == "running"
    (tmp_path / "go").touch()
    wait_for_ends(app, sent.id, "succeeded")


def test_a_running_job_whose_worker_stops(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """It was told nothing before it was returned: the next worker does not run it."""
    with installation.worker(*WORKER, CONVENTIONS_SHUTDOWN_GRACE="0.2") as worker:
        sent = Steps.delay(tmp_path, "one", reports=False)
        wait_until((tmp_path / "one").exists, description="it runs")
        assert Steps.cancel(sent.id) == "running"
        worker.stop()
    assert app.broker.sizes("long") == Sizes(1, 0, 0)
    with installation.worker(*WORKER):
        wait_for_ends(app, sent.id, "interrupted", "cancelled")
    assert (tmp_path / "one").read_text() == "began\n"


def test_too_late(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """A job that has ended, and an id that nobody has sent."""
    sent = Write.delay(tmp_path / "file")
    wait_for_ends(app, sent.id, "succeeded")
    assert Write.cancel(sent.id) == "too late"
    assert Write.cancel(str(uuid4())) == "too late"
    assert ends(app, sent.id) == ["succeeded"]


def test_an_id_that_is_sent_after_its_cancel(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """As from a program that sends late: it does not run."""
    message_id = str(uuid4())
    assert Write.cancel(message_id) == "too late"
    Write.apply_async((tmp_path / "file",), task_id=message_id)
    wait_for_ends(app, message_id, "cancelled")
    assert not (tmp_path / "file").exists()


def test_a_dead_letter(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """It is too late for it, and a redrive asks for a run, so it runs: the cancel was of what went before."""
    sent = Die.delay(tmp_path)
    letter = wait_for_letter(app, sent.id)
    assert Die.cancel(sent.id) == "too late"
    (tmp_path / "works").touch()
    redrive(app, letter.id, "ann")
    wait_until(lambda: ends(app, sent.id) == ["dead", "succeeded"], 15, f"{ends(app, sent.id)}")
    assert (tmp_path / "runs").read_text() == "ran\nran\n"


def test_a_redrive_may_be_cancelled(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """The cancel of a redriven message holds for the redrive, and not for the next one."""
    with installation.worker(*WORKER):
        sent = Die.delay(tmp_path)
        wait_for_letter(app, sent.id)
    redrive(app, sent.id, "ann")
    assert Die.cancel(sent.id) == "queued"
    with installation.worker(*WORKER):
        wait_until(lambda: ends(app, sent.id) == ["dead", "cancelled"], 15, f"{ends(app, sent.id)}")
    assert (tmp_path / "runs").read_text() == "ran\n"


# The command.


def test_the_command(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """Status 0 where the cancel does something, 1 where it is too late; the same words as the method's."""
    sent = Write.delay(tmp_path / "file")
    found = installation.run("cancel", sent.id)
    assert (found.returncode, f"{sent.id}: queued" in found.stdout) == (0, True), found.stdout
    with installation.worker(*WORKER):
        running = Steps.delay(tmp_path, "one")
        wait_until((tmp_path / "one").exists, description="it runs")
        found = installation.run("cancel", running.id)
        assert (found.returncode, f"{running.id}: running" in found.stdout) == (0, True), found.stdout
        wait_for_ends(app, sent.id, "cancelled")
        wait_for_ends(app, running.id, "cancelled")
    for message_id in (sent.id, "nobody"):
        found = installation.run("cancel", message_id)
        assert (found.returncode, f"{message_id}: too late" in found.stdout) == (1, True), found.stdout


# By force.


def test_a_running_job_is_ended_by_force(
    app: ConventionsApp, installation: Installation, worker: Worker, tmp_path: Path
) -> None:
    """Its process is killed, it is over, and does not begin again; the audit has who, why and what became of it."""
    sent = Steps.delay(tmp_path, "one", reports=False)
    wait_until((tmp_path / "one").exists, description="it runs")
    without = installation.run("cancel", sent.id, "--force")
    assert (without.returncode, "--force needs --reason" in without.stdout) == (2, True)
    found = installation.run("cancel", sent.id, "--force", "--reason", "it hangs", "--actor", "u-7")
    assert (found.returncode, f"{sent.id}: ended by force at worker0@" in found.stdout) == (0, True), found.stdout
    wait_for_ends(app, sent.id, "revoked")
    assert worker.process.poll() is None
    (tmp_path / "go").touch()
    again = Steps.delay(tmp_path, "one", reports=False)
    wait_for_ends(app, again.id, "succeeded")
    assert (tmp_path / "one").read_text() == "began\nbegan\nended\n"
    late = installation.run("cancel", sent.id, "--force", "--reason", "x")
    assert (late.returncode, "too late" in late.stdout) == (1, True)

    def noted() -> list[tuple[str, str, str | None, Any]]:
        with app.database.session() as session:
            rows = audit.listing(session, 10, sent.id)
            return [
                (row.actor, row.action, row.reason, row.after["how"]) for row in rows if row.action == "cancel by force"
            ]

    wait_until(lambda: noted() == [("u-7", "cancel by force", "it hangs", "ended")], 15, "the audit has it")


def test_a_job_that_was_ended_by_force_keeps_its_story(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """Which attempt it was, where and since when it ran, how long, by which release, and what it had logged."""
    with installation.worker(*WORKER, CONVENTIONS_RELEASE="r7"):
        sent = Steps.delay(tmp_path, "one", reports=False)
        wait_until(lambda: any(one.log for one in Job.of(sent.id, app).history()), 20, "it has logged, for a second")
        runs = Job.of(sent.id, app)
        line = f"worker{' ' * 9}worker0@"  # also while it runs, once its worker has reported what it does
        wait_until(lambda: line in installation.run("job", sent.id).stdout, 20)
        found = installation.run("cancel", sent.id, "--force", "--reason", "it hangs")
        assert found.returncode == 0, found.stdout
        wait_for_ends(app, sent.id, "revoked")
    job = Job.of(sent.id, app)
    assert (job.state, job.attempts, str(job.worker).startswith("worker0@")) == ("revoked", 1, True)
    assert job.started_at is not None
    assert runs.started_at is not None
    assert abs(job.started_at - runs.started_at) < timedelta(seconds=patient(2))  # each is by another clock
    assert job.runtime is not None
    assert job.runtime >= 1
    (attempt,) = job.history()
    assert (attempt.attempt, attempt.outcome, attempt.release) == (1, "revoked", "r7")
    assert (attempt.worker, attempt.started_at, attempt.runtime) == (job.worker, job.started_at, job.runtime)
    assert attempt.wait is not None
    assert [line.message for line in attempt.log] == ["began"]
    with app.database.session() as session:
        (row,) = executions.of_message(session, sent.id)
        assert (row.attempt, row.worker, row.started_at, row.release) == (1, job.worker, job.started_at, "r7")


def test_what_waits_is_cancelled_also_by_force(
    app: ConventionsApp, installation: Installation, worker: Worker, tmp_path: Path
) -> None:
    """There is nothing to kill."""
    sent = Write.apply_async((tmp_path / "file",), countdown=3600)
    found = installation.run("cancel", sent.id, "--force", "--reason", "x")
    assert (found.returncode, f"{sent.id}: queued; it will not run" in found.stdout) == (0, True), found.stdout
    wait_for_ends(app, sent.id, "cancelled")
    assert worker.process.poll() is None


def test_no_force_ends_a_thread(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """It is refused with the reason, and the job hears of the cancel when it reports."""
    with installation.worker(*WORKER, "-P", "threads"):
        sent = Steps.delay(tmp_path, "one")
        wait_until(lambda: worker_of(app, sent.id), description="its worker says that it runs")
        found = installation.run("cancel", sent.id, "--force", "--reason", "x")
        assert found.returncode == 1, found.stdout
        assert "runs it in a thread (thread), which nobody can end" in found.stdout
        wait_for_ends(app, sent.id, "cancelled")


# What Celery itself can do.


def test_a_revoked_job(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """By Celery's own remote control: recorded, no dead letter."""
    message_id = str(uuid4())
    told(app.control.revoke, message_id)
    worker.wait_for("revoked")
    Write.apply_async((tmp_path / "file",), task_id=message_id)
    wait_for_ends(app, message_id, "revoked")
    assert not (tmp_path / "file").exists()


def test_a_running_job_that_is_revoked(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """Its process is ended; recorded once, no dead letter, no second start, and its key is free."""
    sent = Steps.delay(tmp_path, "one", reports=False)
    wait_until((tmp_path / "one").exists, description="it runs")
    app.control.revoke(sent.id, terminate=True, signal="SIGKILL")
    wait_for_ends(app, sent.id, "revoked")
    assert worker.process.poll() is None
    (tmp_path / "go").touch()
    again = Steps.delay(tmp_path, "one", reports=False)
    wait_for_ends(app, again.id, "succeeded")
    assert (tmp_path / "one").read_text() == "began\nbegan\nended\n"


def test_a_signal_that_does_not_exist_ends_nothing(app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """The caller hears of it, and the job goes on."""
    sent = Steps.delay(tmp_path, "one", reports=False)
    wait_until((tmp_path / "one").exists, description="it runs")
    for wrong in (99, "SIGNONE"):
        answers = told(partial(app.control.revoke, terminate=True, signal=wrong), sent.id)
        assert "Error" in str(answers), answers
    (tmp_path / "go").touch()
    wait_for_ends(app, sent.id, "succeeded")


@pytest.mark.parametrize(("signal", "ended"), [("SIGWINCH", "ended\n"), ("SIGUSR1", "")])
def test_a_revoked_job_that_outlives_the_signal(
    app: ConventionsApp, worker: Worker, tmp_path: Path, signal: str, ended: str
) -> None:
    """It goes on, or fails of it and would be retried. It is revoked, and nothing else."""
    sent = Steps.delay(tmp_path, "one", reports=False)
    wait_until((tmp_path / "one").exists, description="it runs")
    app.control.revoke(sent.id, terminate=True, signal=signal)
    wait_until(lambda: "revoked" in ends(app, sent.id), 15, "it is revoked")
    (tmp_path / "go").touch()
    worker.wait_for(f"superseded: id={sent.id}")
    wait_for_ends(app, sent.id, "revoked", "superseded")
    assert (tmp_path / "one").read_text() == f"began\n{ended}"


def test_a_thread_cannot_be_ended(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """So its job goes on, with its key, and succeeds."""
    with installation.worker(*WORKER, "-P", "threads"):
        sent = Steps.delay(tmp_path, "one", reports=False)
        wait_until((tmp_path / "one").exists, description="it runs")
        answers = told(partial(app.control.revoke, terminate=True), sent.id)
        assert "NotImplementedError" in str(answers)
        same = Steps.delay(tmp_path, "one", reports=False)
        (tmp_path / "go").touch()
        wait_for_ends(app, sent.id, "succeeded")
        wait_for_ends(app, same.id, "duplicate")
    assert (tmp_path / "one").read_text() == "began\nended\n"


def test_a_process_that_outlives_a_signal_and_ends_later(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """The job that it has then comes again. billiard says that it was terminated, since the process was sent a signal before."""
    with installation.worker("-Q", f"{QUEUE},long", "-c", "1") as worker:
        sent = Steps.delay(tmp_path, "one", reports=False)
        wait_until((tmp_path / "one").exists, description="it runs")
        app.control.revoke(sent.id, terminate=True, signal="SIGWINCH")
        wait_until(lambda: "revoked" in ends(app, sent.id), 15, "it is revoked")
        (tmp_path / "go").touch()
        worker.wait_for(f"superseded: id={sent.id}")
        (tmp_path / "go").unlink()
        again = Steps.delay(tmp_path, "two", reports=False)
        wait_until((tmp_path / "two").exists, description="it runs")
        (process,) = worker.children()
        process.kill()
        (tmp_path / "go").touch()
        wait_for_ends(app, again.id, "interrupted", "succeeded")
    assert (tmp_path / "two").read_text() == "began\nbegan\nended\n"


@pytest.mark.parametrize("as_moment", [True, False])
def test_an_expired_job(app: ConventionsApp, installation: Installation, tmp_path: Path, as_moment: bool) -> None:
    """Nobody ran it in time."""
    expires = datetime.now(UTC) + timedelta(seconds=0.1) if as_moment else 0.1
    sent = Write.apply_async((tmp_path / "file",), expires=expires)
    with installation.worker(*WORKER):
        wait_for_ends(app, sent.id, "expired")
        wait_until_empty(app)
    assert not (tmp_path / "file").exists()
