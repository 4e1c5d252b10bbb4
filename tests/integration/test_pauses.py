"""What is paused is not begun by real workers, whichever pool and broker they have; and it runs once it is resumed."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import HeldMessage
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_status import doubts
from conventions.jobs.job import Job
from conventions.metrics.worker_reports import WorkerNow, WorkerReports
from conventions.now.end_running import worker_of
from conventions.pauses.pause_actions import PauseActions, those_that_do_not_follow
from conventions.pauses.pause_store import Kind, Pauses, Target
from conventions.records import audit, executions
from conventions.storage.database import utc_now
from conventions.storage.tables import DeadLetterRow
from tests.integration import pauses_tasks  # pytest would look at a function in this module, and so make an application
from tests.integration.pauses_tasks import Apart, Hold, Note, Other
from tests.rabbitmq_servers import Rabbit
from tests.support import wait_until
from tests.workers import Installation, Worker, told, wait_until_empty

pytestmark = [pytest.mark.processes]
MANY = 60
POOLS = ("prefork", "threads", "solo")


def installation(folder: Path, broker: str, database: str, **settings: Any) -> Installation:
    """An installation of the test's own, with these tasks."""
    return Installation(
        folder, ["tests.integration.pauses_tasks"], broker_url=broker, database_url=database, **settings
    )


