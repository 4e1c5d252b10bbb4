"""A send to a server that refuses, stands still, says nothing or takes no writes: how long it takes, and what the error says.

Time is the promise here: a send ends within `broker_timeout` and a second.
"""

import pickle
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from celery import chain, chord, group

import conventions
from conventions import EVERY_ARGUMENT, BrokerUnavailable, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker import bulk_publish
from conventions.broker.bulk_publish import PART
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import at_most, wait_until
from tests.workers import application, messages

pytestmark = pytest.mark.processes  # each waits for servers that do not answer

PATIENCE = 0.4  # seconds: `broker_timeout`


class Count(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


class Answer(ImmediateTask):
    """Take one number and keep the result."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: int) -> int:
        return number


SENDS: dict[str, Callable[[], Any]] = {
    "delay": lambda: Count.delay(1),
    "with an option": lambda: Count.apply_async((1,), countdown=5),
    "with a result": lambda: Answer.delay(1),
    "many": lambda: Count.enqueue_many([{"number": number} for number in range(3)]),
    "large": lambda: Count.enqueue_many({"number": number} for number in range(100 * PART)),
    "group": lambda: group([Count.s(1), Count.s(2)]).apply_async(),
    "chain": lambda: chain(Count.si(1), Count.si(2)).apply_async(),
    "chord": lambda: chord([Answer.s(1), Answer.s(2)])(Count.si(3)),
}


@contextmanager
def sender(url: str, folder: Path, **settings: Any) -> Iterator[ConventionsApp]:
    """An application that sends to a server."""
    more: Any = {"broker_timeout": PATIENCE, "key_prefix": f"t{uuid4().hex[:8]}"} | settings
    with application(broker_url=url, database_url=f"sqlite:///{folder}/x", **more) as app:
        yield app


def failed(send: Callable[[], Any]) -> BrokerUnavailable:
    """The error of a send, which is there in time."""
    with at_most(PATIENCE), pytest.raises(BrokerUnavailable) as found:
        send()
    return found.value


def sent(number: int, task_id: str, **options: Any) -> None:
    """Send again under one id until the server has it: a busy machine may take longer than the patience of these tests."""

    def tried() -> bool:
        try:
            Count.apply_async((number,), task_id=task_id, **options)
        except BrokerUnavailable:
            return False
        return True

    wait_until(tried)


# Servers without a word.


@dataclass
class Listener:
    """A socket that listens, and its address."""

    listener: socket.socket
    held: list[socket.socket]

    @property
    def port(self) -> int:
        """Its port."""
        port: int = self.listener.getsockname()[1]
        return port


@contextmanager
def _listening(backlog: int = 100) -> Iterator[Listener]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        found = Listener(listener, [])
        yield found
        for one in found.held:
            one.close()


@contextmanager
def refuses(_: Path) -> Iterator[str]:
    """Nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{held.getsockname()[1]}/0"


@contextmanager
def says_nothing(_: Path) -> Iterator[str]:
    """The system accepts, and nobody ever answers; with a password, which is asked for first."""
    with _listening() as listener:
        yield f"redis://:secret@127.0.0.1:{listener.port}/0"


@contextmanager
def speaks_no_tls(_: Path) -> Iterator[str]:
    """The same, for a client that waits for TLS."""
    with _listening() as listener:
        yield f"rediss://127.0.0.1:{listener.port}/0"


@contextmanager
def drops(_: Path) -> Iterator[str]:
    """The system drops what would open a connection, since its queue is full."""
    with _listening(backlog=0) as listener:
        for _number in range(3):
            held = socket.socket()
            held.setblocking(False)
            with suppress(BlockingIOError):
                held.connect(("127.0.0.1", listener.port))
            listener.held.append(held)
        yield f"redis://127.0.0.1:{listener.port}/0"


@contextmanager
def _answering(answer: bytes, rest: bytes = b"") -> Iterator[str]:
    """Says this to each connection, and then the rest again and again, in pieces."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _address = listening.listener.accept()
                listening.held.append(connection)
                connection.sendall(answer)

    def go_on() -> None:
        while not stop.wait(0.05):
            for one in list(listening.held):
                with suppress(OSError):
                    one.sendall(rest)

    stop = threading.Event()
    threads = [threading.Thread(target=one, daemon=True) for one in (accept, go_on)]
    with _listening() as listening:
        for thread in threads:
            thread.start()
        yield f"redis://127.0.0.1:{listening.port}/0"
        stop.set()
        listening.listener.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection
        for thread in threads:
            thread.join()


@contextmanager
def drips(_: Path) -> Iterator[str]:
    """Its answer is a line that has no end."""
    with _answering(b"+", b"x") as url:
        yield url


@contextmanager
def is_no_redis(_: Path) -> Iterator[str]:
    """It speaks another protocol."""
    with _answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        yield url


@contextmanager
def stands_still(folder: Path) -> Iterator[str]:
    """A Valkey that was stopped before anybody connects."""
    port = free_port()
    with process(folder, [f"port {port}"]) as server:
        wait_for_server(folder, port)
        server.send_signal(signal.SIGSTOP)
        yield f"redis://127.0.0.1:{port}/0"


SILENT = [
    refuses,
    says_nothing,
    stands_still,
    # Each of them takes three seconds of waiting, and differs from the others in a part of one library only.
    *(pytest.param(one, marks=pytest.mark.thorough) for one in (speaks_no_tls, drops, drips, is_no_redis)),
]


@pytest.mark.parametrize("server", SILENT, ids=lambda one: one.__name__)
def test_what_cannot_connect_is_not_sent(server: Any, tmp_path: Path) -> None:
    """Every way to send ends in time, and says that nothing has left."""
    with server(tmp_path) as url, sender(url, tmp_path):
        for name, send in SENDS.items():
            error = failed(send)
            assert str(error).startswith("not sent: "), name
            assert not error.maybe_sent
            assert not error.sent
            assert len(error.ids) == {"many": 3, "large": PART}.get(name, len(error.ids) or 1)
            assert "127.0.0.1" in str(error)
            assert "secret" not in str(error)


@pytest.mark.parametrize("server", [refuses, says_nothing, drops], ids=lambda one: one.__name__)
def test_rabbitmq_that_does_not_answer(server: Any, tmp_path: Path, valkey_url: str) -> None:
    """It has not got as far as a message: the same."""
    with server(tmp_path) as url, sender(url.replace("redis://", "amqp://"), tmp_path, redis_url=valkey_url):
        for name in ("delay", "many", "with a result"):
            error = failed(SENDS[name])
            assert str(error).startswith("not sent: "), name
            assert not error.maybe_sent
            assert len(error.ids) == {"many": 3}.get(name, 1)


# A server that stops answering in the middle.


@pytest.fixture
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A Valkey, its application, which is connected, and the means to stop it; its parameter is the time-out of a send."""
    patience = getattr(request, "param", PATIENCE)
    port = free_port()
    with process(tmp_path, [f"port {port}"]) as server:
        wait_for_server(tmp_path, port)
        with sender(f"redis://127.0.0.1:{port}/0", tmp_path, broker_timeout=patience) as app:
            sent(0, "first")
            try:
                Count.enqueue_many([{"number": -1}])
            except BrokerUnavailable as error:
                sent(-1, *error.ids)
            yield app, server


def test_a_message_without_an_answer_may_be_there(frozen: Any) -> None:
    """The error says so, with the id under which it may be sent again: then it is there once."""
    app, server = frozen
    server.send_signal(signal.SIGSTOP)
    error = failed(lambda: Count.delay(1))
    assert error.maybe_sent
    (id_,) = error.ids
    assert str(error).startswith("may have been sent: ")
    assert f"task_id={id_!r}" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.maybe_sent, copy.ids, str(copy)) == (True, [id_], str(error))
    later = failed(lambda: Count.apply_async((2,), task_id="chosen", countdown=9))
    assert not later.maybe_sent  # it found no connection
    assert later.ids == ["chosen"]
    server.send_signal(signal.SIGCONT)
    sent(1, id_)
    sent(2, "chosen", countdown=9)
    server.send_signal(signal.SIGSTOP)
    chosen = failed(lambda: Count.apply_async((3,), task_id="other", countdown=9))
    assert (chosen.maybe_sent, chosen.ids) == (True, ["other"])
    server.send_signal(signal.SIGCONT)
    sent(3, "other", countdown=9)
    app.be_patient()  # a busy machine may take longer than a send of these tests
    assert sorted(one.arguments["number"] for one in messages(app)) == [-1, 0, 1, 2, 3]


