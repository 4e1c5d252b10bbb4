"""What jobs log, in real workers of each pool: kept where an attempt fails or takes long, live while it runs, in SQL afterwards."""

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from sqlalchemy import select

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, Job, LongRunningTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.attempt_log.live_logs import LiveLogs
from conventions.attempt_log.run_log import LONG
from conventions.jobs.history import JobAttempt
from conventions.storage.tables import AttemptLogRow, ExecutionRow
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, wait_until_empty

logger = logging.getLogger("shop")
of_tasks = get_task_logger(__name__)

POOLS = ("prefork", "threads", "solo")
TWICE = RetryPolicy(attempts=2, first_wait=0.2, max_wait=0.3)


def read(address: str) -> None:
    """Fail."""
    raise LookupError(f"{address} is away")


class Speaks(ImmediateTask):
    """Log some lines, each with the name of the job, and fail at each attempt if told to."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = TWICE

    def run(self, name: str, fails: bool) -> str:
        logger.info("hello %s", name)
        logger.debug("not at the level of the worker")
        of_tasks.warning("attempt %d of %s", self.attempt, name)
        if fails:
            try:
                read("https://ada:hunter2@example.com")
            except LookupError:
                logger.exception("cannot read https://ada:hunter2@example.com?token=abc for %s", name)
            raise ArithmeticError(name)
        return name


class Holds(LongRunningTask):
    """Log a line, one more for each file `say-…`, until there is a file `go`; then fail or succeed."""

    queue_name = "holds"
    idempotent_on = EVERY_ARGUMENT
    retry_policy = TWICE

    def run(self, folder: Path, name: str) -> None:
        logger.info("begin %s in %d", name, os.getpid())
        said = set[Path]()

        def goes() -> bool:
            for one in sorted({*folder.glob("say-*")} - said):
                said.add(one)
                logger.info(one.name)
            return (folder / "go").exists()

        wait_until(goes, timeout=60)


class Floods(ImmediateTask):
    """Log more than is kept, then fail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, lines: int) -> None:
        for number in range(lines):
            logger.info("line %d %s", number, "x" * 200)
        raise BusinessError("no")


