"""A RabbitMQ of the tests' own, on loopback, which they can stop, kill and start again."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import amqp  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.redis_servers import Certificates, free_port
from tests.support import wait_until

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's wrapper on the path asks for another account
CONTROL = PROGRAM.with_name("rabbitmqctl")
ASK = "/usr/bin/erl_call"  # 5 ms for an answer; `rabbitmqctl` starts an Erlang for each: 0.7 s of a processor
SETTLED = 1  # second: a message that goes from a queue to one that was counted before it is counted the next time
TLS = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {files.authority}
ssl_options.certfile = {files.certificate}
ssl_options.keyfile = {files.key}
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
"""
COUNTED = """#{{
    element(4, amqqueue:get_name(Queue)) => case amqqueue:get_type(Queue) of
        rabbit_quorum_queue ->
            case ra:local_query(amqqueue:get_pid(Queue), fun rabbit_fifo:query_messages_total/1, 5000) of
                {{ok, {{_, Count}}, _}} -> Count;
                _ -> -1
            end;
        _ -> case catch rabbit_amqqueue:info(Queue, [messages]) of [{{messages, Count}}] -> Count; _ -> -1 end
    end || Queue <- rabbit_amqqueue:list({host})}}"""
STARTS_WITHIN = 120  # seconds, on a busy machine


