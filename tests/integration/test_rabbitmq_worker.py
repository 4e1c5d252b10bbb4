"""Real workers on RabbitMQ: one test for each behaviour that a broker has a part in."""

import json
import os
import re
import signal
import subprocess
import time
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest
from celery import chain, chord

from conventions import BrokerUnavailable, Priority
from conventions.app import ConventionsApp
from conventions.broker.rabbitmq_priorities import queues_of
from conventions.core.chunking import batched
from conventions.core.errors import ConfigurationError, PayloadError
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.resend import redrive
from conventions.execution.cancel import cancel
from conventions.records import executions
from conventions.storage.tables import DeadLetterRow
from conventions.transport.rabbitmq_declare_queues import ARGUMENTS
from tests.integration.fault_tasks import After, Number, Started, Sum, Works
from tests.integration.rabbitmq_tasks import (
    Deadly,
    Deaf,
    Fails,
    Holds,
    HoldsLong,
    Items,
    Kept,
    Limited,
    Note,
    Pauses,
    Steps,
)
from tests.integration.unready_tasks import Unready
from tests.rabbitmq_servers import Rabbit
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import patient, wait_until, wait_until_is
from tests.workers import Installation, Worker, letters, told, wait_for_letter

OTHER = """\
from conventions import create_app

app = create_app("tests", packages=["tests.support"], schedule=None)
"""

PLANNED = """\
from datetime import timedelta

from conventions import Schedule, create_app
from conventions.schedules.interval import every
from tests.integration.rabbitmq_tasks import Slot

app = create_app("tests", packages=["tests.integration.rabbitmq_tasks"], schedule="planned:SCHEDULE")
SCHEDULE = [Schedule("slots", every(timedelta(seconds=1)), Slot, {"number": 7})]
"""

pytestmark = [pytest.mark.processes]


TASKS = ["tests.integration.rabbitmq_tasks", "tests.integration.unready_tasks"]
FAULT_TASKS = ["tests.integration.fault_tasks"]


@pytest.fixture
def installation(
    request: pytest.FixtureRequest,
    rabbit: Rabbit,
    valkey_url: str,
    new_database: Callable[[Path], str],
    tmp_path: Path,
) -> Installation:
    """An application on a virtual host of its own."""
    made = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path)
    return unsigned(made) if request.node.get_closest_marker("unsigned") else made


def unsigned(installation: Installation) -> Installation:
    """The same without keys: another program sends to it."""
    installation.settings["message_keys"] = None
    return installation