class Threads(ImmediateTask):
    """Log from threads of its own, then fail."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:  # noqa: ARG002  # it tells jobs apart
        context = copy_context()
        for target in (lambda: logger.info("a thread"), lambda: context.run(logger.info, "a thread with the context")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        logger.info("the job")
        raise BusinessError("no")


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An installation of the test's own, with these tasks."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)


def moved(app: ConventionsApp, message_id: str, number: int) -> list[AttemptLogRow]:
    """The rows of a message, once there are so many, and nothing of it is in Redis."""

    def rows() -> list[AttemptLogRow]:
        with app.database.session(read_only=True) as session:
            found = list(session.scalars(select(AttemptLogRow).where(AttemptLogRow.message_id == message_id)))
            session.expunge_all()
            return found

    wait_until(lambda: len(rows()) == number and not LiveLogs(app.store).of(message_id), 30, f"{number} in SQL")
    return rows()


def messages(attempt: JobAttempt) -> list[str]:
    """What it has logged."""
    return [line.message for line in attempt.log]


def history(installation: Installation, message_id: str) -> list[dict[str, Any]]:
    """As the command shows it."""
    ended = installation.run("job", message_id, "--logs", "--json")
    assert ended.returncode == 0, ended.stdout
    shown: list[dict[str, Any]] = json.loads(ended.stdout)["history"]
    return shown


@pytest.mark.everyday
def test_each_failed_attempt_has_its_lines(live_app: ConventionsApp, module_installation: Installation) -> None:
    """Of jobs that share a process in a group, each its own; in Redis before the outcome, in SQL soon after it; a success has none."""
    Speaks.enqueue_many([{"name": f"warm {number}", "fails": False} for number in range(60)])
    sent = Speaks.enqueue_many([{"name": f"ada {number}", "fails": number % 3 == 0} for number in range(60)])
    failing = [(one, f"ada {number}") for number, one in enumerate(sent) if number % 3 == 0]
    for id_, name in failing:
        job = Job.of(id_).wait(30)
        attempts = job.history()
        assert [(one.attempt, one.outcome) for one in attempts] == [(1, "retried"), (2, "dead")], job
        for one in attempts:
            address = "https://…@example.com?token=…"
            expected = [f"hello {name}", f"attempt {one.attempt} of {name}", f"cannot read {address} for {name}"]
            assert messages(one) == expected
            assert [(line.level, line.logger) for line in one.log] == [
                ("INFO", "shop"),
                ("WARNING", of_tasks.name),
                ("ERROR", "shop"),
            ]
            assert one.log[2].exception is not None
            assert one.log[2].exception.endswith("LookupError: https://…@example.com is away")
            assert one.release == job.history()[0].release
            assert one.fingerprint
    for id_, _ in failing:
        assert {row.attempt for row in moved(live_app, id_, 2)} == {1, 2}
    wait_until_empty(live_app)
    with live_app.database.session(read_only=True) as session:
        slow = {*session.scalars(select(ExecutionRow.message_id).where(ExecutionRow.runtime >= LONG))}
        kept = {*session.scalars(select(AttemptLogRow.message_id))}
    assert kept - slow == {id_ for id_, _ in failing} - slow
    assert live_app.store.redis.hlen(live_app.store.key("logs:sizes")) == 0
    assert live_app.store.redis.get(live_app.store.key("logs:bytes")) == b"0"
    id_, name = failing[0]
    shown = history(module_installation, id_)
    assert [(one["attempt"], one["outcome"], len(one["log"])) for one in shown] == [(1, "retried", 3), (2, "dead", 3)]
    assert shown[0]["log"][0].items() >= {"level": "INFO", "logger": "shop", "message": f"hello {name}"}.items()
    text = module_installation.run("job", id_, "--logs").stdout
    assert f"INFO shop hello {name}\n" in text
    assert "        LookupError: https://…@example.com is away\n" in text
    assert "hello" not in module_installation.run("job", id_).stdout


@pytest.mark.parametrize("pool", POOLS)
def test_in_every_pool(alone: Installation, pool: str) -> None:
    """The lines of a failed attempt, and of none that succeeds."""
    with alone.application() as app, alone.worker(f"--pool={pool}", "--concurrency=4"):
        sent = Speaks.enqueue_many([{"name": f"bob {number}", "fails": number % 2 == 0} for number in range(20)])
        for number, one in enumerate(sent):
            attempts = Job.of(one).wait(30).history()
            if number % 2:
                (attempt,) = attempts
                assert (attempt.outcome, attempt.log == () or (attempt.runtime or 0) >= LONG) == ("succeeded", True)
            else:
                assert [messages(one)[:2] for one in attempts] == [
                    [f"hello bob {number}", f"attempt {attempt} of bob {number}"] for attempt in (1, 2)
                ]
        for one in sent[::2]:
            moved(app, one, 2)


@pytest.mark.parametrize("pool", POOLS)
def test_lines_of_a_running_job(alone: Installation, pool: str) -> None:
    """After its first second, soon after each; in SQL once it has ended, also where it succeeds."""
    with alone.application() as app, alone.worker(f"--pool={pool}", "--queues=holds"):
        sent = Holds.delay(folder=alone.folder, name="carol")

        def lines() -> list[str]:
            return [message for one in Job.of(sent.id).history() for message in messages(one)]

        wait_until(lines, 20, "the first line")
        for number in range(3):
            (alone.folder / f"say-{number}").touch()
            wait_until(lambda: len(lines()) == number + 2, 10, "a further line")  # noqa: B023  # it waits here
        job = Job.of(sent.id)
        (attempt,) = job.history()
        assert (attempt.attempt, attempt.outcome, attempt.started_at) == (1, "running", job.started_at)
        assert messages(attempt)[1:] == ["say-0", "say-1", "say-2"]
        (shown,) = history(alone, sent.id)
        assert [line["message"] for line in shown["log"]][1:] == ["say-0", "say-1", "say-2"]
        (alone.folder / "go").touch()
        assert Job.of(sent.id).wait(30).went_well
        (row,) = moved(app, sent.id, 1)
        assert row.left_out == 0
        (attempt,) = Job.of(sent.id).history()
        assert (attempt.outcome, messages(attempt)[1:]) == ("succeeded", ["say-0", "say-1", "say-2"])


def test_a_flood_keeps_head_and_tail(alone: Installation) -> None:
    """And a line in the middle that says how many were left out."""
    with alone.application() as app, alone.worker(CONVENTIONS_JOB_LOG_LIMIT="20000"):
        sent = Floods.delay(lines=5000)
        Job.of(sent.id).wait(30)
        (row,) = moved(app, sent.id, 1)
        (attempt,) = Job.of(sent.id).history()
        assert 15_000 < len(row.lines) <= 20_100
        said = messages(attempt)
        (middle,) = [number for number, line in enumerate(attempt.log) if line.left_out]
        assert said[middle] == f"… {5000 - len(said) + 1:,} lines were left out …"
        assert row.left_out == attempt.log[middle].left_out
        numbers = [int(one.split()[1]) for number, one in enumerate(said) if number != middle]
        assert numbers == [*range(middle), *range(5000 - len(said) + middle + 1, 5000)]


def test_a_killed_process_leaves_what_it_has_said(alone: Installation) -> None:
    """The next run of the attempt has lines of its own; the outcome is that one's."""
    with alone.application() as app, alone.worker("--queues=holds", "--concurrency=1") as worker:
        sent = Holds.delay(folder=alone.folder, name="dora")
        (before,) = wait_until(lambda: [one for one in Job.of(sent.id).history() if one.log], 20, "its line")
        child = int(messages(before)[0].split()[-1])
        assert child in {one.pid for one in worker.children()}
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: len([one for one in Job.of(sent.id).history() if one.log]) == 2, 40, "it runs again")
        first, second = Job.of(sent.id).history()
        assert (messages(first), first.outcome, second.outcome) == (messages(before), "interrupted", "running")
        assert messages(second)[0] != messages(first)[0]
        (alone.folder / "go").touch()
        Job.of(sent.id).wait(30)
        first, second = Job.of(sent.id).history()
        assert (messages(first), first.outcome, second.outcome) == (messages(before), "interrupted", "succeeded")
        assert len(LiveLogs(app.store).of(sent.id)) >= 1, "the first run is taken for ended after two minutes"