class Rabbit:
    """A server; its data stays in its folder while it is stopped.

    Args:
        folder: for its data.
        tls: with these it speaks TLS at another port, too.
    """

    def __init__(self, folder: Path, tls: Certificates | None = None) -> None:
        self._folder = folder
        self._port, self._epmd = free_port(), str(free_port())
        self.tls_port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._empty_since = math.inf
        self._hosts: list[str] = []
        self._environment = {
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._epmd,
            "RABBITMQ_NODENAME": f"t{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        }
        if tls is not None:
            written = folder / "rabbitmq.conf"
            written.write_text(TLS.format(port=self.tls_port, files=tls), encoding="utf-8")
            self._environment["RABBITMQ_CONFIG_FILE"] = str(written)

    @property
    def url(self) -> str:
        """Its address."""
        return self.url_of("/")

    def url_of(self, host: str) -> str:
        """The address of one of its virtual hosts."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{host}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "out").open("ab") as out:
            self._server = subprocess.Popen(
                [PROGRAM], env=os.environ | self._environment, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(self.answers, STARTS_WITHIN, "RabbitMQ answers")

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        assert self._server is not None
        os.killpg(self._server.pid, number)

    def freeze(self) -> None:
        """Stop it where it is: connections stay open, and nothing is answered."""
        self.signal(signal.SIGSTOP)
        wait_until(self._stands_still, description="RabbitMQ stands still")  # one of its threads may answer once more

    def _stands_still(self) -> bool:
        assert self._server is not None
        states = []
        for file in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
            with suppress(OSError):  # it has ended since
                state, _, group = file.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self._server.pid:
                    states.append(state)
        return set(states) <= {"T", "Z"}

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def cut_connections(self, *_: str) -> int:
        """Close every connection; returns how many there were."""
        cut = 'rabbit_networking:close_connection(P, "cut by a test")'
        return int(self.ask(f"length([{cut} || P <- rabbit_networking:connections()])"))

    def break_connections(self) -> None:
        """End every connection without a word, as a network does that fails."""
        self.ask("[exit(P, kill) || P <- rabbit_networking:connections()]")

    def mend(self, host: str = "/") -> None:
        """After a test that may have broken it: it answers, nobody is connected, and the queues of this host are empty."""
        if self._server is None:
            self.start()
        self.thaw()
        wait_until(self.answers, STARTS_WITHIN, "RabbitMQ answers")
        self.break_connections()
        all_queues = f"rabbit_amqqueue:list({_binary(host)})"

        def is_empty() -> bool:  # what a lost connection held is in its queue a moment later
            self.ask(f"length([catch rabbit_amqqueue:purge(Queue) || Queue <- {all_queues}])")
            return not any(self.queues(host).values())

        wait_until(is_empty, STARTS_WITHIN, "its queues are empty")

    def left(self) -> list[str]:
        """What is not done: each queue of jobs that has messages, also those that a worker holds, or that are not due."""
        queues = self.queues("/").items()
        found = [f"queue {name} has {count}" for name, count in queues if count and "pidbox" not in name]
        now = time.monotonic()
        self._empty_since = math.inf if found else min(self._empty_since, now)
        return found or (["nothing, for less than a second"] if now - self._empty_since < SETTLED else [])

    def restart(self) -> None:
        """Stop it in good order, and start it."""
        assert self._server is not None
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(60)
        self.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._server is not None:
            self.signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def end(self) -> None:
        """End it and what it has started."""
        self.kill()
        command = [str(shutil.which("epmd")), "-port", self._epmd, "-kill"]
        own = os.environ | {"ERL_EPMD_RELAXED_COMMAND_CHECK": "1"}

        def ended() -> bool:  # it keeps the node that was killed for a moment
            found = subprocess.run(command, env=own, capture_output=True, check=False, text=True)
            return "Killed" in found.stdout or "Cannot connect" in found.stdout + found.stderr

        wait_until(ended, 20, "epmd has ended")

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with self.connection():
                return True
        except (OSError, amqp.exceptions.AMQPError):
            return False

    def ask(self, expression: str) -> Any:
        """What an Erlang expression is on the server; it must be one that JSON can write.

        Raises:
            RuntimeError: the expression fails there.
            CalledProcessError: no server answers.
        """
        text = f"binary_to_list(iolist_to_binary(json:encode({expression}))).\n"
        # A name of its own: the server refuses that of a connection which it has not closed yet.
        command = [ASK, "-h", f"t{uuid4().hex}", "-sname", self._environment["RABBITMQ_NODENAME"], "-e"]
        own = os.environ | self._environment
        found = subprocess.run(command, env=own, input=text, capture_output=True, check=True, text=True, timeout=60)
        if not (answer := re.fullmatch(r'\{ok, "(.*)"\}\s*', found.stdout, re.DOTALL)):
            raise RuntimeError(f"RabbitMQ does not answer {expression}: {found.stdout}{found.stderr}")
        return json.loads(answer[1])

    def add_host(self) -> str:
        """Make a virtual host; returns its name."""
        host = f"t{uuid4().hex[:8]}"
        assert self.ask(f'rabbit_vhost:add({_binary(host)}, <<"tests">>) == ok'), host
        self.allow(host)
        self._hosts.append(host)
        return host

    def drop_hosts(self) -> None:
        """Delete all virtual hosts that `add_host` made, for whomever: each of their queues costs something all the time."""
        for host in self._hosts:
            assert self.ask(f'rabbit_vhost:delete({_binary(host)}, <<"tests">>) == ok'), host
        self._hosts.clear()

    def allow(self, host: str, configure: str = ".*") -> None:
        """Let applications declare those queues alone whose names match `configure`, a regular expression, and use all."""
        rights = ", ".join(_binary(one) for one in ("guest", host, configure, ".*", ".*", "tests"))
        assert self.ask(f"rabbit_auth_backend_internal:set_permissions({rights}) == ok"), host

    def queues(self, host: str) -> dict[str, int]:
        """Its queues, with their messages, also those that a worker holds; -1 for one that does not answer.

        A quorum queue is asked itself: the counts that `rabbitmqctl` shows are up to five seconds old.
        """
        counts: dict[str, int] = self.ask(COUNTED.format(host=_binary(host)))
        return counts

    def consumed(self, host: str) -> set[str]:
        """Its queues that have a consumer."""
        name = "element(4, proplists:get_value(queue_name, Consumer))"
        return set(self.ask(f"[{name} || Consumer <- rabbit_amqqueue:consumers_all({_binary(host)})]"))

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; returns what it prints."""
        command = [str(CONTROL), "--quiet", "--node", self._environment["RABBITMQ_NODENAME"], *arguments]
        return subprocess.run(
            command, env=os.environ | self._environment, capture_output=True, check=True, text=True, timeout=60
        ).stdout

    def declare(self, host: str, queue: str) -> None:
        """Make a queue as another program would."""
        with self.connection(host) as connection:
            connection.channel().queue_declare(queue, durable=True, auto_delete=False)

    def delete(self, host: str, *queues: str) -> None:
        """Delete queues."""
        with self.connection(host) as connection:
            for queue in queues:
                connection.channel().queue_delete(queue)

    @contextmanager
    def connection(self, host: str = "/") -> Iterator[Any]:
        """A plain connection of py-amqp."""
        connection: Any = amqp.Connection(f"127.0.0.1:{self._port}", virtual_host=host, connect_timeout=2)
        connection.connect()
        try:
            yield connection
        finally:
            connection.close()


def _binary(text: str) -> str:
    """A text as Erlang writes one."""
    return f"<<{json.dumps(text)}/utf8>>"


@contextmanager
def running_rabbitmq(tls: Certificates | None = None) -> Iterator[Rabbit]:
    """A server for a block, also over TLS where there are files for it. Skips the test where none is installed."""
    if not PROGRAM.exists():
        pytest.skip("no RabbitMQ is installed: apt-get install rabbitmq-server")
    with tempfile.TemporaryDirectory(prefix="rabbit-") as name:
        server = Rabbit(Path(name), tls)
        try:
            server.start()
            yield server
        finally:
            server.end()
