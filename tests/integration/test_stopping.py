"""How a worker starts and stops: within the grace period, at once when told again, and with nothing lost or counted."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import bootsteps
from celery.signals import worker_init, worker_ready, worker_shutting_down

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.core.repeated_signal import SAME_PRESS
from conventions.records import executions
from conventions.records.journal import Journal
from conventions.worker import shutdown
from tests.claiming import fields_of
from tests.support import at_most, patient, wait_until
from tests.workers import Installation, Worker, letters, messages, told, wait_until_empty

QUEUE = "immediate"
POOLS = ("prefork", "threads", "solo")
AT_ONCE = 2.0  # seconds


class Hold(ImmediateTask):
    """Write a line when it starts, wait for the file `go`, and write a line when it ends."""

    idempotent_on = ("name",)
    soft_time_limit = 100
    time_limit = 110

    def run(self, name: str, folder: Path) -> None:
        with (folder / "started").open("a") as lines:
            lines.write(f"{name}\n")
        wait_until((folder / "go").exists, timeout=100)
        with (folder / "done").open("a") as lines:
            lines.write(f"{name}\n")


class Touch(ImmediateTask):
    """Leave a file."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        file.touch()


class Tell(ImmediateTask):
    """Write down in which process it ran."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        file.write_text(str(os.getpid()))


class GoOnMeanwhile(bootsteps.StartStopStep):
    """A stopped process goes on when the main process writes to it and listens to it no more.

    It begins what it was given, or reads all that there is of it.
    """

    def stop(self, parent: Any) -> None:
        """While the worker stops."""
        folder = Path(os.environ["GO_ON_MEANWHILE"])
        os.kill(int((folder / "pid").read_text()), signal.SIGCONT)
        (process,) = parent.pool._pool._pool
        wait_until(lambda: unread(process.inqW_fd) == 0, 10)
        if parent.pool._pool._cache:
            wait_until((folder / "started").exists, 10)


def unread(pipe: int) -> int:
    """Bytes in it."""
    found: tuple[int] = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"    "))
    return found[0]


@worker_init.connect
def _go_on_meanwhile(sender: Any, **_: Any) -> None:
    """Where a test asks for it."""
    if "GO_ON_MEANWHILE" in os.environ:
        sender.app.steps["consumer"].add(GoOnMeanwhile)
    if "GO_ON_AT_ONCE" in os.environ:
        worker_shutting_down.connect(_go_on_at_once)  # before the worker gives back what has not begun
    if os.environ.get("TOLD_AGAIN") == "before":
        worker_shutting_down.connect(_tell_again)
    if "SAME_PRESS" in os.environ:
        vars(shutdown)["SAME_PRESS"] = float(os.environ["SAME_PRESS"])


@worker_ready.connect
def _tell_again_after(**_: Any) -> None:
    """Where a test asks for it."""
    if os.environ.get("TOLD_AGAIN") == "after":
        worker_shutting_down.connect(_tell_again)


def _tell_again(**_: Any) -> None:
    """The worker is told again while it hears of the first signal, and its main thread is held up for a while."""
    worker_shutting_down.disconnect(_tell_again)
    os.kill(os.getpid(), signal.SIGINT)
    if os.environ["TOLD_AGAIN"] == "after":
        threading.Event().wait(5)


def _go_on_at_once(**_: Any) -> None:
    """A stopped process begins what it was given, while the main process hears nothing."""
    folder = Path(os.environ["GO_ON_AT_ONCE"])
    os.kill(int((folder / "pid").read_text()), signal.SIGCONT)
    wait_until((folder / "started").exists, 10)


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """The tasks of this module; a worker has five seconds to finish its jobs."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "shutdown_grace": 5}
    packages = [__name__, "tests.integration.stopping_function"]
    return Installation(tmp_path, packages, [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        yield app


def lines(file: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return file.read_text().split() if file.exists() else []


def wait_for_starts(file: Path, number: int) -> None:
    """Wait until so many jobs have begun."""
    wait_until(lambda: len(lines(file)) == number, 10, f"{number} jobs have begun")


def wait_until_idle(app: ConventionsApp) -> None:
    """Return when the main process of the one worker has heard that no job runs any more."""
    inspect = app.control.inspect(timeout=5, limit=1)
    wait_until(lambda: [*(inspect.active() or {}).values()] == [[]], 15, "it is idle")


def let_turn(app: ConventionsApp) -> None:
    """Return when the worker's loop has turned twice: what came has been handed to its process."""
    for _ in range(2):
        told(app.control.broadcast, "ping")


def starts(app: ConventionsApp, name: str) -> int:
    """Starts without an outcome, as the claim of a job has them."""
    (sent,) = (one for one in messages(app) if one.arguments["name"] == name)
    return int(fields_of(app.store, f"{Hold.name}:{sent.headers['x_key']}").get(b"starts", 0))


def ended(app: ConventionsApp) -> list[tuple[str, int]]:
    """Kind and attempt of everything that was recorded, but for starts without an outcome: they end nothing."""
    with app.database.session() as session:
        found = executions.latest(session, 100)
        return [(row.kind, row.attempt) for row in found if row.kind != "interrupted"]


def group_of(worker: Worker) -> list[int]:
    """The processes of a worker's group that live, the main process included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == worker.process.pid and state != "Z":
                found.append(int(entry.name))
    return found


def check_ended(app: ConventionsApp, names: list[str]) -> None:
    """Every job was done once, in its first attempt, and nothing is left."""
    wait_until_empty(app, 20)
    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    assert ended(app) == [("succeeded", 1)] * len(names)
    assert letters(app, state=None) == []
    assert app.broker.sizes(QUEUE) == Sizes(0, 0, 0)


@pytest.mark.parametrize("pool", POOLS)
def test_what_runs_ends_and_the_rest_goes_to_another_worker(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str
) -> None:
    """Within the grace period: the running job is done here; those behind it start elsewhere at once, not after it."""
    names = ["first", "second", "third"]
    Hold.enqueue_many([{"name": name, "folder": tmp_path} for name in names])
    grace = {"CONVENTIONS_SHUTDOWN_GRACE": "60"}  # longer than the others may take to start
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", **grace) as stopping:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="the first job runs")
        wait_until(lambda: app.broker.sizes(QUEUE).in_flight == 3, description="it holds the others, too")
        with installation.worker("-Q", QUEUE, "-P", "prefork", "-c", "2", "-n", "other@%h"):
            stopping.process.send_signal(signal.SIGTERM)
            wait_until(lambda: len(lines(tmp_path / "started")) == 3, AT_ONCE + 1, "the others start elsewhere")
            assert stopping.process.poll() is None
            assert [starts(app, name) for name in names] == [1, 1, 1]
            (tmp_path / "go").touch()
            assert stopping.process.wait(patient(AT_ONCE + 2)) == 0
            check_ended(app, names)
    assert sorted(lines(tmp_path / "done")) == sorted(lines(tmp_path / "started")) == sorted(names)


def hand_to_a_stopped_process(app: ConventionsApp, worker: Worker, folder: Path, name: str) -> int:
    """Let the one process of a worker stop, and the worker write the job `name` to it. Returns the process."""
    Tell.delay(folder / "pid")
    worker.wait_for("] succeeded in")
    wait_until_idle(app)
    process = int((folder / "pid").read_text())
    os.kill(process, signal.SIGSTOP)
    Hold.delay(name, folder=folder)
    worker.wait_for(f"Task {Hold.name}[")  # it has read it
    let_turn(app)
    return process


def test_a_job_that_has_only_just_begun_ends(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """Its process has begun it, and the main one has not heard of that when it looks for processes that are idle."""
    with installation.worker("-Q", QUEUE, "-P", "prefork", "-c", "1", GO_ON_AT_ONCE=str(tmp_path)) as worker:
        process = hand_to_a_stopped_process(app, worker, tmp_path, "late")
        worker.process.send_signal(signal.SIGTERM)
        wait_for_starts(tmp_path / "started", 1)
        until = time.monotonic() + 1  # also on a busy machine: its grace period is five
        wait_until(lambda: process not in group_of(worker) or time.monotonic() > until, description="a second is over")
        assert process in group_of(worker)
        (tmp_path / "go").touch()
        assert worker.process.wait(patient(AT_ONCE + 2)) == 0
    assert lines(tmp_path / "done") == ["late"]
    with installation.worker("-Q", QUEUE, "-c", "1"):
        check_ended(app, ["pid", "late"])


def test_a_job_that_has_only_just_begun_is_cut_off(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """Its process has begun it, and is killed before the main one has heard of that: its start does not count."""
    more = {"GO_ON_AT_ONCE": str(tmp_path), "TOLD_AGAIN": "after", "CONVENTIONS_SHUTDOWN_GRACE": "60"}
    with installation.worker("-Q", QUEUE, "-P", "prefork", "-c", "1", **more) as worker:
        hand_to_a_stopped_process(app, worker, tmp_path, "late")
        worker.process.send_signal(signal.SIGTERM)
        worker.process.wait(patient(20))
    assert lines(tmp_path / "started") == ["late"]
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)
    assert starts(app, "late") == 0
    (tmp_path / "go").touch()
    with installation.worker("-Q", QUEUE, "-c", "1"):
        check_ended(app, ["pid", "late"])


@pytest.mark.parametrize("told_by", ["signal", "remote control"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_function_that_has_ended_is_acknowledged_while_others_run(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str, told_by: str
) -> None:
    """So the end of the grace period does not let it run again: it has no claim that would tell."""
    Hold.delay("first", tmp_path)
    app.send_task("note_of_a_function", kwargs={"folder": str(tmp_path)}, queue=QUEUE)
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2", CONVENTIONS_SHUTDOWN_GRACE="60") as worker:
        wait_until(lambda: sorted(lines(tmp_path / "started")) == ["first", "function"], 20, "both run")
        if told_by == "signal":
            worker.process.send_signal(signal.SIGTERM)
            worker.wait_for("Warm shutdown")
        else:
            app.control.shutdown()
        (tmp_path / "function may end").touch()
        wait_until(lambda: app.broker.sizes(QUEUE) == Sizes(0, 0, 1), 20, "it is acknowledged")
        worker.process.send_signal(signal.SIGQUIT)
        worker.process.wait(patient(20))
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)


def test_a_job_that_is_not_written_to_its_end_holds_nobody_up(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """Its process has not begun it, and never will: it is ended, and the message goes back at once."""
    more = {"GO_ON_MEANWHILE": str(tmp_path), "CONVENTIONS_SHUTDOWN_GRACE": "60"}  # longer than it may take here
    with installation.worker("-Q", QUEUE, "-P", "prefork", "-c", "1", **more) as worker:
        large = "x" * 65_000  # with its message more than a pipe holds
        hand_to_a_stopped_process(app, worker, tmp_path, large)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(patient(AT_ONCE + 2)) == 0
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)
    assert starts(app, large) == 0


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_not_done_within_the_grace_period_goes_back(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str
) -> None:
    """Four times, which is more than the starts that make a message poison: nothing is counted."""
    Hold.enqueue_many([{"name": name, "folder": tmp_path} for name in ("first", "second")])
    concurrency = "1" if pool == "solo" else "2"
    for number in range(1, 5):
        with installation.worker(
            "-Q", QUEUE, "-P", pool, "-c", concurrency, CONVENTIONS_SHUTDOWN_GRACE="0.5"
        ) as worker:
            wait_for_starts(tmp_path / "started", number * int(concurrency))
            began = time.monotonic()
            with at_most(0.5, AT_ONCE):
                worker.process.send_signal(signal.SIGTERM)
                worker.process.wait(patient(10))
            assert time.monotonic() - began > 0.4
            wait_until(lambda: group_of(worker) == [], 5, "nothing of it lives")
        assert app.broker.sizes(QUEUE) == Sizes(2, 0, 0)
        assert [starts(app, name) for name in ("first", "second")] == [0, 0]
    (tmp_path / "go").touch()
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2"):
        check_ended(app, ["first", "second"])


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("pool", POOLS)
def test_a_second_signal_ends_it_at_once(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str, second: signal.Signals
) -> None:
    """Its job is back in the queue, runs elsewhere at once, and nothing is counted."""
    Hold.delay("first", tmp_path)
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", CONVENTIONS_SHUTDOWN_GRACE="60") as worker:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="it runs")
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("Warm shutdown")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + SAME_PRESS, 10, "it is no longer the same signal")
        with at_most(0, AT_ONCE):
            worker.process.send_signal(second)
            worker.process.wait(patient(10))
        wait_until(lambda: group_of(worker) == [], 5, "nothing of it lives")
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)
    assert starts(app, "first") == 0
    (tmp_path / "go").touch()
    with installation.worker("-Q", QUEUE, "-c", "1"):
        check_ended(app, ["first"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_same_signal_many_times_at_once_counts_once(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str, number: signal.Signals
) -> None:
    """As when a supervisor and a launcher both pass it on. One that interrupts the handler of another holds up nobody."""
    Hold.delay("first", tmp_path)
    # A busy machine may let half a second pass between two of them.
    variables = {"CONVENTIONS_SHUTDOWN_GRACE": "60", "SAME_PRESS": "30"}
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", **variables) as worker:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="it runs")
        began = time.monotonic()
        while time.monotonic() < began + 0.03:
            worker.process.send_signal(number)
        worker.wait_for("Warm shutdown")
        (tmp_path / "go").touch()
        assert worker.process.wait(patient(30)) == (number == signal.SIGINT), "as Celery's"
        assert lines(tmp_path / "done") == ["first"]
        assert "unfinished" not in worker.output


@pytest.mark.parametrize("told", ["before", "after"])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_second_signal_right_behind_the_first(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str, told: str
) -> None:
    """Before or after the worker has begun to end, whose own read must not take what it gives back, started or not."""
    Hold.enqueue_many([{"name": name, "folder": tmp_path} for name in ("first", "second")])
    variables = {"CONVENTIONS_SHUTDOWN_GRACE": "60", "TOLD_AGAIN": told}
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", **variables) as worker:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="it runs")
        wait_until(lambda: app.broker.sizes(QUEUE).in_flight == 2, description="it holds the other one, too")
        with at_most(0, AT_ONCE):
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(patient(10))
        assert worker.output.count("stopped with 1 jobs unfinished") == worker.output.count("stopped with ") == 1
    assert app.broker.sizes(QUEUE) == Sizes(2, 0, 0)
    assert [starts(app, name) for name in ("first", "second")] == [0, 0]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_remote_control_waits_no_longer_than_a_signal(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str
) -> None:
    """`celery control shutdown`: after the grace period what runs goes back."""
    Hold.delay("first", tmp_path)
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", CONVENTIONS_SHUTDOWN_GRACE="0.5") as worker:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="it runs")
        app.control.shutdown()
        worker.process.wait(patient(10))
        wait_until(lambda: group_of(worker) == [], 5, "nothing of it lives")
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)
    assert starts(app, "first") == 0


PROGRAM = f"""
import threading
from installed import app
from tests.support import wait_until

try:
    app.worker_main(["worker", "--queues={QUEUE}", "--concurrency=1", "--loglevel=INFO"])
except SystemExit:
    pass
wait_until(lambda: "grace" not in [one.name for one in threading.enumerate()], 30, "nobody waits to end it")
print("it goes on")
"""


def test_a_program_goes_on_when_its_worker_has_ended(
    app: ConventionsApp, installation: Installation, tmp_path: Path
) -> None:
    """One that runs a worker in its main thread is not ended with the grace period of that."""
    variables = installation.environment | {"CONVENTIONS_SHUTDOWN_GRACE": "3"}
    command = [sys.executable, "-c", PROGRAM]
    with (tmp_path / "output").open("w+") as output:
        program = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: " ready." in (tmp_path / "output").read_text(), 20, "the worker is ready")
            wait_until(lambda: app.control.ping(timeout=5, limit=1), 30, "it listens")
            app.control.shutdown()
            assert program.wait(patient(40)) == 0
        finally:
            program.kill()
            program.wait()
    assert "it goes on" in (tmp_path / "output").read_text()


@pytest.mark.parametrize("pool", POOLS)
def test_sigquit_ends_it_at_once(app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str) -> None:
    """Without a first signal."""
    Hold.delay("first", tmp_path)
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1", CONVENTIONS_SHUTDOWN_GRACE="60") as worker:
        wait_until(lambda: lines(tmp_path / "started") == ["first"], description="it runs")
        with at_most(0, AT_ONCE):
            worker.process.send_signal(signal.SIGQUIT)
            worker.process.wait(patient(10))
        wait_until(lambda: group_of(worker) == [], 5, "nothing of it lives")
    assert app.broker.sizes(QUEUE) == Sizes(1, 0, 0)
    assert starts(app, "first") == 0


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_start_and_stop_of_an_idle_worker_wait_for_nothing(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str, number: signal.Signals
) -> None:
    """No step waits for a lease, a lock or an answer: each of these waits takes longer here than the test lasts."""
    slow = {"CONVENTIONS_LEASE": "3600", "CONVENTIONS_SHUTDOWN_GRACE": "600", "CONVENTIONS_BROKER_TIMEOUT": "600"}
    Touch.delay(tmp_path / "file")
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2", **slow) as worker:
        wait_until(lambda: len(ended(app)) == 1, 20, "the recorder has begun")
        Touch.delay(tmp_path / "second")
        wait_until((tmp_path / "second").exists, 20, "the last job is done")
        wait_until_empty(app)
        if pool == "prefork":
            wait_until_idle(app)
        worker.process.send_signal(number)
        assert worker.process.wait(patient(20)) == (1 if number == signal.SIGINT else 0)  # as Celery has it
        wait_until(lambda: group_of(worker) == [], 20, f"nothing of it lives: {group_of(worker)}")
    if number != signal.SIGQUIT:
        assert ended(app) == [("succeeded", 1)] * 2, "the recorder had time for the last events"
    else:  # the recorder ends at once, too
        assert len(ended(app)) + Journal(app.store).length() >= 2, (
            "the next recorder has what this one has not recorded"
        )


@pytest.mark.parametrize("pool", POOLS)
def test_nothing_survives_the_death_of_the_main_process(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str
) -> None:
    """`kill -9` of it alone: its pool and its recorder end by themselves."""
    Touch.delay(tmp_path / "file")
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2") as worker:
        wait_until_empty(app)
        assert len(group_of(worker)) > 1
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait(patient(5))
        wait_until(lambda: group_of(worker) == [], 10, f"nothing of it lives: {group_of(worker)}")
