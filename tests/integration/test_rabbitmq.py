"""RabbitMQ as the broker, when it stands still or its queue is full: a send ends in time, and says what may be there."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest
from kombu.entity import Queue

from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask
from tests.redis_servers import free_port
from tests.support import wait_until
from tests.workers import application

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's wrapper on the path asks for another account
PATIENCE = 0.7  # seconds: `broker_timeout`; and a send may take a second more


class Number(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


class Rabbit(NamedTuple):
    """A server of our own."""

    url: str
    group: int

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        os.killpg(self.group, number)


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    """A RabbitMQ on this machine alone. Skips the tests where none is installed."""
    if not PROGRAM.exists():
        pytest.skip("no RabbitMQ is installed: apt-get install rabbitmq-server")
    port, epmd = free_port(), str(free_port())
    with tempfile.TemporaryDirectory(prefix="rabbit-") as name:
        own = {
            "HOME": name,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": epmd,
            "RABBITMQ_NODENAME": f"t{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{name}/data",
            "RABBITMQ_LOG_BASE": f"{name}/log",
            "RABBITMQ_PID_FILE": f"{name}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{name}/plugins",
        }
        with (Path(name) / "out").open("wb") as out:
            server = subprocess.Popen([PROGRAM], env=os.environ | own, stdout=out, stderr=out, start_new_session=True)
        found = Rabbit(f"amqp://guest:guest@127.0.0.1:{port}//", server.pid)
        try:
            wait_until(lambda: _answers(found.url), 60, "RabbitMQ answers")
            yield found
        finally:
            found.signal(signal.SIGKILL)
            server.wait()
            subprocess.run([str(shutil.which("epmd")), "-port", epmd, "-kill"], capture_output=True, check=False)


def _answers(url: str) -> bool:
    try:
        connection: Any = amqp.Connection(url.split("@")[1].strip("/"), connect_timeout=1)
        connection.connect()
        connection.close()
    except (OSError, amqp.exceptions.AMQPError):
        return False
    return True


@pytest.fixture
def _sender(rabbit: Rabbit, valkey_url: str, tmp_path: Path) -> Iterator[Any]:
    settings = {"redis_url": valkey_url, "database_url": f"sqlite:///{tmp_path}/x"}
    with application(broker_url=rabbit.url, broker_timeout=PATIENCE, **settings) as app:
        Number.delay(0)
        yield app


def failed(send: Callable[[], Any]) -> BrokerUnavailable:
    """The error of a send, which is there in time."""
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable) as found:
        send()
    assert time.monotonic() - started < PATIENCE + 1
    return found.value


@pytest.mark.usefixtures("_sender")
def test_rabbitmq_that_stands_still(rabbit: Rabbit) -> None:
    """What it was given may be there, and what found no connection is not; then it goes on as before."""
    rabbit.signal(signal.SIGSTOP)
    try:
        given = failed(lambda: Number.apply_async((1,), task_id="given"))
        late = failed(lambda: Number.delay(2))
        many = failed(lambda: Number.enqueue_many([{"number": 3}, {"number": 4}]))
    finally:
        rabbit.signal(signal.SIGCONT)
    assert (given.maybe_sent, given.ids) == (True, ["given"])
    assert str(given).startswith("may have been sent: ")
    assert not late.maybe_sent
    assert not many.maybe_sent
    assert str(late).startswith("not sent: ")
    assert Number.apply_async((1,), task_id="given").id == "given"


def test_a_queue_of_rabbitmq_that_is_full(_sender: Any) -> None:  # noqa: PT019  # its application is what declares the queue
    """It says so, and the message is not there."""
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue: Any = Queue
    _sender.amqp.queues.add(queue("small", queue_arguments=full, max_priority=9))
    Number.apply_async((1,), queue="small")
    error = failed(lambda: Number.apply_async((2,), queue="small"))
    assert not error.maybe_sent
    assert "its queue is full" in str(error)
    Number.delay(3)