def installed(
    rabbit: Rabbit, redis_url: str, database_url: str, folder: Path, tasks: Sequence[str] = TASKS
) -> Installation:
    """One whose claims are in this Redis."""
    url = rabbit.url_of(rabbit.add_host())
    return Installation(folder, tasks, broker_url=url, redis_url=redis_url, database_url=database_url)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The sending side."""
    with installation.application() as app:
        yield app


def numbers(folder: Path, kind: str = "note") -> list[int]:
    """What the jobs have written, in order."""
    path = folder / kind
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(app: ConventionsApp, message_id: str) -> list[str]:
    """How a message has ended, each time."""
    with app.database.session(read_only=True) as session:
        rows = executions.latest(session, 100)
        return [row.kind for row in rows if row.message_id == message_id]


def publish_foreign(
    rabbit: Rabbit,
    app: ConventionsApp,
    headers: dict[str, Any],
    body: bytes = b'[[], {"number": 9}, {}]',
    encoding: str = "utf-8",
) -> str:
    """Send a message as another program may have written it. Returns its id."""
    headers = {"id": str(uuid4()), "task": Note.name} | headers
    message = amqp.Message(
        body, application_headers=headers, content_type="application/json", content_encoding=encoding, delivery_mode=2
    )
    with rabbit.connection(app.connection_for_read().virtual_host) as connection:
        connection.channel().basic_publish(message, "", "immediate")
    return str(headers["id"])


@pytest.mark.everyday
def test_jobs_run_and_are_recorded(installation: Installation, app: ConventionsApp) -> None:
    """Sent one by one, together, and in a chain."""
    with installation.worker("--concurrency=2"):
        Note.delay(1)
        Note.delay(1)  # the same job
        Note.enqueue_many([{"number": number} for number in range(2, 20)])
        chain(Note.si(20), Steps.s(number=21)).apply_async()
        wait_until(lambda: len(numbers(installation.folder)) >= 21, 20, "all jobs")
        wait_until(lambda: app.port.waiting("immediate") == 0, 30, "no message is left")
    assert Counter(numbers(installation.folder)) == Counter(range(1, 22))


def test_the_most_urgent_first(installation: Installation, app: ConventionsApp) -> None:
    """Four priorities, of which a quorum queue knows two."""
    for number, priority in enumerate(reversed(Priority)):  # the least urgent is sent last
        Note.apply_async((number,), priority=priority)
    for number, priority in enumerate(Priority, 10):
        Note.apply_async((number,), priority=priority)
    assert app.port.waiting("immediate") == 8
    with installation.worker("--concurrency=1", "--prefetch-multiplier=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 8, 20, "all jobs")
    pairs = [
        {*pair} for pair in batched(numbers(installation.folder), 2)
    ]  # what goes back loses its place among equals
    assert pairs == [{0, 13}, {1, 12}, {2, 11}, {3, 10}]


def test_the_most_urgent_first_while_jobs_end(installation: Installation, app: ConventionsApp) -> None:
    """Also between two urgent ones: the next is here when one ends."""
    Pauses.enqueue_many([{"number": number} for number in range(100)], priority=Priority.LOW)
    Pauses.enqueue_many([{"number": number} for number in range(1000, 1100)], priority=Priority.URGENT)
    with installation.worker("--concurrency=2", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 200, 30, "all jobs")
    urgent = [number >= 1000 for number in numbers(installation.folder)]
    assert sum(not one for one in urgent[:100]) <= 40, (
        "hardly more than what it had taken before the first urgent one came; by turns it would be 50"
    )


def test_a_broker_that_blocks_senders_stops_no_worker(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """As when its memory is full: the events and heartbeats of a worker are blocked, and its jobs end."""
    for number in range(30):
        Note.delay(number)
    rabbit.control("set_vm_memory_high_watermark", "0.0001")
    try:
        with installation.worker("--concurrency=1", "-Q", "immediate", "-E"):
            wait_until(lambda: len(numbers(installation.folder)) == 30, 20, "all jobs")
    finally:
        rabbit.control("set_vm_memory_high_watermark", "0.6")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_stops_acknowledges_what_ends_meanwhile(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit, pool: str
) -> None:
    """Its jobs end after its loop has, also later than RabbitMQ waits for a heartbeat: their messages do not come again."""
    installation.settings |= {"lease": 6, "shutdown_grace": 60}  # a heartbeat every 3 s
    host, count = str(app.settings.broker_url).rpartition("/")[2], 4
    sent = [Holds.delay(number).id for number in range(count)]
    with installation.worker("--concurrency=4", f"--pool={pool}", "-Q", "immediate") as worker:
        wait_until(lambda: len(numbers(installation.folder, "begun")) == count, 30, "all jobs run")
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "immediate" not in rabbit.consumed(host), 30, "its loop is over")
        over = time.monotonic()
        if pool:  # threads send no heartbeats
            wait_until(lambda: time.monotonic() > over + 9, 30, "three heartbeats are over")
        (installation.folder / "go").touch()
        assert worker.process.wait(patient(40)) == 0, worker.output
    with rabbit.connection(host) as connection:
        left = connection.channel().queue_declare("immediate", passive=True).message_count
    assert left == 0
    wait_until(lambda: [kinds(app, one) for one in sent] == [["succeeded"]] * count, 20, "each has one end")


def test_a_connection_that_is_lost_while_a_worker_stops(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """It ends in order nevertheless; the messages come again, and find their outcome."""
    host, count = str(app.settings.broker_url).rpartition("/")[2], 4
    sent = [Holds.delay(number).id for number in range(count)]
    with installation.worker("--concurrency=4", "-Q", "immediate") as worker:
        wait_until(lambda: len(numbers(installation.folder, "begun")) == count, 30, "all jobs run")
        worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "immediate" not in rabbit.consumed(host), 30, "its loop is over")
        rabbit.break_connections()
        (installation.folder / "go").touch()
        assert worker.process.wait(patient(40)) == 0, worker.output
        assert "Couldn't ack" in worker.output
    assert rabbit.queues(host)["immediate"] == count
    with installation.worker("-Q", "immediate"):
        wait_until(lambda: rabbit.queues(host)["immediate"] == 0, 30, "all messages are gone")
        wait_until(lambda: [kinds(app, one) for one in sent] == [["succeeded"]] * count, 20, "each has one end")
    assert sorted(numbers(installation.folder, "begun")) == [*range(count)]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_stands_still(installation: Installation, app: ConventionsApp, rabbit: Rabbit, pool: str) -> None:
    """RabbitMQ misses its heartbeats, so its job runs elsewhere; when it goes on, it finds that the job is no longer its."""
    installation.settings["lease"] = 6  # a heartbeat every 3 s
    options, sent = ("--concurrency=1", f"--pool={pool}", "-Q", "immediate"), Holds.delay(1).id
    begun = partial(numbers, installation.folder, "begun")
    with installation.worker(*options) as still, installation.worker(*options, "--hostname=b@%h") as other:
        wait_until(lambda: begun() == [1], 30, "it runs")
        first, second = (still, other) if f"[{sent}]" in still.output else (other, still)
        assert first is still or f"[{sent}]" in other.output
        os.killpg(first.process.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: begun() == [1, 1], 30, f"it runs elsewhere\n{second.output}")
            (installation.folder / "go").touch()
            wait_until_is(lambda: sorted(kinds(app, sent)), ["interrupted", "succeeded"], 20, "it has ended there")
        finally:
            os.killpg(first.process.pid, signal.SIGCONT)
        Note.delay(2)
        wait_until(lambda: rabbit.queues(app.connection_for_read().virtual_host)["immediate"] == 0, 30, "none is left")
    assert begun() == [1, 1]
    assert kinds(app, sent).count("succeeded") == 1


def test_a_solo_job_that_is_longer_than_heartbeats(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """The loop sends none while it runs, so RabbitMQ takes its message back; it runs once, since its claim is kept."""
    installation.settings["lease"] = 6  # a heartbeat every 3 s
    host, sent = app.connection_for_read().virtual_host, Holds.delay(1).id
    with installation.worker("--pool=solo", "-Q", "immediate") as worker:
        wait_until(lambda: numbers(installation.folder, "begun") == [1], 30, "it runs")
        wait_until(lambda: "immediate" not in rabbit.consumed(host), 40, "RabbitMQ has closed its connection")
        with installation.worker("--pool=solo", "-Q", "immediate", "--hostname=b@%h"):
            Note.delay(2)
            wait_until(lambda: numbers(installation.folder) == [2], 30, "the other one runs")
            (installation.folder / "go").touch()
            wait_until(lambda: kinds(app, sent) == ["succeeded"], 30, "it has ended")
            Note.delay(3)
            wait_until(lambda: rabbit.queues(host)["immediate"] == 0, 30, f"none is left\n{worker.output}")
    assert numbers(installation.folder, "begun") == [1]
    assert sorted(numbers(installation.folder)) == [1, 2, 3]


def test_a_pool_that_grows(installation: Installation, app: ConventionsApp) -> None:
    """It takes more messages at a time than its consumers were told."""
    for number in range(8):
        Holds.delay(number)
    with installation.worker("--concurrency=1", "--prefetch-multiplier=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder, "begun")) == 1, 30, "one job runs")
        app.control.pool_grow(3)
        wait_until(lambda: len(numbers(installation.folder, "begun")) == 4, 20, "four run")


@pytest.mark.parametrize("name", ["reports:low", "x" * 249])
def test_names_of_queues_that_rabbitmq_cannot_have(app: ConventionsApp, name: str) -> None:
    """One means a priority, the other is too long."""
    with pytest.raises(ConfigurationError, match=r"names a priority|bytes"):
        Note.apply_async((1,), queue=name)


def test_a_countdown(installation: Installation, app: ConventionsApp) -> None:
    """It waits in the Redis of the claims, and a worker forwards it, with its priority."""
    sent = time.monotonic()
    Note.apply_async((1,), countdown=10)
    Note.apply_async((2,), countdown=10, priority=Priority.URGENT)
    Note.apply_async((3,), countdown=3600)
    Note.delay(4)
    assert (app.port.waiting("immediate"), app.port.waiting("immediate", delayed=True)) == (1, 4)
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 3, 40, "all but the last")
        assert time.monotonic() - sent >= 10
    assert numbers(installation.folder)[0] == 4
    assert sorted(numbers(installation.folder)) == [1, 2, 4]
    assert installation.run("purge", "-f").returncode == 0
    assert app.port.waiting("immediate", delayed=True) == 0


def test_a_retry_and_a_dead_letter(installation: Installation, app: ConventionsApp) -> None:
    """Attempts are counted across the copies of a message."""
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        Fails.delay(1, times=2)
        dead = Fails.delay(2, times=9).id
        letter = wait_for_letter(app, dead)
        wait_until(lambda: numbers(installation.folder) == [1], 20, "the third attempt")
    assert Counter(numbers(installation.folder, "tries")) == Counter({1: 3, 2: 3})
    assert letter.attempts == 3
    assert letter.queue == "immediate"


def test_a_letter_that_is_sent_again(installation: Installation, app: ConventionsApp) -> None:
    """With new attempts, under its id."""
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        sent = Fails.delay(1, times=3).id
        wait_for_letter(app, sent)
        assert redrive(app, sent, "ann")
        wait_until(lambda: len(numbers(installation.folder, "tries")) == 6, 30, "three more attempts")
        wait_until(lambda: [one.generation for one in letters(app)] == [1], 20, "it is a letter again")


def test_what_is_cancelled_does_not_run(installation: Installation, app: ConventionsApp) -> None:
    """It ends when it is its turn, and the others run."""
    ids = [Note.delay(number).id for number in range(3)]
    assert cancel(app, ids[1]) == "queued"
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 2, 20, "the others")
        wait_until(lambda: kinds(app, ids[1]) == ["cancelled"], 20, "its end is recorded")
    assert numbers(installation.folder) == [0, 2]


def test_a_job_that_kills_its_process(installation: Installation, app: ConventionsApp) -> None:
    """Its start limit ends it, with a letter; RabbitMQ's own limit would drop the message."""
    sent = Deadly.delay(7)
    with installation.worker("-Q", "immediate", "-c", "1"):
        letter = wait_for_letter(app, sent.id)
        Note.delay(1)
        wait_until(lambda: numbers(installation.folder) == [1], 20, "others run")
    assert (letter.error, numbers(installation.folder, "begun")) == ("TooManyStarts", [7, 7, 7])
    assert kinds(app, sent.id).count("interrupted") == 3