@pytest.fixture
def alone(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """On Redis."""
    return installation(tmp_path, valkey_url, new_database(tmp_path))


@pytest.fixture
def on_rabbitmq(valkey_url: str, rabbit: Rabbit, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """On RabbitMQ, with claims in Redis."""
    return installation(tmp_path, rabbit.url_of(rabbit.add_host()), new_database(tmp_path), redis_url=valkey_url)


@pytest.fixture(params=["alone", "on_rabbitmq"])
def each_broker(request: pytest.FixtureRequest) -> Installation:
    """On either broker."""
    found: Installation = request.getfixturevalue(request.param)
    return found


def ran(one: Installation) -> Counter[str]:
    """What has run, by the name of the task; fails where a job ran twice or as another attempt."""
    path = one.folder / "ran"
    lines = path.read_text().splitlines() if path.exists() else []
    assert len(lines) == len(set(lines))
    assert all(line.split()[2:] in ([], ["1"]) for line in lines)
    return Counter(line.split()[0] for line in lines)


def following(app: ConventionsApp, revision: int, workers: int = 1) -> None:
    """Wait until so many workers have reported, and all of them follow."""
    alive = reported(app, workers)
    assert those_that_do_not_follow(alive, revision, within=30) == []


def reported(app: ConventionsApp, workers: int = 1) -> Callable[[], list[WorkerNow]]:
    """The living workers, once there are so many."""

    def alive() -> list[WorkerNow]:
        return [one for one in WorkerReports(app.store).listing() if not one.silent]

    wait_until(lambda: len(alive()) == workers, 30, f"{workers} report")
    return alive


def paused(app: ConventionsApp, kind: Kind, name: str, workers: int = 1) -> Target:
    """Pause it, and wait until so many workers follow."""
    target = Target(kind, name)
    following(app, PauseActions(app.store).pause(target, "u-1", "a test").revision, workers)
    return target


def resumed(app: ConventionsApp, target: Target) -> None:
    """Resume it."""
    change = PauseActions(app.store).resume(target, "u-1")
    assert change is not None


def send(task: Any, folder: Path, numbers: Sequence[int]) -> None:
    """One job for each number."""
    for number in numbers:
        task.delay(folder=folder, number=number)


def test_a_queue_on_either_broker(each_broker: Installation) -> None:
    """Others run; a worker that starts meanwhile follows; the rest runs when it is resumed, once each."""
    one = each_broker
    with one.application() as app, one.worker("-c", "2") as worker:
        target = paused(app, "queue", "apart")
        send(Apart, one.folder, range(MANY))
        send(Note, one.folder, range(MANY))
        wait_until(lambda: ran(one)["note"] == MANY, 30, "others run")
        (report,) = [found.report for found in WorkerReports(app.store).listing()]
        assert (report.paused, "apart" in report.queues) == (("apart",), False)
        assert worker.stop() == 0
        with one.worker("-c", "1") as later:
            later.wait_for("paused: queue apart")
            send(Note, one.folder, range(MANY, 2 * MANY))
            wait_until(lambda: ran(one)["note"] == 2 * MANY, 30, "others run")
            assert ran(one)["apart"] == 0
            resumed(app, target)
            wait_until(lambda: ran(one)["apart"] == MANY, 30, "the rest runs")
            send(Apart, one.folder, range(MANY, 2 * MANY))
            wait_until(lambda: ran(one)["apart"] == 2 * MANY, 30, "and so do new ones")


@pytest.mark.parametrize("pool", POOLS)
def test_a_queue_in_each_pool(alone: Installation, pool: str) -> None:
    """Also all queues at once: the worker lives, and goes on."""
    with alone.application() as app, alone.worker("--pool", pool, "-c", "2"):
        targets = [paused(app, "queue", name) for name in ("apart", "immediate", "scheduled", "long")]
        send(Apart, alone.folder, range(MANY))
        send(Note, alone.folder, range(MANY))
        (found,) = WorkerReports(app.store).listing()
        assert (found.report.queues, found.silent) == ((), False)
        assert ran(alone) == Counter()
        for target in targets:
            resumed(app, target)
        wait_until(lambda: ran(alone) == {"apart": MANY, "note": MANY}, 30, "all of it runs")
        wait_until_empty(app)


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_in_each_pool(alone: Installation, pool: str) -> None:
    """What is behind it in its queue runs, and so does nothing of its alias; functions, too, can be paused."""
    with alone.application() as app, alone.worker("--pool", pool, "-c", "2"):
        send(Note, alone.folder, range(3))  # short ones go together from now on
        wait_until(lambda: ran(alone)["note"] == 3, 30, "they run")
        targets = [paused(app, "task", name) for name in (Note.name, "pauses.plain")]
        send(Note, alone.folder, range(3, MANY))
        app.send_task("old.note", kwargs={"folder": str(alone.folder), "number": MANY}, queue="immediate")
        pauses_tasks.plain.delay(str(alone.folder), 1)
        send(Other, alone.folder, range(MANY))
        wait_until(lambda: ran(alone)["other"] == MANY, 30, "others pass them")
        assert ran(alone) == {"note": 3, "other": MANY}
        for target in targets:
            resumed(app, target)
        wait_until(lambda: ran(alone) == {"note": MANY + 1, "other": MANY, "plain": 1}, 30, "all of it runs")
        wait_until_empty(app)


def test_a_task_on_rabbitmq(on_rabbitmq: Installation) -> None:
    """A copy waits at the broker for a minute, here two seconds: that is how long its messages may need once it is resumed."""
    start = "from conventions.worker import pauses\npauses.AWAY_ELSEWHERE = 2.0\nfrom installed import app\n"
    (on_rabbitmq.folder / "soon.py").write_text(start, encoding="utf-8")
    with on_rabbitmq.application() as app, on_rabbitmq.worker("-c", "1", app="soon"):
        target = paused(app, "task", Note.name)
        send(Note, on_rabbitmq.folder, range(MANY))
        for number in range(MANY, 2 * MANY):  # these are in Redis until they are due
            Note.apply_async(kwargs={"folder": on_rabbitmq.folder, "number": number}, countdown=number % 4)
        send(Other, on_rabbitmq.folder, range(5))
        wait_until(lambda: ran(on_rabbitmq)["other"] == 5, 30, "others pass them")
        began = Pauses(app.store).read().at
        wait_until(
            lambda: (Pauses(app.store).read().at - began).total_seconds() > 9, 30, "each has been away some times"
        )
        assert ran(on_rabbitmq)["note"] == 0
        resumed(app, target)
        wait_until(lambda: ran(on_rabbitmq)["note"] == 2 * MANY, 60, "all of them run")


def test_what_was_read_ahead_goes_back(each_broker: Installation) -> None:
    """A worker whose process is busy holds others: once it is free, it does not begin them, and nothing is counted."""
    one = each_broker
    with one.application() as app, one.worker("-c", "1", "-Q", "immediate,apart"):
        Hold.delay(folder=one.folder, number=0)
        wait_until(lambda: ran(one)["hold"] == 1, 30, "it runs")
        send(Note, one.folder, range(MANY))
        target = paused(app, "queue", "immediate")
        if app.port.keeps_claims:  # elsewhere they are with the pool
            wait_until(lambda: app.broker.sizes("immediate").ready == MANY, 10, "others can see them, and change them")
        (one.folder / "go").touch()
        Apart.delay(folder=one.folder, number=0)
        wait_until(lambda: ran(one)["apart"] == 1, 30, "its process is free")
        assert ran(one)["note"] == 0
        resumed(app, target)
        wait_until(lambda: ran(one)["note"] == MANY, 30, "they run, as a first attempt")


def test_one_worker_is_drained(each_broker: Installation) -> None:
    """What it runs goes on; the other one does the rest; it stays drained under its name when it is restarted."""
    one = each_broker
    with one.application() as app:
        with one.workers(("-c", "1"), ("-c", "1")) as workers:
            send(Hold, one.folder, range(2))
            wait_until(lambda: ran(one)["hold"] == 2, 30, "one runs in each")
            first, second = sorted(found.name for found in reported(app, 2)())
            target = paused(app, "worker", first, 2)
            (one.folder / "go").touch()
            send(Note, one.folder, range(MANY))
            wait_until(lambda: ran(one)["note"] == MANY, 30, "the other one does them")
            wait_until(lambda: _ends(app).total() >= MANY + 2, 30, "all is recorded, in any order")
            assert (_ends(app)[first], _ends(app)[second]) == (1, MANY + 1)
            workers[0].stop()
        with one.worker("-c", "1") as again:
            again.wait_for(f"paused: worker {first}")
            Note.delay(folder=one.folder, number=MANY)
            resumed(app, target)
            wait_until(lambda: ran(one)["note"] == MANY + 1, 30, "it works again")


def _ends(app: ConventionsApp) -> Counter[str]:

    with app.database.session() as session:
        rows = executions.latest(session, 1000, kind="succeeded")
        return Counter(row.worker for row in rows if row.worker)


def test_it_ends_by_itself(alone: Installation) -> None:
    """At the time that was said, by the clock of the server."""
    with alone.application() as app, alone.worker("-c", "1"):
        store = Pauses(app.store)
        until = store.read().at.timestamp() + 4
        from datetime import UTC, datetime

        actions = PauseActions(app.store)
        for target in (Target("queue", "apart"), Target("task", Note.name)):
            change = actions.pause(target, "u-1", "a test", datetime.fromtimestamp(until, UTC))
        following(app, change.revision)
        send(Apart, alone.folder, range(3))
        send(Note, alone.folder, range(3))
        wait_until(lambda: ran(alone) == {"apart": 3, "note": 3}, 30, "it is over")
        assert store.read().at.timestamp() >= until
        assert store.read().pauses == {}
        assert actions.resume(Target("queue", "apart"), "u-1") is None


def test_a_lost_connection_forgets_nothing(alone: Installation) -> None:
    """A worker that connects again consumes what it is to consume, and what is resumed later."""
    with alone.application() as app, alone.worker("-c", "1") as worker:
        target = paused(app, "queue", "apart")
        app.broker.store.redis.client_kill_filter(_type="normal", skipme=True)
        app.broker.store.redis.client_kill_filter(_type="pubsub", skipme=True)
        send(Apart, alone.folder, range(3))
        send(Note, alone.folder, range(3))
        wait_until(lambda: ran(alone)["note"] == 3, 30, "it works again")
        assert ran(alone)["apart"] == 0
        resumed(app, target)
        wait_until(lambda: ran(alone)["apart"] == 3, 30, "and this, too")
        assert worker.process.poll() is None


def test_remote_control_does_not_overrule_a_pause(alone: Installation) -> None:
    """Who adds the queue to a worker sees it leave the queue again."""
    with alone.application() as app, alone.worker("-c", "1"):
        paused(app, "queue", "apart")
        assert told(app.control.add_consumer, "apart")
        send(Apart, alone.folder, range(3))
        wait_until(lambda: "apart" not in reported(app)()[0].report.queues, 30, "it has left")
        wait_until(lambda: app.broker.sizes("apart").ready == 3, 10, "they wait")
        assert ran(alone)["apart"] == 0


def test_what_a_worker_that_followed_late_held_back(alone: Installation) -> None:
    """Comes back although nobody resumes anything any more."""
    start = "from conventions.worker import pauses\npauses.FORGOTTEN_EVERY = 1\nfrom installed import app\n"
    (alone.folder / "often.py").write_text(start, encoding="utf-8")
    with alone.application() as app, alone.worker("-c", "1", app="often"):
        sent = Apart.apply_async(kwargs={"folder": alone.folder, "number": 1}, queue="nobody-reads")
        (delivery,) = app.broker.reserve(["nobody-reads"], 1)
        held = HeldMessage(delivery.tag, delivery.queue, delivery.receipt)
        assert app.broker.hold_back([held], task=str(Apart.name), period=3600, why="paused") == 1
        wait_until(lambda: app.broker.sizes("nobody-reads").ready == 1, 30, f"{sent.id} is ready again")


def test_a_message_by_an_alias_says_why_it_waits(alone: Installation) -> None:
    """As one by the name of its task."""
    with alone.application() as app, alone.worker("-c", "1"):
        app.load_tasks()
        paused(app, "task", Note.name)
        sent = app.send_task("old.note", kwargs={"folder": str(alone.folder), "number": 1}, queue="immediate")
        wait_until(lambda: app.broker.sizes("immediate").delayed == 1, 30, "it is held back")
        assert "is paused" in Job.of(sent.id, app).waits_because


def test_force_on_either_broker(each_broker: Installation) -> None:
    """Its process is killed, also that of a function; its id may run again at the same worker."""
    one = each_broker
    with one.application() as app, one.worker("-c", "1") as worker:
        tasks: tuple[tuple[Any, str], ...] = ((Hold, "hold"), (pauses_tasks.holds, "holds"))
        for task, begun in tasks:
            sent = task.delay(folder=str(one.folder), number=1)
            wait_until(lambda begun=begun: ran(one)[begun] == 1, 30, "it runs")  # type: ignore[misc]  # a lambda
            wait_until(lambda sent=sent: worker_of(app, sent.id), 30, "its worker says so")  # type: ignore[misc]
            (process,) = worker.children()
            said = one.run("cancel", sent.id, "--force", "--reason", "it hangs")
            assert (said.returncode, "ended by force at worker0@" in said.stdout) == (0, True), said.stdout
            assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        revoked = app.control.inspect(timeout=5).revoked() or {}
        assert Hold.name not in str(revoked)
        assert not any(sent.id in ids for ids in revoked.values()) or task is not Hold
        Apart.delay(folder=one.folder, number=0)
        wait_until(lambda: ran(one)["apart"] == 1, 30, "the worker works on")
        nobody = one.run("cancel", "nobody", "--force", "--reason", "x")
        assert "ended by force" not in nobody.stdout


def test_functions_are_cancelled_while_they_wait(alone: Installation) -> None:
    """They have no claim, in which a worker would find a mark."""
    with alone.application() as app:
        app.load_tasks()
        ids = [pauses_tasks.plain.delay(str(alone.folder), number).id for number in range(4)]
        one = alone.run("cancel", ids[0])
        assert (one.returncode, "queued; it will not run" in one.stdout) == (0, True), one.stdout
        some = alone.run("messages", "cancel", "--task", "pauses.plain", "--sender", "nobody", "--reason", "x", "--yes")
        assert some.returncode == 1
        PauseActions(app.store).pause(Target("queue", "immediate"), "u", "x")
        last = pauses_tasks.plain.apply_async((str(alone.folder), 9), queue="apart")
        done = alone.run(
            "messages", "cancel", "--queue", "immediate", "--task", "plain", "--reason", "x", "--yes", "--json"
        )
        assert json.loads(done.stdout)["done"] + json.loads(done.stdout)["left"] == 3, done.stdout
        assert last.id
        with alone.worker("-c", "1"):
            wait_until(lambda: ran(alone)["plain"] == 1, 30, "only the other one runs")
            wait_until_empty(app)
        assert ran(alone)["plain"] == 1


def test_the_commands(alone: Installation) -> None:
    """Names are checked, the workers are asked, and the audit has who and why."""
    with alone.application() as app, alone.workers(("-c", "1"), ("-c", "1")):
        reported(app, 2)
        refused = alone.run("pause", "queue", "apar", "--reason", "x")
        assert refused.returncode == 2
        assert "there is no queue apar (did you mean apart?); there are: " in refused.stdout
        assert "apart" in refused.stdout
        assert alone.run("pause", "task", "old.not", "--reason", "x").returncode == 2
        assert alone.run("pause", "worker", "nobody@h", "--reason", "x").returncode == 2
        assert alone.run("pause", "queue", "apart", "--reason", "  ").returncode == 2
        long = alone.run("pause", "queue", "apart", "--reason", "x" * 3000)
        assert (long.returncode, "at most 2,000 characters" in long.stdout) == (2, True)
        assert alone.run("pause", "queue", "apart", "--reason", "x", "--until", "2020-01-01").returncode == 2
        said = alone.run("pause", "queue", "apart", "--reason", "the bank is down", "--until", "2h", "--actor", "u-7")
        assert said.returncode == 0, said.stdout
        assert "queue apart is paused until " in said.stdout
        assert "2 workers follow" in said.stdout
        by_alias = alone.run("pause", "task", "old.note", "--reason", "x", "--json")
        assert json.loads(by_alias.stdout) | {"since": None} == {
            "kind": "task", "name": Note.name, "reason": "x", "by": json.loads(by_alias.stdout)["by"], "since": None, "until": None,
            "follow": 2, "do_not_follow": [],
        }  # fmt: skip
        first, second = json.loads(alone.run("pause", "list", "--json").stdout)
        assert (first["kind"], first["name"], first["by"], second["kind"]) == ("queue", "apart", "u-7", "task")
        again = alone.run("resume", "queue", "apart", "--reason", "it is up", "--actor", "u-8")
        assert (again.returncode, "queue apart runs again" in again.stdout) == (0, True)
        not_paused = alone.run("resume", "queue", "apart")
        assert (not_paused.returncode, "queue apart is not paused" in not_paused.stdout) == (1, True)

        def actions() -> list[tuple[str, str, str, str | None]]:
            with app.database.session() as session:
                rows = audit.listing(session, 10)
                return [(row.actor, row.action, row.target, row.reason) for row in rows if row.target == "apart"]

        expected = [("u-8", "queue resume", "apart", "it is up"), ("u-7", "queue pause", "apart", "the bank is down")]
        wait_until(lambda: actions() == expected, 30, "the audit has both")


def test_nobody_is_told_to_start_a_worker_for_a_paused_queue(alone: Installation) -> None:
    """`check`, `job` and a redrive say that it is paused, by whom and why."""
    with alone.application() as app, alone.worker("-c", "1"):
        app.load_tasks()
        paused(app, "queue", "apart")
        sent = Apart.delay(folder=alone.folder, number=0)
        checked = alone.run("check")
        assert "no worker consumes" not in checked.stdout
        job = alone.run("job", sent.id)
        assert "its queue is paused by u-1 since" in job.stdout
        assert "no worker consumes" not in job.stdout
        now = json.loads(alone.run("now", "--json").stdout)
        assert [(one["kind"], one["name"], one["by"]) for one in now["pauses"]] == [("queue", "apart", "u-1")]
        assert not {"no consumer", "not consuming"} & {one["rule"] for one in now["findings"]}
        assert "a test" in alone.run("now").stdout
        with app.database.session() as session:
            row = DeadLetterRow(
                id="m", task=str(Apart.name), queue="apart", state="dead", arguments={}, headers={}, error="E", error_message="", traceback="",
                fingerprint="f", attempts=1, generation=0, fence=1, first_failed_at=utc_now(), last_failed_at=utc_now(), message=None, actor="u",
            )  # fmt: skip
            session.add(row)
            session.flush()
            found = doubts(app, session, Filter(), WorkerReports(app.store).releases)
        assert "the queue apart is paused: what is sent waits there" in found
        assert not any("no worker consumes" in one for one in found)


@contextmanager
def standing_still(worker: Worker) -> Iterator[None]:
    """Let a worker do nothing within the block."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        worker.process.send_signal(signal.SIGCONT)


def test_a_worker_that_does_not_follow_is_named(alone: Installation) -> None:
    """As one that stands still; the pause holds for all others."""
    with alone.application() as app, alone.workers(("-c", "1"), ("-c", "1")) as workers:
        reported(app, 2)
        with standing_still(workers[0]):
            said = alone.run("pause", "queue", "apart", "--reason", "x")
        assert said.returncode == 1
        assert "1 worker follows" in said.stdout
        assert "worker0@" in said.stdout
        assert "has not said that it follows" in said.stdout