class TooLong(ImmediateTask):
    """Log a line, and run beyond the hard limit."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 1.5
    time_limit = 10

    def run(self, folder: Path) -> None:
        logger.info("it begins")
        try:
            wait_until((folder / "never").exists, timeout=60)
        except SoftTimeLimitExceeded:
            logger.info("it goes on")
        wait_until((folder / "never").exists, timeout=60)


def test_a_job_that_its_hard_limit_ends(alone: Installation) -> None:
    """Its lines of before are those of its dead letter."""
    with alone.application(), alone.worker("--concurrency=1"):
        sent = TooLong.delay(folder=alone.folder)
        Job.of(sent.id).wait(60)
        (attempt,) = Job.of(sent.id).history()
        assert (attempt.outcome, attempt.error, messages(attempt)) == (
            "dead",
            "TimeLimitExceeded",
            ["it begins", "it goes on"],
        )


def test_threads_of_a_job_need_its_context(alone: Installation) -> None:
    """As `copy_context` gives it."""
    with alone.application(), alone.worker():
        sent = Threads.delay(number=1)
        Job.of(sent.id).wait(30)
        (attempt,) = Job.of(sent.id).history()
        assert messages(attempt) == ["a thread with the context", "the job"]


def test_turned_off(alone: Installation) -> None:
    """Nothing is kept."""
    alone.settings["job_log_limit"] = 0
    with alone.application() as app, alone.worker():
        assert app.attempt_logs is None
        sent = Speaks.delay(name="eve", fails=True)
        attempts = Job.of(sent.id).wait(30).history()
        assert [(one.outcome, one.log) for one in attempts] == [("retried", ()), ("dead", ())]
        assert LiveLogs(app.store).of(sent.id) == []


@contextmanager
def frozen(server: Any) -> Iterator[None]:
    """A server that takes connections and says nothing."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


class Marks(LongRunningTask):
    """Note in a file how often it came round, log a line each time, until there is a file `go`."""

    queue_name = "holds"
    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> None:
        rounds = 0

        def goes() -> bool:
            nonlocal rounds
            rounds += 1
            logger.info("round %d", rounds)
            (folder / "rounds").write_text(str(rounds))
            return (folder / "go").exists()

        wait_until(goes, timeout=120)


def test_a_job_goes_on_logging_while_redis_is_away(
    request: pytest.FixtureRequest, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """Nothing holds it up; what it says meanwhile is there afterwards."""
    port = free_port()
    with process(tmp_path / "redis", [f"port {port}", "appendonly yes"]) as server:
        wait_for_server(tmp_path / "redis", port)
        settings = {"broker_url": f"redis://127.0.0.1:{port}/0", "database_url": new_database(tmp_path)}
        here = Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)
        with here.application() as app, here.worker("--queues=holds") as worker:
            sent = Marks.delay(folder=tmp_path)
            wait_until(lambda: LiveLogs(app.store).of(sent.id), 20, "its lines")

            def rounds() -> int:
                file = tmp_path / "rounds"
                return int(file.read_text() or 0) if file.exists() else 0

            with frozen(server):
                before = rounds()
                wait_until(lambda: rounds() > before + 100, patient(15), "it goes on")
                (tmp_path / "go").touch()
                wait_until(lambda: rounds() == wait_until(rounds), 5)
            assert Job.of(sent.id).wait(60).went_well, worker.output
            moved(app, sent.id, 1)
            (attempt,) = Job.of(sent.id).history()
            assert messages(attempt)[-1] == f"round {rounds()}"
            assert "Logging error" not in worker.output


def output_of(worker: Worker) -> list[str]:
    """Lines of the worker's own log that the job wrote."""
    return [line.partition("] ")[2] for line in worker.output.splitlines() if " shop" in line or "hello" in line]


def test_the_worker_s_own_log_is_what_it_was(alone: Installation) -> None:
    """With and without."""
    with alone.application():
        found = []
        for limit in ("65536", "0"):
            with alone.worker("--concurrency=1", CONVENTIONS_JOB_LOG_LIMIT=limit) as worker:
                sent = Speaks.delay(name="fay" if limit == "0" else "fae", fails=True)
                Job.of(sent.id).wait(30)
                found.append([line.replace("fay", "fae") for line in output_of(worker)])
        assert found[0]
        assert found[0] == found[1]