def test_a_rate_limit(installation: Installation, app: ConventionsApp, rabbit: Rabbit) -> None:
    """It holds back its own task alone; what waits in a worker that stops goes to another one, and runs at once when the limit is lifted."""
    host, count = str(app.settings.broker_url).rpartition("/")[2], 4
    for number in range(count):
        Limited.delay(number)
    for number in range(20):
        Note.delay(number)
    with installation.worker("-Q", "immediate", "-c", "2") as worker:
        wait_until(lambda: len(numbers(installation.folder)) == 20, 20, "the others have run")
        wait_until(lambda: len(numbers(installation.folder, "limited")) == 1, 20, "the first one has run")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(patient(20)) == 0
        wait_until(lambda: rabbit.queues(host)["immediate"] == count - 1, 10, "the rest is back")
    with installation.worker("-Q", "immediate", "-c", "2"):
        wait_until(lambda: len(numbers(installation.folder, "limited")) == 2, 20, "one more has run")
        assert "ok" in str(told(app.control.rate_limit, Limited.name, 0))
        wait_until(lambda: len(numbers(installation.folder, "limited")) == count, 20, "all have run")
        wait_until(lambda: rabbit.queues(host)["immediate"] == 0, 20, "nothing is left")
    assert sorted(numbers(installation.folder, "limited")) == [*range(count)], "each once"