@pytest.mark.parametrize("frozen", [3.0], indirect=True)  # what goes well must do so on a busy machine, too
def test_many_of_which_a_part_has_no_answer(frozen: Any) -> None:
    """What is there for certain, what may be, and that the others were not sent; the part may be sent again by its ids."""
    app, server = frozen

    def numbers() -> Iterator[dict[str, int]]:
        for number in count():
            if number == 3 * PART:
                server.send_signal(signal.SIGSTOP)
            if number == 5 * PART:
                raise AssertionError("it goes on, though nobody answers")
            yield {"number": number}

    with at_most(0, slack=30), pytest.raises(BrokerUnavailable) as found:  # with what went well
        Count.enqueue_many(numbers())
    error = found.value
    assert error.maybe_sent
    assert len(error.ids) == PART
    assert len(error.sent) in (2 * PART, 3 * PART)
    first = len(error.sent)
    server.send_signal(signal.SIGCONT)
    for number, id_ in enumerate(error.ids, first):
        sent(number, id_)
    app.be_patient()
    there = {one.id: one.arguments["number"] for one in messages(app)}
    assert [there[id_] for id_ in (*error.sent, *error.ids)] == list(range(first + PART))
    assert len(there) == 2 + first + PART


def test_a_part_that_does_not_leave_whole(frozen: Any) -> None:
    """A part larger than what the system takes for a server that does not read: it ends in time."""
    _, server = frozen
    server.send_signal(signal.SIGSTOP)
    many = [{"number": number} for number in range(20 * PART)]
    error = failed(lambda: Count.enqueue_many(many))
    assert not error.sent


