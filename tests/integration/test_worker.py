"""A real worker: what it consumes, how it starts and stops, and what becomes of jobs that end badly."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
from celery import chain
from celery.exceptions import SoftTimeLimitExceeded

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, LongRunningTask, RetryPolicy, ScheduledTask
from conventions.app import ConventionsApp
from conventions.broker.header_names import FINGERPRINT, KEY, OURS
from conventions.core.lease_timings import LEAST_LEASE
from tests import raw_messages as raw
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, inspected, letters, messages, told, wait_for_letter, wait_until_empty

ONCE = RetryPolicy(attempts=1)


class Add(ImmediateTask):
    """Add two numbers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    aliases = ("test_worker.OldAdd",)

    def run(self, a: int, b: int = 0) -> int:
        return a + b


class Own(ImmediateTask):
    """Come by a queue of its own."""

    queue_name = "of-its-own"
    not_idempotent = "a test"
    ignore_result = False

    def run(self) -> str:
        return str(self.request.delivery_info["routing_key"])


class Night(ScheduledTask):
    """Come by the scheduled queue."""

    ignore_result = False

    def run(self) -> str:
        return str(self.request.delivery_info["routing_key"])


class Long(LongRunningTask):
    """Come by the long queue."""

    not_idempotent = "a test"
    ignore_result = False

    def run(self) -> str:
        return str(self.request.delivery_info["routing_key"])


class Hold(ImmediateTask):
    """Leave a file when it starts, wait for the file `go`, and write a line when it ends."""

    idempotent_on = ("name",)

    def run(self, name: str, folder: Path) -> None:
        (folder / f"{name}.started").touch()
        wait_until((folder / "go").exists, timeout=60)
        with (folder / "done").open("a") as lines:
            lines.write(f"{name}\n")


class Stubborn(ImmediateTask):
    """Go on after the soft limit."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 1
    time_limit = 2

    def run(self, seconds: float) -> None:
        while True:
            try:
                time.sleep(seconds)
            except SoftTimeLimitExceeded:
                continue


class Obedient(ImmediateTask):
    """End at the soft limit."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 1
    time_limit = 20
    retry_policy = ONCE

    def run(self, seconds: float) -> None:
        time.sleep(seconds)


class EndlessText(Exception):
    """Its text is never read to its end; `stubborn`: not even when it is asked to stop."""

    def __init__(self, *, stubborn: bool) -> None:
        super().__init__()
        self.stubborn = stubborn

    def __str__(self) -> str:
        try:
            time.sleep(30)
        except SoftTimeLimitExceeded:
            if not self.stubborn:
                raise
        return str(self)


class Wordy(ImmediateTask):
    """Fail with an error of endless text, or one that is caused by such."""

    idempotent_on = EVERY_ARGUMENT
    soft_time_limit = 1
    time_limit = 3
    retry_policy = ONCE

    def run(self, stubborn: bool, caused: bool) -> None:
        error = EndlessText(stubborn=stubborn)
        if caused:
            raise LookupError("by another one") from error
        raise error


class WordyAlone(Wordy):
    """The same, by itself."""

    idempotent_on = EVERY_ARGUMENT
    fast_lane = False


class Unwritable(ImmediateTask):
    """Return what JSON cannot hold."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> Any:
        with file.open("a") as lines:
            lines.write("ran\n")
        return object()


class Who(ImmediateTask):
    """Say what it knows of its message."""

    idempotent_on = ("day",)
    ignore_result = False

    def run(self, day: date) -> list[Any]:
        return [type(day).__name__, self.actor, self.attempt, len(self.idempotency_key)]


class Traced(ImmediateTask):
    """Say at the second attempt which headers of others there are."""

    idempotent_on = ("number",)
    ignore_result = False
    retry_policy = RetryPolicy(first_wait=0.01, max_wait=0.05)

    def run(self, number: int) -> list[Any]:
        if self.attempt == 1:
            raise RuntimeError("once more")
        headers = self.request.headers
        return [
            number,
            self.attempt,
            {name: headers[name] for name in headers if name.startswith("x") and name not in OURS},
        ]


class Refuse(ImmediateTask):
    """Fail for a business reason."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        raise BusinessError(f"no {number}")