def test_a_chord(installation: Installation, app: ConventionsApp) -> None:
    """Its parts run side by side, and the step after them once."""
    with installation.worker("--concurrency=2", "-Q", "immediate"):
        chord([Kept.si(number) for number in range(4)], Steps.s(number=9)).apply_async()
        wait_until(lambda: 9 in numbers(installation.folder), 30, "the step after them")
    assert sorted(numbers(installation.folder)) == [0, 1, 2, 3, 9]


def test_a_slot_of_a_schedule(installation: Installation, app: ConventionsApp) -> None:
    """Beat sends it, and a worker runs it once."""
    (installation.folder / "planned.py").write_text(PLANNED)
    command, log = installation.celery("beat", app="planned"), installation.folder / "beat.log"
    with installation.worker("--concurrency=1"), log.open("w") as output:
        beat = subprocess.Popen(
            command, cwd=installation.folder, env=installation.environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_until(lambda: len(numbers(installation.folder)) >= 2, 30, "two slots")
        finally:
            beat.kill()
            beat.wait()
    assert set(numbers(installation.folder)) == {7}


def test_celery_check(installation: Installation, app: ConventionsApp) -> None:
    """It finds nothing wrong with a worker, and a queue without one."""
    with installation.worker("--concurrency=1"):
        assert installation.run("check").returncode == 0
    found = installation.run("check")
    assert found.returncode == 0, found.stdout
    assert "no worker consumes immediate" in found.stdout


def test_a_task_that_a_worker_does_not_know(installation: Installation, app: ConventionsApp) -> None:
    """Its message waits at the broker, and a worker that knows it runs it once."""
    (installation.folder / "other.py").write_text(OTHER)
    with installation.worker("--concurrency=1", "-Q", "immediate", app="other") as worker:
        sent = Note.delay(1)
        worker.wait_for(f"unknown: id={sent.id}")
        worker.wait_for("the 2. time")
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        # The first worker may have been killed while it forwarded the message, which then comes within 1.5 x lease.
        wait_until(lambda: numbers(installation.folder) == [1], 60, "the job runs")


def test_many_at_once(installation: Installation, app: ConventionsApp) -> None:
    """Each is there once, and with its priority and delay."""
    assert len(Note.enqueue_many([{"number": number} for number in range(3000)], priority=Priority.LOW)) == 3000
    assert app.port.waiting("immediate") == 3000
    Note.enqueue_many([{"number": number} for number in range(5000, 5010)], countdown=1)
    assert app.port.waiting("immediate", delayed=True) == 3010
    with installation.worker("--concurrency=2", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) >= 3010, 60, "all jobs")
        wait_until(lambda: app.port.waiting("immediate") == 0, 30, "no message is left")
    assert Counter(numbers(installation.folder)) == Counter([*range(3000), *range(5000, 5010)])


