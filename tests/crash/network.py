"""Two hosts of a test's own, in network namespaces, with a cable between them that can be pulled out."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest

SERVER, WORKER = "10.83.1.1", "10.83.1.2"  # addresses that only these two namespaces know


@dataclass(frozen=True, slots=True)
class Network:
    """A host for servers, a host for workers, and the cable between them.

    Attributes:
        server: name of the namespace of servers, reached at the address `SERVER`.
        worker: name of the namespace of workers.
    """

    server: str
    worker: str

    def at_server(self, command: list[str]) -> list[str]:
        """The command, run on the host of servers; it keeps its process id."""
        return ["ip", "netns", "exec", self.server, *command]

    def at_worker(self, command: list[str]) -> list[str]:
        """The command, run on the host of workers; it keeps its process id."""
        return ["ip", "netns", "exec", self.worker, *command]

    def cut(self) -> None:
        """Pull the cable out: packets vanish, connections stay open, nobody is told."""
        _ip("-n", self.server, "link", "set", "cable", "down")

    def heal(self) -> None:
        """Put the cable in again."""
        _ip("-n", self.server, "link", "set", "cable", "up")


@contextmanager
def network() -> Iterator[Network]:
    """Make the two hosts, and remove them. Skips the test where this needs a right that one does not have."""
    if os.getuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip: apt-get install iproute2")
    name = f"conv{uuid4().hex[:8]}"
    made = Network(f"{name}s", f"{name}w")
    try:
        _ip("netns", "add", made.server)
        _ip("netns", "add", made.worker)
        _ip("-n", made.server, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", made.worker)
        for host, address in ((made.server, SERVER), (made.worker, WORKER)):
            _ip("-n", host, "address", "add", f"{address}/24", "dev", "cable")
            _ip("-n", host, "link", "set", "lo", "up")
            _ip("-n", host, "link", "set", "cable", "up")
        yield made
    finally:
        for host in (made.server, made.worker):
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no network namespaces: {error.stderr.strip()}")