class Exit(ImmediateTask):
    """Try to end the process."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = ONCE

    def run(self, number: int) -> None:
        raise SystemExit(number)


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """The tasks of this module in an application of the test's own, for workers that the test starts itself."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)


@pytest.fixture
def other(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        yield app


# Queues.


@pytest.mark.everyday
def test_without_queues_named_every_queue_is_consumed(live_app: ConventionsApp) -> None:
    """Those of the three classes, and every task's own."""
    assert Add.delay(1).get(timeout=patient(10)) == 1
    assert Own.delay().get(timeout=patient(10)) == "of-its-own"
    assert Night.delay().get(timeout=patient(10)) == "scheduled"
    assert Long.delay().get(timeout=patient(10)) == "long"
    ((_, queues),) = inspected(live_app, "active_queues").items()
    assert {queue["name"] for queue in queues} >= {"immediate", "scheduled", "long", "of-its-own"}


@pytest.mark.everyday
def test_where_long_is_consumed_nothing_is_taken_ahead(live_app: ConventionsApp) -> None:
    """One message for each process: five."""
    ((_, stats),) = inspected(live_app, "stats").items()
    assert stats["prefetch_count"] == stats["pool"]["max-concurrency"] == 5


@pytest.mark.everyday
def test_a_pool_is_not_restarted_in_place(live_app: ConventionsApp) -> None:
    """A sentence says what to do; its processes go on."""

    def processes() -> list[int]:
        ((_, stats),) = inspected(live_app, "stats").items()
        found: list[int] = stats["pool"]["processes"]
        return found

    before = processes()
    ((answer,),) = (one.values() for one in told(live_app.control.pool_restart))
    assert answer["error"].startswith("pool_restart is not done: "), answer
    assert "Restart the worker" in answer["error"]
    assert processes() == before


def test_workers_for_one_queue(other: ConventionsApp, installation: Installation) -> None:
    """`-Q long` alone works and takes nothing ahead; `-Q immediate` takes four for each process."""
    with installation.workers(("-Q", "long", "-c", "2"), ("-Q", "immediate", "-c", "2")) as workers:
        long, immediate, neither = Long.delay(), Add.delay(7), Own.delay()
        assert (long.get(timeout=patient(10)), immediate.get(timeout=patient(10))) == ("long", 7)
        stats = inspected(other, "stats", 2)
        assert sorted(found["prefetch_count"] for found in stats.values()) == [2, 8]
        consumed = inspected(other, "active_queues", 2)
        assert sorted(queue["name"] for queues in consumed.values() for queue in queues) == ["immediate", "long"]
        wait_until(lambda: [sent.id for sent in messages(other)] == [neither.id], description="its queue is not read")
        waited = [_moment(worker.output, "ready") - _moment(worker.output, "Connected to") for worker in workers]
    assert min(waited) < patient(1), "a worker beside others does not wait for their answers before its first job"


def test_queues_are_added_and_cancelled_while_a_worker_idles(other: ConventionsApp, installation: Installation) -> None:
    """By remote control, at once: the read under way, which would wait for ten seconds, is ended."""
    with installation.worker("-Q", "immediate", "-c", "1"):
        assert Add.delay(1).get(timeout=patient(10)) == 1
        told(other.control.add_consumer, "of-its-own")
        assert Own.delay().get(timeout=patient(5)) == "of-its-own"
        told(other.control.cancel_consumer, "of-its-own")
        left = Own.delay()
        assert Add.delay(2).get(timeout=patient(10)) == 2
        wait_until(lambda: [sent.id for sent in messages(other)] == [left.id], description="its queue is not read")
        assert other.broker.sizes("of-its-own").ready == 1
        told(other.control.add_consumer, "of-its-own")
        assert left.get(timeout=patient(5)) == "of-its-own"


def test_what_comes_while_a_worker_stops_is_run_by_the_other(other: ConventionsApp, installation: Installation) -> None:
    """An idle worker that ends takes no message with it, and no wake-up."""
    with installation.workers(("-Q", "immediate", "-c", "1"), ("-Q", "immediate", "-c", "1")) as (first, second):
        first.process.send_signal(signal.SIGTERM)
        results = [Add.delay(number, 1) for number in range(200)]
        assert [result.get(timeout=patient(10)) for result in results] == [number + 1 for number in range(200)]
        assert first.process.wait(patient(20)) == 0
        assert second.process.poll() is None
        wait_until_empty(other)


# Start and stop.


def _moment(log: str, text: str) -> float:
    stamp = re.search(rf"^\[([\d-]+ [\d:,]+): .*{text}", log, re.MULTILINE)
    assert stamp, log
    return datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007  # only differences count


@pytest.mark.everyday
def test_a_stopping_worker_ends_its_jobs_and_gives_back_the_others(
    other: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """SIGTERM while one job runs and three wait in the worker: none is lost, none runs twice."""
    names = ["first", "second", "third", "fourth"]
    with installation.worker("-Q", "immediate", "-c", "1") as worker:
        for name in names:
            Hold.delay(name, tmp_path)
        wait_until((tmp_path / "first.started").exists, description="the first job runs")
        worker.wait_for("received", timeout=10)
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        (tmp_path / "go").touch()
        assert worker.process.wait(patient(20)) == 0
    assert (tmp_path / "done").read_text() == "first\n"
    with installation.worker("-Q", "immediate", "-c", "1"):
        wait_until(lambda: len((tmp_path / "done").read_text().split()) == 4, 20, "all four are done")
        wait_until_empty(other)
    assert sorted((tmp_path / "done").read_text().split()) == sorted(names)


def test_jobs_of_a_killed_worker_run_again(other: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """`kill -9` of the worker and its pool while two jobs run: both run again on another worker."""
    installation.settings["lease"] = LEAST_LEASE
    with installation.worker("-Q", "immediate", "-c", "2") as worker:
        for name in ("first", "second"):
            Hold.delay(name, tmp_path)
        wait_until(lambda: len(list(tmp_path.glob("*.started"))) == 2, description="both run")
        worker.kill()
    (tmp_path / "go").touch()
    with installation.worker("-Q", "immediate", "-c", "2"):
        wait_until((tmp_path / "done").exists, 90, "a job runs again")
        wait_until(lambda: sorted((tmp_path / "done").read_text().split()) == ["first", "second"], 90, "both are done")
        wait_until_empty(other, 90)


def test_the_job_of_a_killed_pool_process_runs_again(
    other: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """The kernel kills one process of the pool; the worker replaces it and the job runs again."""
    installation.settings["lease"] = LEAST_LEASE
    with installation.worker("-Q", "immediate", "-c", "1") as worker:
        Hold.delay("victim", tmp_path)
        wait_until((tmp_path / "victim.started").exists, description="the job runs")
        (child,) = worker.children()
        (tmp_path / "go").touch()
        os.kill(child.pid, signal.SIGKILL)
        wait_until_empty(other, 90)
        assert (tmp_path / "done").read_text() in ("victim\n", "victim\nvictim\n")
        assert letters(other) == []


class Secretive(ImmediateTask):
    """Return, or raise, what nobody should read."""

    not_idempotent = "a test"
    retry_policy = ONCE
    ignore_result = False
    allowed_credentials: ClassVar = {"text": "else it could not be sent"}

    def run(self, go: Path, text: str, *, fails: bool) -> str:
        while not go.exists():
            time.sleep(0.02)
        if fails:
            raise BusinessError(text)
        return text


@pytest.mark.everyday
def test_what_the_log_and_inspect_say_of_a_job(live_app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """Not what it returns, no login of an address, nothing that a terminal obeys, and no more than the start of its arguments."""
    go = tmp_path / "go"
    text = "redis://user:hunter2@host \x1b]0;owned\x07\nforged line"
    bad = Secretive.delay(go, text, fails=True)
    good = Secretive.delay(go, f"{text} {'x' * 5000}", fails=False)

    def shown() -> str:
        return str(live_app.control.inspect(timeout=2).active())

    active = wait_until(lambda: found if good.id in (found := shown()) else None, 20, "it runs")
    assert len(active) < 5000
    go.touch()
    assert good.get(timeout=patient(20)).startswith(text)
    letter = wait_for_letter(live_app, bad.id)
    worker.wait_for(f"[{good.id}] succeeded in ")
    assert "hunter2" not in worker.output + letter.error_message + letter.traceback
    assert "x" * 100 not in worker.output
    assert "\x1b]" not in worker.output
    assert "\\x1b]0;owned" in worker.output


# Jobs that end badly.


@pytest.mark.everyday
def test_a_job_beyond_its_limits(live_app: ConventionsApp, worker: Worker) -> None:
    """At the soft one it fails, and the log says what to do (R5); at the hard one it is killed, and a dead letter."""
    stubborn, obedient = Stubborn.delay(30), Obedient.delay(30)
    assert wait_for_letter(live_app, obedient.id).error == "SoftTimeLimitExceeded"
    worker.wait_for(f"too long: id={obedient.id}")
    letter = wait_for_letter(live_app, stubborn.id)
    assert (letter.error, letter.task, letter.arguments) == ("TimeLimitExceeded", Stubborn.name, {"seconds": 30})
    wait_until_empty(live_app)
    assert Add.delay(9).get(timeout=patient(10)) == 9, "the pool goes on"


@pytest.mark.parametrize("task", [Wordy, WordyAlone])
@pytest.mark.parametrize("caused", [False, True])
def test_the_text_of_an_error_is_read_within_the_limits(
    live_app: ConventionsApp, task: type[Wordy], caused: bool
) -> None:
    """The soft one ends it, and the letter says of which error it was; else the hard one does. The pool goes on."""
    sent = task.delay(stubborn=False, caused=caused)
    letter = wait_for_letter(live_app, sent.id)
    assert letter.error == "SoftTimeLimitExceeded"
    assert "the soft time limit has passed while the text of EndlessText was read" in letter.error_message
    assert "raise LookupError" in letter.traceback if caused else "raise error" in letter.traceback
    stubborn = task.delay(stubborn=True, caused=caused)
    assert wait_for_letter(live_app, stubborn.id).error == "TimeLimitExceeded"
    wait_until_empty(live_app)
    assert Add.delay(9).get(timeout=patient(10)) == 9


@pytest.mark.everyday
def test_a_result_that_json_cannot_hold(live_app: ConventionsApp, tmp_path: Path) -> None:
    """A dead letter at once: its effect happened, so it must not run again."""
    file = tmp_path / "file"
    letter = wait_for_letter(live_app, Unwritable.delay(file).id)
    assert (letter.error, letter.attempts) == ("PayloadError", 1)
    assert "return JSON values" in letter.error_message
    assert file.read_text() == "ran\n"


@pytest.mark.everyday
def test_a_job_that_exits_is_a_failed_job(live_app: ConventionsApp) -> None:
    """`sys.exit` in a library must neither end the worker nor lose the job."""
    letter = wait_for_letter(live_app, Exit.delay(3).id)
    assert "exit" in letter.error_message
    assert Add.delay(11).get(timeout=patient(10)) == 11


# Messages of others.


@pytest.fixture
def foreign(live_app: ConventionsApp) -> Callable[..., Any]:
    """Sends a message as another program would, which knows Celery but not us."""

    def send(name: str, args: Sequence[Any] = (), kwargs: Any = None, **headers: Any) -> Any:
        sent = raw.headers(name, ignore_result=False, **headers)
        return live_app.AsyncResult(raw.publish(live_app, "immediate", raw.body(args, kwargs), sent))

    return send


@pytest.mark.everyday
def test_a_message_without_our_headers_runs(foreign: Callable[..., Any]) -> None:
    """Its key is computed on arrival, its arguments are typed, and its actor is the system."""
    message = foreign(Who.name, ("2026-01-31",))
    assert message.get(timeout=patient(10)) == ["date", "system", 1, 32]
    assert Who.delay(date(2026, 1, 31)).get(timeout=patient(10)) == ["date", "system", 1, 32], "the same key"


@pytest.mark.everyday
def test_headers_of_others_reach_the_job(live_app: ConventionsApp) -> None:
    """Also where they begin as ours do, at each attempt, and in what follows; names that a request has are not theirs to take."""
    others = {"x_request_id": "r-1", "x-b3-traceid": "80f198ee"}
    assert Traced.apply_async((1,), headers=others).get(timeout=patient(10)) == [1, 2, others]
    step = chain(Add.si(1), Traced.si(2).set(headers=others)).delay()
    assert step.get(timeout=patient(10)) == [2, 2, others]
    body = raw.body(kwargs={"day": "2026-02-01"})
    taken: dict[str, Any] = {
        "checkpoint": 5,
        "committed": True,
        "reporter": 1,
        "last_progress": "x",
        "ignore_result": False,
    }
    foreign = raw.publish(live_app, "immediate", body, raw.headers(Who.name, **taken))
    assert live_app.AsyncResult(foreign).get(timeout=patient(10)) == ["date", "system", 1, 32]


@pytest.mark.everyday
def test_a_message_with_faulty_arguments_is_a_dead_letter(
    live_app: ConventionsApp, foreign: Callable[..., Any]
) -> None:
    """It is not tried again: nothing would change."""
    for arguments in ({"day": "yesterday"}, {}, {"day": "2026-01-31", "more": 1}):
        message = foreign(Who.name, kwargs=arguments)
        letter = wait_for_letter(live_app, message.id)
        assert (letter.error, letter.attempts, letter.arguments) == ("PayloadError", 1, arguments)


@pytest.mark.everyday
def test_a_message_of_ours_whose_arguments_fit_no_more(live_app: ConventionsApp, foreign: Callable[..., Any]) -> None:
    """As after a deploy that changed the signature: a dead letter, unless its job was done before (R4)."""
    headers = {KEY: "of-a-former-release", FINGERPRINT: "f"}
    arguments = {"former": 1}
    message = foreign(Who.name, kwargs=arguments, **headers)
    letter = wait_for_letter(live_app, message.id)
    assert (letter.error, letter.attempts, letter.arguments) == ("PayloadError", 1, arguments)
    assert live_app.store.redis.hget(live_app.store.key("claim", Who.name, headers[KEY]), "state") == b"dead"

    first = foreign(Who.name, kwargs={"day": "2026-01-30"}, **headers)
    done = first.get(timeout=patient(10))
    again = foreign(Who.name, kwargs=arguments, **headers)
    assert again.get(timeout=patient(10)) == done
    wait_until_empty(live_app)
    assert again.id not in {letter.id for letter in letters(live_app)}


@pytest.mark.everyday
def test_a_message_under_an_old_name_runs(foreign: Callable[..., Any]) -> None:
    """A renamed task says so in `aliases`."""
    assert foreign("test_worker.OldAdd", (20, 1)).get(timeout=patient(10)) == 21


# Other pools.


def test_the_threads_pool(other: ConventionsApp, installation: Installation) -> None:
    """Jobs of several threads each know their own message."""
    with installation.worker("-P", "threads", "-c", "4"):
        results = [Who.apply_async((date(2026, 1, day),), actor=f"u-{day}") for day in range(1, 13)]
        assert [result.get(timeout=patient(20))[1] for result in results] == [f"u-{day}" for day in range(1, 13)]
        assert wait_for_letter(other, Refuse.delay(3).id).error == "BusinessError"


def test_the_solo_pool_and_a_letter_that_cannot_be_recorded(
    other: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """Its database has no tables: a dead letter waits in the journal, and is recorded when SQL is there again."""
    missing = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    with installation.worker("-P", "solo", CONVENTIONS_DATABASE_URL=missing) as worker:
        assert Who.delay(date(2026, 1, 1)).get(timeout=patient(10))[0] == "date"
        message = Refuse.delay(7)
        worker.wait_for("not recorded for now")
        wait_until(lambda: not messages(other), description="it is acknowledged")
        assert other.journal.length() >= 1
    with installation.worker("-P", "solo"):
        assert wait_for_letter(other, message.id).error == "BusinessError"
        wait_until(lambda: other.journal.length() == 0, description="everything is recorded")