def test_a_batch(installation: Installation, app: ConventionsApp) -> None:
    """Cut, run and finished."""
    with installation.worker("--concurrency=2") as worker:
        Items.delay(count=10)
        wait_until(lambda: numbers(installation.folder, "finish") == [10], 30, "its end")
        wait_until(lambda: app.port.waiting("long") == 0, 30, "no copy of a message is left")
        assert worker.stop() == 0
    with installation.worker():  # the last message comes again where its worker ended before it acknowledged that
        wait_until(lambda: app.port.waiting("long") == 0, 30, "nothing is left")
    assert Counter(numbers(installation.folder)) == Counter(range(10))
    assert numbers(installation.folder, "finish") == [10]


def test_what_a_busy_worker_cannot_take_goes_to_another(installation: Installation, app: ConventionsApp) -> None:
    """A job of hours keeps its worker, and no message waits there for it."""
    with installation.worker("--concurrency=1"):
        HoldsLong.delay(1)
        wait_until(lambda: numbers(installation.folder, "begun") == [1], 30, "the worker is busy")
        for number, priority in enumerate(Priority, 2):
            Holds.apply_async((number,), priority=priority)
        wait_until(lambda: app.port.waiting("immediate") == 4, 30, "all of them are back")
        with installation.worker("--concurrency=4", "-Q", "immediate", "--hostname=other@%h"):
            wait_until(lambda: len(numbers(installation.folder, "begun")) == 5, 30, "another worker has all")
            (installation.folder / "go").touch()
            wait_until(lambda: len(numbers(installation.folder)) == 5, 30, "all have ended")
        Note.delay(6)
        wait_until(lambda: 6 in numbers(installation.folder), 30, "the first worker reads again")


FAULTS: dict[str, dict[str, Any]] = {
    "three time limits": {"timelimit": [1, 1, 1]},
    "one time limit": {"timelimit": [1]},
    "a time limit that is a decimal": {"timelimit": [Decimal(1), None]},
    "an index below nothing": {"group_index": -1},
    "an eta that no zone can say": {"eta": "9999-12-31T23:59:59-14:00"},
}


@pytest.mark.unsigned
def test_headers_of_another_program(installation: Installation, app: ConventionsApp, rabbit: Rabbit) -> None:
    """They are looked at when the message comes, also while no process is free. Each is one letter, and the worker goes on."""
    with installation.worker("--concurrency=1", "-Q", "immediate", "--prefetch-multiplier=16") as worker:
        Holds.delay(1)
        wait_until(lambda: numbers(installation.folder, "begun") == [1], 30, "the pool is busy")
        sent = {publish_foreign(rabbit, app, headers): name for name, headers in FAULTS.items()}
        for message_id, name in sent.items():
            assert next(iter(FAULTS[name])) in wait_for_letter(app, message_id).error_message
        (installation.folder / "go").touch()
        Note.delay(2)
        wait_until(lambda: numbers(installation.folder) == [1, 2], 20, "the worker goes on")
        wait_until(lambda: app.port.waiting("immediate") == 0, 30, "no message is left")
        assert worker.process.poll() is None
    assert sorted(one.id for one in letters(app)) == sorted(sent)


