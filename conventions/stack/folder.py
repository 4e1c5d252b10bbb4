"""The folder `.conventions/`: which process runs the embedded stack in it, and the addresses of that stack.

`up` and `demo` hold the folder's lock while they live. The lock ends with the process, so nobody finds a killed stack.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from conventions.core.errors import ConfigurationError
from conventions.core.named_keys import new_key

FOLDER = Path(".conventions")
LOCK_FILE = "lock"
STACK_FILE = "stack.json"
MESSAGE_KEY, AUDIT_KEY, PAYLOAD_KEY, NAME_KEY = "message.key", "audit.key", "payload.key", "name.key"

# The services of a killed `up` live for at most three more seconds: conventions/stack/guardian.py.
ENDING_SECONDS = 6.0
# A `find` in another process holds a shared lock for an instant.
GLANCE_SECONDS = 0.5


@dataclass(frozen=True)
class Stack:
    """An embedded stack.

    Args:
        pid: the process of `up` or `demo`.
        broker_url: the broker's address, for Celery.
        redis_url: the same server's address, for redis-py.
        flower_url: where Flower answers, None when it was not wanted.
        socket: path of the server's unix socket.
        started_at: ISO 8601, UTC.
    """

    pid: int
    broker_url: str
    redis_url: str
    flower_url: str | None
    socket: str
    started_at: str


def find(folder: Path = FOLDER) -> Stack | None:
    """The embedded stack that runs in this folder now, or None."""
    pid = _holder(folder)
    if pid is None or not _alive(pid):
        return None
    stack = _read(folder)
    return stack if stack is not None and stack.pid == pid else None


def key_of_stacks(file: str, folder: Path = FOLDER) -> str:
    """A key of the stacks of this folder, as its setting has it, such as the one that signs messages. It is made at the first time, and kept: messages are, too."""
    kept = folder / file
    if not kept.exists():
        made = folder / f"{file}.{os.getpid()}.partial"
        made.touch(mode=0o600)
        try:
            made.write_text(new_key("embedded"), encoding="ascii")
            with contextlib.suppress(FileExistsError):  # another process has just made it
                kept.hardlink_to(made)
        finally:
            made.unlink(missing_ok=True)
    return kept.read_text(encoding="ascii").strip()


class StackLock:
    """The right to run a stack in one folder; made by `hold`.

    A process that outlives this one may inherit `fileno`. The folder is locked until both have ended.
    """

    def __init__(self, folder: Path, fileno: int) -> None:
        self.folder = folder
        self.fileno = fileno

    def publish(self, stack: Stack) -> None:
        """Let `find` see the stack from now until the lock is released."""
        partial = self.folder / f"{STACK_FILE}.partial"
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(stack), indent=2), encoding="utf-8")
        partial.replace(self.folder / STACK_FILE)


@contextlib.contextmanager
def hold(folder: Path = FOLDER) -> Iterator[StackLock]:
    """Lock the folder. It is created if it does not exist; only its owner may read it.

    Raises:
        ConfigurationError: another process holds the lock; names its pid.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    fileno = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(folder, fileno)
        _forget(folder)
        os.ftruncate(fileno, 0)
        os.pwrite(fileno, str(os.getpid()).encode(), 0)
        try:
            yield StackLock(folder, fileno)
        finally:
            _forget(folder)
            os.ftruncate(fileno, 0)
    finally:
        os.close(fileno)


def _lock(folder: Path, fileno: int) -> None:
    started = time.monotonic()
    while not _try_lock(fileno, fcntl.LOCK_EX):
        pid = _pid(folder)
        patience = GLANCE_SECONDS if pid is not None and _alive(pid) else ENDING_SECONDS
        if time.monotonic() - started > patience:
            raise ConfigurationError(
                [f"a stack runs in this folder already: process {pid or 'unknown'}; stop it by Ctrl-C or `kill {pid}`"]
            )
        time.sleep(0.05)


def _forget(folder: Path) -> None:
    """Remove what the last stack left: its description and its socket, wherever that is."""
    stack = _read(folder)
    if stack is not None:
        socket = Path(stack.socket)
        socket.unlink(missing_ok=True)
        if socket.parent.resolve() != folder.resolve():
            with contextlib.suppress(OSError):  # it is gone, or it holds other files
                socket.parent.rmdir()
    (folder / STACK_FILE).unlink(missing_ok=True)


def _holder(folder: Path) -> int | None:
    try:
        fileno = os.open(folder / LOCK_FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _try_lock(fileno, fcntl.LOCK_SH) else _pid(folder)
    finally:
        os.close(fileno)


def _try_lock(fileno: int, kind: int) -> bool:
    try:
        fcntl.flock(fileno, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(folder: Path) -> int | None:
    text = (folder / LOCK_FILE).read_text(encoding="ascii")
    return int(text) if text.isdigit() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(folder: Path) -> Stack | None:
    try:
        return Stack(**json.loads((folder / STACK_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