def test_a_part_of_several_flushes_ends_in_time(frozen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a worker, which waits longer for other calls, and whose connection must be made anew."""
    app, server = frozen
    Count.enqueue_many([{"number": 1}])
    monkeypatch.setattr(bulk_publish, "BYTES_AT_ONCE", 3000)
    app.be_patient()
    app.broker.store.redis.connection_pool.disconnect()
    server.send_signal(signal.SIGSTOP)
    with at_most(PATIENCE, slack=1), pytest.raises(BrokerUnavailable) as found:
        Count.enqueue_many({"number": number} for number in range(PART))
    assert not found.value.sent


def test_calls_that_are_no_sends_end_in_time_too(frozen: Any) -> None:
    """Those of the console, of commands and of beat: they are as patient as a send."""
    app, server = frozen
    with app.store.redis.pipeline() as pipe:
        server.send_signal(signal.SIGSTOP)
        calls: list[Callable[[], Any]] = [
            app.store.redis.ping,
            lambda: pipe.ping().execute(),
            lambda: app.broker.sizes("immediate"),
            lambda: Count.cancel("x"),
            lambda: app.batches.listing(10),
            app.store.new_client(decode_responses=True).ping,
        ]
        for call in calls:
            with at_most(PATIENCE), pytest.raises(redis.RedisError):
                call()


def test_a_worker_is_more_patient(frozen: Any) -> None:
    """A server that stands still for a moment is no reason to give a job back; but no single call takes for ever."""
    app, _ = frozen
    assert app.store.patience == app.broker.store.patience == PATIENCE
    app.loader.init_worker_process()
    assert PATIENCE < app.store.patience == app.broker.store.patience < 15


# A server that says no.


def _no_memory(client: redis.Redis) -> None:
    client.config_set("maxmemory", "100kb")


def _replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _lonely(client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", 1)


def _full_house(client: redis.Redis) -> None:
    client.config_set("maxclients", 1)


def _stale(client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.replicaof("127.0.0.1", 1)


REFUSING = {  # with what the error says
    "no memory": (_no_memory, "maxmemory"),
    "a replica": (_replica, "address of the master"),
    "no replicas": (_lonely, "min-replicas-to-write"),
    "no master": (_stale, "it is a replica"),
    "many clients": (_full_house, "maxclients"),
}


@pytest.mark.parametrize(
    ("state", "connected"),
    [
        (state, connected)
        for state in REFUSING
        for connected in (True, False)
        if (state, connected) != ("many clients", True)
    ],
)
def test_a_server_that_takes_no_writes(state: str, connected: bool, tmp_path: Path) -> None:
    """Nothing is sent, and the error says what to do; once it is done, the same is sent."""
    begin, advice = REFUSING[state]
    port = free_port()
    with process(tmp_path, [f"port {port}"]):
        wait_for_server(tmp_path, port)
        with redis.Redis(port=port) as client, sender(f"redis://127.0.0.1:{port}/0", tmp_path) as app:
            if connected:
                Count.delay(0)
            begin(client)
            for name in ("delay", "with an option", "with a result", "many"):
                error = failed(SENDS[name])
                assert str(error).startswith("not sent: "), name
                assert not error.maybe_sent
                assert advice in str(error), name
            for setting, value in (("maxmemory", 0), ("maxclients", 100), ("min-replicas-to-write", 0)):
                client.config_set(setting, value)
            client.replicaof("NO", "ONE")
            Count.delay(1)
            assert {sent.arguments["number"] for sent in messages(app)} == ({0, 1} if connected else {1})


def test_a_server_that_is_busy(tmp_path: Path) -> None:
    """Somebody's script does not end."""
    port = free_port()
    with process(tmp_path, [f"port {port}", "lua-time-limit 1"]):
        wait_for_server(tmp_path, port)
        with redis.Redis(port=port) as client, sender(f"redis://127.0.0.1:{port}/0", tmp_path):
            Count.delay(0)
            line = client.connection_pool.get_connection()
            line.send_command("EVAL", "while true do end", 0)
            assert "SCRIPT KILL" in str(failed(SENDS["delay"]))
            assert "SCRIPT KILL" in str(failed(SENDS["many"]))
            client.script_kill()
            line.disconnect()
            client.connection_pool.release(line)
            Count.delay(1)


def test_a_server_that_reads_its_data(tmp_path: Path) -> None:
    """It was just started."""
    port = free_port()
    with process(tmp_path, [f"port {port}"]):
        wait_for_server(tmp_path, port)
        with redis.Redis(port=port) as client:
            client.config_set("rdbcompression", "no")
            client.mset({f"key{number}": "x" * 2000 for number in range(100)})
            client.save()
    with (
        process(tmp_path, [f"port {port}", "key-load-delay 50000", "loading-process-events-interval-bytes 1024"]),
        sender(f"redis://127.0.0.1:{port}/0", tmp_path),
    ):
        deadline = time.monotonic() + 10
        while "LOADING" not in (text := str(failed(SENDS["delay"]))) and "reads its data" not in text:
            assert time.monotonic() < deadline, text
        assert "reads its data" in text
        error = failed(SENDS["many"])
        assert "reads its data" in str(error)
        assert not error.maybe_sent


def test_a_full_journal(tmp_path: Path, valkey_url: str) -> None:
    """The recorder does not run: the error says where to look."""
    with sender(valkey_url, tmp_path, journal_limit=1) as app:
        app.store.redis.xadd(app.journal.key, {"x": "y"})
        for name in ("delay", "with an option", "many"):
            wait_until(partial(_names_the_limit, name), 20, name)


def _names_the_limit(name: str) -> bool:
    """Whether the error of a send does; on a busy machine there may be no time left to ask the server."""
    error = failed(SENDS[name])
    assert not error.maybe_sent
    return "CONVENTIONS_JOURNAL_LIMIT" in str(error)


def test_the_error_is_public() -> None:
    """A team catches it by its name in the package."""
    assert conventions.BrokerUnavailable is BrokerUnavailable
    assert "BrokerUnavailable" in conventions.__all__
    plain = BrokerUnavailable("away")
    assert (plain.maybe_sent, list(plain.ids), list(plain.sent)) == (False, [], [])


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of a megabyte. Skips the test where none can be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_server_whose_disk_is_full(tmp_path: Path) -> None:
    """Nothing is sent that the append-only file does not take; once there is room, the same server takes it."""
    port = free_port()
    with (
        _small_disk(tmp_path / "disk") as disk,
        process(disk, [f"port {port}", "appendonly yes", "appendfsync everysec"]),
        sender(f"redis://127.0.0.1:{port}/0", tmp_path) as app,
    ):
        wait_for_server(disk, port)
        Count.delay(0)
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with suppress(BrokerUnavailable):  # what is buffered meanwhile
            for number in range(1, 1000):
                Count.delay(number)
        for name in ("delay", "with a result", "many"):
            error = failed(SENDS[name])
            assert str(error).startswith("not sent: "), name
            assert "MISCONF" in str(error)
            assert "cannot write to its disk" in str(error)
        filler.unlink()
        wait_until(lambda: _takes(2000), 10, "the server takes messages again")
        assert 2000 in {sent.arguments["number"] for sent in messages(app)}


def _takes(number: int) -> bool:
    with suppress(BrokerUnavailable):
        Count.delay(number)
        return True
    return False