@pytest.mark.unsigned
def test_an_argument_with_the_name_of_a_methods_first_one(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """It is one too many, as any other: a letter, and not a message that is gone."""
    with installation.worker("--concurrency=1"):
        message_id = publish_foreign(rabbit, app, {}, b'[[], {"number": 9, "self": 1}, {}]')
        assert wait_for_letter(app, message_id).error == "PayloadError"


def test_a_message_that_cannot_be_given_to_the_pool(installation: Installation, app: ConventionsApp) -> None:
    """It waits until a process is free, in whose turn its error would end the worker. It is a letter, and the process stays free."""
    with installation.worker("--concurrency=1", "-Q", "immediate", "--prefetch-multiplier=16") as worker:
        Holds.delay(1)
        wait_until(lambda: numbers(installation.folder, "begun") == [1], 30, "the pool is busy")
        unready = [Unready.delay(number).id for number in range(2)]
        for message_id in unready:
            worker.wait_for(f"{message_id}] received")
        Note.delay(2)
        (installation.folder / "go").touch()
        for message_id in unready:
            assert "it cannot be given to the pool" in wait_for_letter(app, message_id).error_message
        wait_until(lambda: numbers(installation.folder) == [1, 2], 20, "the process is free")
        assert worker.process.poll() is None


def stored(letter: DeadLetterRow) -> Any:
    """The message that the letter keeps."""
    return dead_letters.message(letter)


def memory_of(worker: Worker) -> int:
    """The most that its main process has had so far, bytes."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


ZEROS = zlib.compress(b"[" + b" " * 200_000_000 + b"]")  # 200 KB
PACKED: dict[str, tuple[dict[str, Any], str]] = {
    "compression": ({"compression": "application/x-gzip"}, "utf-8"),
    "compression that is unknown": ({"compression": "nonsense"}, "utf-8"),
    "content-encoding": ({}, "zlib"),
    "a task that is unknown": ({"compression": "application/x-gzip", "task": "nowhere.Nothing"}, "utf-8"),
}


@pytest.mark.unsigned
def test_what_is_packed_is_not_unpacked(installation: Installation, app: ConventionsApp, rabbit: Rabbit) -> None:
    """Its letter has it as it came, and the worker has not grown."""
    with installation.worker("--concurrency=1", "-Q", "immediate") as worker:
        Note.delay(1)
        wait_until(lambda: numbers(installation.folder) == [1], 30, "a good one has run")
        before = memory_of(worker)
        for headers, encoding in PACKED.values():
            sent = publish_foreign(rabbit, app, headers, ZEROS, encoding)
            letter = wait_for_letter(app, sent)
            assert (letter.error, letter.queue) == ("UndeliverableMessage", "immediate")
            assert "compressed" in letter.error_message or "content-encoding" in letter.error_message
            assert b64decode(stored(letter)["body"]) == ZEROS
        assert memory_of(worker) < before + 60 * 1024 * 1024
        Note.delay(2)
        wait_until(lambda: numbers(installation.folder) == [1, 2], 20, "the worker goes on")
        wait_until_none_is_held(rabbit, app)


@pytest.mark.unsigned
def test_a_message_that_is_too_large_is_not_read(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """Its letter has its headers and how it begins, and cannot be sent again."""
    limit = 2 * 1024 * 1024 + 65536
    body = b'[["' + b"x" * limit + b'"], {}, {}]'
    with installation.worker("--concurrency=1", "-Q", "immediate", CONVENTIONS_MESSAGE_LIMIT=str(limit)) as worker:
        sent = publish_foreign(rabbit, app, {"x_actor": "u-42"}, body)
        letter = wait_for_letter(app, sent)
        Note.delay(2)
        wait_until(lambda: numbers(installation.folder) == [2], 20, "the worker goes on")
        wait_until_none_is_held(rabbit, app)
        assert worker.process.poll() is None
    assert (letter.task, letter.actor, letter.queue) == (Note.name, "u-42", "immediate")
    assert f"{len(body):,} bytes, the limit is {limit:,}" in letter.error_message
    kept = stored(letter)
    assert (b64decode(kept["base64"]), kept["bytes"]) == (body[: 64 * 1024], len(body))
    with pytest.raises(PayloadError, match="was not kept in full"):
        redrive(app, sent, "ann")


def test_our_own_senders_are_refused_what_no_worker_reads(app: ConventionsApp) -> None:
    """The arguments are small enough, and not those of all that follows them."""
    app.settings.message_limit = 2000
    step = Note.si(1)
    with pytest.raises(PayloadError, match="with all that follows it, the limit is 2,000"):
        chain(step, *(Note.si(number) for number in range(20))).apply_async()
    with pytest.raises(PayloadError, match="with all that follows it"):
        Note.enqueue_many([{"number": 10**1990}])
    assert app.port.waiting("immediate") == 0


def test_a_message_of_a_later_form_stays_in_its_queue(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """Nobody reads it before a worker of that release does, also where it is packed."""
    with installation.worker("--concurrency=1", "-Q", "immediate") as worker:
        for headers in ({}, {"compression": "application/x-gzip"}):
            publish_foreign(rabbit, app, {"x_form": 9} | headers)
        wait_until(lambda: worker.output.count("left in its queue: a message cannot be read") == 2, 20, "both are left")
        Note.delay(2)
        wait_until(lambda: numbers(installation.folder) == [2], 20, "the worker goes on")
        assert worker.stop() == 0
    wait_until(lambda: app.port.waiting("immediate") == 2, 20, "both are in their queue")
    assert letters(app) == []


@contextmanager
def stopped_store(folder: Path, rabbit: Rabbit, database_url: str) -> Iterator[tuple[Installation, Any]]:
    """An application whose claims are in a Redis of its own, and the process of that, which a test may stop."""
    port = free_port()
    with process(folder / "server", [f"port {port}"]) as server:
        wait_for_server(folder / "server", port)
        yield installed(rabbit, f"redis://127.0.0.1:{port}/0", database_url, folder), server


def wait_until_none_is_held(rabbit: Rabbit, app: ConventionsApp) -> None:
    """Wait until no worker has a message, and none waits."""
    host = app.connection_for_read().virtual_host
    wait_until(lambda: not any(rabbit.queues(host).values()), 40, "no message is left")


def test_a_hard_limit_while_the_store_does_not_answer(
    rabbit: Rabbit, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The message is held until the death is recorded, and no longer: its job begins once."""
    with (
        stopped_store(tmp_path, rabbit, new_database(tmp_path)) as (installation, server),
        installation.application() as app,
        installation.worker("--concurrency=1", "-Q", "immediate") as worker,
    ):
        sent = Deaf.delay(1).id
        wait_until(lambda: numbers(tmp_path, "begun") == [1], 30, "it runs")
        server.send_signal(signal.SIGSTOP)
        worker.wait_for("dead letter not recorded yet")
        server.send_signal(signal.SIGCONT)
        assert wait_for_letter(app, sent).error == "TimeLimitExceeded"
        wait_until_none_is_held(rabbit, app)
        Note.delay(2)
        wait_until(lambda: numbers(tmp_path) == [2], 20, "the worker goes on")
        assert numbers(tmp_path, "begun") == [1]
        wait_until(lambda: kinds(app, sent) == ["dead"], 20, "its death is recorded, and nothing else")


def test_expired_messages_while_the_store_does_not_answer(
    rabbit: Rabbit, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """They come again until their end is recorded; each would keep a place in the worker."""
    with (
        stopped_store(tmp_path, rabbit, new_database(tmp_path)) as (installation, server),
        unsigned(installation).application() as app,
        installation.worker("--concurrency=1", "--prefetch-multiplier=1", "-Q", "immediate") as worker,
    ):
        server.send_signal(signal.SIGSTOP)
        late = publish_foreign(rabbit, app, {"expires": "2001-01-01T00:00:00+00:00"})
        worker.wait_for("not ended yet", timeout=40)
        server.send_signal(signal.SIGCONT)
        wait_until(lambda: kinds(app, late) == ["expired"], 40, "its end is recorded")
        Note.delay(2)
        wait_until(lambda: numbers(tmp_path) == [2], 20, "the worker goes on")
        wait_until_none_is_held(rabbit, app)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_result_that_cannot_be_stored(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, pool: str
) -> None:
    """Nobody has recorded an end, so the message comes again."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path, FAULT_TASKS)
    for file in ("go", "not stored in time"):
        (tmp_path / file).touch()
    with installation.application(), installation.worker("-P", pool, "--concurrency=1", "-Q", "immediate"):
        assert Number.delay(tmp_path, 3).get(timeout=patient(30)) == 3


def test_a_start_that_cannot_be_stored(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The job runs all the same, once, and nobody is told that it has failed."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path, FAULT_TASKS)
    (tmp_path / "start is not stored").touch()
    with installation.application() as app, installation.worker("--concurrency=1", "-Q", "immediate") as worker:
        after = After.s(folder=tmp_path)
        sent = Started.apply_async((tmp_path,), link=after, link_error=after).id
        notes = tmp_path / "notes"
        wait_until(lambda: notes.exists() and "after a success" in notes.read_text(), 20, "the callback has run")
        wait_until_none_is_held(rabbit, app)
        assert notes.read_text().splitlines() == ["ran", "after a success"]
        wait_until(lambda: kinds(app, sent) == ["succeeded"], 20, "its success is recorded")
        assert "there is no room for it" in worker.output


def test_a_revoked_job_that_fails_of_the_signal(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """It would be tried again. Its next attempt is not sent."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path)
    with installation.application() as app, installation.worker("--concurrency=1", "-Q", "immediate") as worker:
        sent = Holds.delay(1).id
        wait_until(lambda: numbers(tmp_path, "begun") == [1], 30, "it runs")
        app.control.revoke(sent, terminate=True, signal="SIGUSR1")
        worker.wait_for(f"superseded: id={sent}")
        wait_until(lambda: kinds(app, sent) == ["revoked"], 20, "it is revoked, and nothing else")
        wait_until_none_is_held(rabbit, app)
        assert numbers(tmp_path, "begun") == [1]
        assert kinds(app, sent) == ["revoked"]


UNSENDABLE: dict[str, dict[str, Any]] = {
    "a header that AMQP does not have": {"headers": {"n": 2**70}},
    "a name of one of the four": {"queue": "reports:low"},
    "an id that is too long": {"task_id": "é" * 200},
    "a property that RabbitMQ refuses": {"user_id": "somebody"},
}


def test_steps_that_can_never_be_sent_are_dead_letters(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The jobs before them have ended, and their messages are gone: they would come again without end. Other steps are sent."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path, FAULT_TASKS)
    with installation.application() as app, installation.worker("--concurrency=1", "-Q", "immediate"):
        sent = []
        for number, options in enumerate(UNSENDABLE.values()):
            (tmp_path / str(number)).mkdir()
            steps = [After.s(folder=tmp_path / str(number)).set(**options), Sum.si([number], folder=tmp_path)]
            sent.append(Works.apply_async((tmp_path / str(number),), link=steps).id)
        wait_until(lambda: len(letters(app)) == len(sent), 20, "their letters")
        assert {(letter.task, letter.error) for letter in letters(app)} == {
            (After.name, "PayloadError"),
            (After.name, "ConfigurationError"),  # the name of a queue
        }
        notes = tmp_path / "notes"
        wait_until(lambda: notes.exists() and notes.read_text().count("sum") == len(sent), 20, "the others have run")
        wait_until_none_is_held(rabbit, app)
        assert app.port.waiting("immediate") == 0
        assert [kinds(app, one) for one in sent] == [["succeeded"]] * len(sent)


def test_a_death_before_the_body_of_a_chord_is_sent(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The last part comes again at once, and the dead process holds the right to send the body: the part waits until it may."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path, FAULT_TASKS)
    for file in ("armed", "go"):
        (tmp_path / file).touch()
    with installation.application() as app, installation.worker("--concurrency=1", "-Q", "immediate"):
        chord([Number.s(tmp_path, 3), Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
        notes = tmp_path / "notes"
        wait_until(lambda: notes.exists() and "sum 7" in notes.read_text(), 60, "the body has run")
        wait_until_none_is_held(rabbit, app)
        assert sorted(notes.read_text().splitlines()) == ["began 3", "began 4", "sum 7"]
        assert (app.port.waiting("immediate"), letters(app, state=None)) == (0, [])


def test_what_follows_is_sent_after_a_death_and_too_late_to_begin(
    rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """The process dies when the job has ended well and its callback is not sent; then the message has expired."""
    installation = installed(rabbit, valkey_url, new_database(tmp_path), tmp_path, FAULT_TASKS)
    (tmp_path / "armed").touch()
    with installation.application() as app, installation.worker("--concurrency=1", "-Q", "immediate"):
        sent = Works.apply_async((tmp_path, 6), expires=5, link=After.s(folder=tmp_path)).id
        notes = tmp_path / "notes"
        wait_until(lambda: notes.exists() and "after a success" in notes.read_text(), 60, "the callback has run")
        wait_until(lambda: kinds(app, sent) == ["succeeded"], 20, "it is recorded once")


def test_a_queue_that_was_deleted_is_made_again(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """RabbitMQ would drop the message, and say that it has it."""
    Note.delay(1)
    host = app.connection_for_read().virtual_host
    rabbit.delete(host, *queues_of("immediate"))
    Note.delay(2)
    assert app.port.waiting("immediate") == 1


def test_many_without_permission(installation: Installation, app: ConventionsApp, rabbit: Rabbit) -> None:
    """The error names all of them as not sent, also those that come after the first."""
    host = app.connection_for_read().virtual_host
    rabbit.allow(host, "nothing")
    with pytest.raises(BrokerUnavailable, match="not sent") as error:
        Note.enqueue_many([{"number": number} for number in range(5)])
    assert (len(error.value.ids), error.value.maybe_sent) == (5, False)


def test_a_queue_of_another_program_is_refused(app: ConventionsApp, rabbit: Rabbit) -> None:
    """Its messages would be dropped after twenty deliveries."""
    rabbit.declare(app.connection_for_read().virtual_host, "immediate")
    with pytest.raises(Exception, match="RabbitMQ has a queue 'immediate' that is not one of ours"):
        Note.delay(1)


def test_the_arguments_of_a_queue() -> None:
    """They are kept as they are: a queue cannot be declared with others later."""
    assert json.loads(json.dumps(dict(ARGUMENTS))) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": -1,
        "x-consumer-timeout": 31_536_000_000,
    }
