"""Real workers on RabbitMQ: one test for each behaviour that a broker has a part in."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from celery import chain

from conventions import Priority
from conventions.app import ConventionsApp
from conventions.broker.rabbitmq_queues import ARGUMENTS, queues_of
from conventions.core.errors import ConfigurationError
from tests.integration.rabbitmq_tasks import Fails, Holds, HoldsLong, Items, Note, Steps
from tests.rabbitmq_servers import Rabbit, running_rabbitmq
from tests.support import wait_until
from tests.workers import Installation, wait_for_letter

OTHER = """\
from conventions import create_app

app = create_app("tests", packages=["tests.support"], schedule=None)
"""

pytestmark = [pytest.mark.processes]


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    """A server for all tests here; each has queues of its own."""
    with running_rabbitmq() as server:
        yield server


@pytest.fixture
def installation(rabbit: Rabbit, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An application on a virtual host of its own."""
    host = f"t{uuid4().hex[:8]}"
    rabbit.add_host(host)
    return Installation(
        tmp_path,
        ["tests.integration.rabbitmq_tasks"],
        broker_url=rabbit.url_of(host),
        redis_url=valkey_url,
        database_url=new_database(tmp_path),
    )


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The sending side."""
    with installation.application() as app:
        yield app


def numbers(folder: Path, kind: str = "note") -> list[int]:
    """What the jobs have written, in order."""
    path = folder / kind
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.everyday
def test_jobs_run_and_are_recorded(installation: Installation, app: ConventionsApp) -> None:
    """Sent one by one, together, and in a chain."""
    with installation.worker("--concurrency=2"):
        Note.delay(1)
        Note.delay(1)  # the same job
        Note.enqueue_many([{"number": number} for number in range(2, 20)])
        chain(Note.si(20), Steps.s(number=21)).apply_async()
        wait_until(lambda: len(numbers(installation.folder)) >= 21, 20, "all jobs")
        wait_until(lambda: app.port.waiting("immediate") == 0, 10, "no message is left")
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
    assert numbers(installation.folder) == [0, 13, 1, 12, 2, 11, 3, 10]


def test_the_most_urgent_first_while_jobs_end(installation: Installation, app: ConventionsApp) -> None:
    """Also between two urgent ones: the next is here when one ends."""
    Note.enqueue_many([{"number": number} for number in range(100)], priority=Priority.LOW)
    Note.enqueue_many([{"number": number} for number in range(1000, 1100)], priority=Priority.URGENT)
    with installation.worker("--concurrency=2", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 200, 30, "all jobs")
    urgent = [number >= 1000 for number in numbers(installation.folder)]
    assert sum(not one for one in urgent[:100]) <= 16, "no more than what it had taken before the first urgent one came"


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


def test_a_pool_that_grows(installation: Installation, app: ConventionsApp) -> None:
    """It takes more messages at a time than its consumers were told."""
    for number in range(8):
        Holds.delay(number)
    with installation.worker("--concurrency=1", "--prefetch-multiplier=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder, "begun")) == 1, 10, "one job runs")
        app.control.pool_grow(3)
        wait_until(lambda: len(numbers(installation.folder, "begun")) == 4, 20, "four run")


@pytest.mark.parametrize("name", ["reports:low", "x" * 249])
def test_names_of_queues_that_rabbitmq_cannot_have(app: ConventionsApp, name: str) -> None:
    """One means a priority, the other is too long."""
    with pytest.raises(ConfigurationError, match=r"names a priority|bytes"):
        Note.apply_async((1,), queue=name)


def test_a_countdown(installation: Installation, app: ConventionsApp) -> None:
    """It waits in the Redis of the claims, and a worker forwards it, with its priority."""
    Note.apply_async((1,), countdown=2)
    Note.apply_async((2,), countdown=2, priority=Priority.URGENT)
    Note.apply_async((3,), countdown=3600)
    Note.delay(4)
    assert (app.port.waiting("immediate"), app.port.waiting("immediate", delayed=True)) == (1, 4)
    sent = time.monotonic()
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) == 3, 20, "all but the last")
        assert time.monotonic() - sent >= 2
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


def test_a_task_that_a_worker_does_not_know(installation: Installation, app: ConventionsApp) -> None:
    """Its message waits at the broker, and a worker that knows it runs it once."""
    (installation.folder / "other.py").write_text(OTHER)
    with installation.worker("--concurrency=1", "-Q", "immediate", app="other") as worker:
        sent = Note.delay(1)
        worker.wait_for(f"unknown: id={sent.id}")
        worker.wait_for("the 2. time")
    with installation.worker("--concurrency=1", "-Q", "immediate"):
        wait_until(lambda: numbers(installation.folder) == [1], 20, "the job runs")


def test_many_at_once(installation: Installation, app: ConventionsApp) -> None:
    """Each is there once, and with its priority and delay."""
    assert len(Note.enqueue_many([{"number": number} for number in range(3000)], priority=Priority.LOW)) == 3000
    assert app.port.waiting("immediate") == 3000
    Note.enqueue_many([{"number": number} for number in range(5000, 5010)], countdown=1)
    assert app.port.waiting("immediate", delayed=True) == 3010
    with installation.worker("--concurrency=2", "-Q", "immediate"):
        wait_until(lambda: len(numbers(installation.folder)) >= 3010, 60, "all jobs")
        wait_until(lambda: app.port.waiting("immediate") == 0, 10, "no message is left")
    assert Counter(numbers(installation.folder)) == Counter([*range(3000), *range(5000, 5010)])


def test_a_batch(installation: Installation, app: ConventionsApp) -> None:
    """Cut, run and finished."""
    with installation.worker("--concurrency=2") as worker:
        Items.delay(count=10)
        wait_until(lambda: numbers(installation.folder, "finish") == [10], 30, "its end")
        wait_until(lambda: app.port.waiting("long") == 0, 10, "no copy of a message is left")
        assert worker.stop() == 0
    assert Counter(numbers(installation.folder)) == Counter(range(10))
    assert numbers(installation.folder, "finish") == [10]
    assert app.port.waiting("long") == 0


def test_what_a_busy_worker_cannot_take_goes_to_another(installation: Installation, app: ConventionsApp) -> None:
    """A job of hours keeps its worker, and no message waits there for it."""
    with installation.worker("--concurrency=1"):
        HoldsLong.delay(1)
        wait_until(lambda: numbers(installation.folder, "begun") == [1], 10, "the worker is busy")
        for number, priority in enumerate(Priority, 2):
            Holds.apply_async((number,), priority=priority)
        wait_until(lambda: app.port.waiting("immediate") == 4, 10, "all of them are back")
        with installation.worker("--concurrency=4", "-Q", "immediate", "--hostname=other@%h"):
            wait_until(lambda: len(numbers(installation.folder, "begun")) == 5, 10, "another worker has all")
            (installation.folder / "go").touch()
            wait_until(lambda: len(numbers(installation.folder)) == 5, 10, "all have ended")
        Note.delay(6)
        wait_until(lambda: 6 in numbers(installation.folder), 10, "the first worker reads again")


def test_a_queue_that_was_deleted_is_made_again(
    installation: Installation, app: ConventionsApp, rabbit: Rabbit
) -> None:
    """RabbitMQ would drop the message, and say that it has it."""
    Note.delay(1)
    host = app.connection_for_read().virtual_host
    rabbit.delete(host, *queues_of("immediate"))
    Note.delay(2)
    assert app.port.waiting("immediate") == 1


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
