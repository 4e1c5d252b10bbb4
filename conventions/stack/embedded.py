"""The embedded server: a real Valkey beside the SQLite file, when no broker is configured."""

import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# Linux allows 107 bytes, macOS 103, for the path of a unix socket.
SOCKET_PATH_LIMIT = 100
# A path that needs no quoting in addresses and in the server's configuration file.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
SOCKET_NAME = "valkey.sock"


@dataclass(frozen=True)
class EmbeddedServer:
    """The data folder and the address of the server. The supervisor starts it."""

    data: Path
    socket: Path

    @property
    def broker_url(self) -> str:
        """The address for Celery."""
        return f"redis+socket://{self.socket}"

    @property
    def redis_url(self) -> str:
        """The address of the same database, for redis-py."""
        return f"unix://{self.socket}?db=0"

    @property
    def command(self) -> list[str]:
        """The command line that runs the server in the foreground until SIGTERM."""
        script = Path(__file__).with_name("embedded_server.py")
        # -P: the script's own folder must not shadow modules of the standard library
        return [sys.executable, "-P", str(script), str(self.data), str(self.socket)]

    def wait_until_ready(self, alive: Callable[[], bool], timeout: float = 120.0) -> bool:
        """Wait until the server answers, at most `timeout` seconds. False if `alive` turns false first."""
        client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), retries=0))
        deadline = time.monotonic() + timeout
        with client:
            while time.monotonic() < deadline and alive():
                try:
                    client.ping()
                except redis.ConnectionError:  # not started yet, or still loading its data
                    time.sleep(0.05)
                else:
                    return True
        return False


def prepare(folder: Path) -> EmbeddedServer:
    """The server of this folder, which must be private.

    If the path of `folder` is too long for a socket, or an address would have to quote it, the socket goes to a new
    private folder for temporary files.
    """
    home = folder.resolve()
    socket = home / SOCKET_NAME
    if len(str(socket).encode()) > SOCKET_PATH_LIMIT or not PLAIN_PATH.fullmatch(str(socket)):
        socket = Path(tempfile.mkdtemp(prefix="conventions-")) / SOCKET_NAME
    return EmbeddedServer(home / "valkey", socket)
