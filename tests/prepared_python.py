"""Processes of `celery …` that need not import it: forked from one that has imported what each of them does, and has done nothing else.

A start takes half a second of a processor without this, and the suite makes some 3,000. All else is as in a process of its own: environment, folder,
arguments, output, exit status, signals. `TESTS_START_FRESH=1` starts each anew, and so do variables that Python or a library reads when it
is imported.
"""

import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict

FRESH = "TESTS_START_FRESH"
READ_AT_IMPORT = ("PYTHON", "LANG", "LC_", "LD_", "OTEL_", "MALLOC_")  # variables that begin so, but for the path
IMPORTED = (
    "alembic.command", "celery.apps.beat", "celery.apps.worker", "celery.bin.celery", "celery.concurrency.prefork", "conventions.app",
    "conventions.records.executions", "conventions.storage.database", "kombu.transport.virtual", "sqlalchemy.dialects.sqlite",
)  # fmt: skip
ROOT, OURS = Path(__file__).resolve().parents[1], "conventions"
MESSAGE = 1 << 20  # bytes


class Process(Protocol):
    """What tests need of a process: `subprocess.Popen` has it."""

    pid: int
    returncode: Any

    def poll(self) -> int | None:
        """Its exit status; `None` while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit status. Raises: TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it is known to have ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class _Order(TypedDict):
    """A process that is to be forked."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    session: bool


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Any,
    stderr: Any,
    start_new_session: bool = False,
) -> Process:
    """Start a process, as `subprocess.Popen` does. Standard input is empty.

    Args:
        command: `[sys.executable, "-m", module, …]` is forked where that changes nothing.
        cwd: its folder.
        env: all of its environment.
        stdout, stderr: open files, or for `stderr` `subprocess.STDOUT`.
        start_new_session: whether it leads a process group of its own.
    """
    if not _can_be_forked(command, cwd, env):
        return subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=start_new_session
        )  # fmt: skip
    order = _Order(
        module=command[2],
        arguments=list(command[3:]),
        folder=str(cwd),
        environment=dict(env),
        session=start_new_session,
    )
    output = stdout.fileno()
    return Forked(command, order, (output, output if stderr == subprocess.STDOUT else stderr.fileno()))


def run(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float, apart: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, as `subprocess.run` does. Raises: TimeoutExpired; then it is killed.

    Args:
        command, cwd, env: see `start`.
        timeout: seconds.
        apart: whether standard error is kept apart; else it is a part of the output.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start(command, cwd=cwd, env=env, stdout=output, stderr=errors if apart else subprocess.STDOUT)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(command), status, said[0], said[1] if apart else None)


def _can_be_forked(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> bool:
    if list(command[:2]) != [sys.executable, "-m"] or os.environ.get(FRESH):
        return False
    paths = [folder, *map(Path, env.get("PYTHONPATH", "").split(os.pathsep))]
    others = [one for one in paths if (one / OURS).is_dir() and one.resolve() != ROOT]  # another release
    return not others and _read_at_import(env) == _read_at_import(os.environ)


def _read_at_import(env: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in env.items() if name.startswith(READ_AT_IMPORT) and name != "PYTHONPATH"}


class Forked:
    """A process that was forked; see `Process`."""

    def __init__(self, command: Sequence[str], order: _Order, files: tuple[int, int]) -> None:
        self.args, self.returncode = list(command), None
        self._template = _Template.get()
        self.pid = self._template.ask({"fork": order}, files)
        self._end = os.pidfd_open(self.pid)
        self._lock = threading.Lock()

    returncode: int | None

    def poll(self) -> int | None:
        """See `Process`."""
        return self._ended_within(0)

    def wait(self, timeout: float | None = None) -> int:
        """See `Process`."""
        status = self._ended_within(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None:
            with self._lock:
                if self.returncode is None and select.select([self._end], [], [], seconds)[0]:
                    self.returncode = self._template.ask({"status": self.pid})
                    os.close(self._end)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """See `Process`."""
        if self.poll() is None:
            os.kill(self.pid, sig)  # its number is its own until `poll` has seen its end

    def terminate(self) -> None:
        """See `Process`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `Process`."""
        self.send_signal(signal.SIGKILL)


class _Template:
    """The process that is forked, and lives as long as this one."""

    _present: "_Template | None" = None
    _lock = threading.Lock()

    @classmethod
    def get(cls) -> "_Template":
        with cls._lock:
            if cls._present is None:
                cls._present = cls()
            return cls._present

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (self._socket, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE)
        with theirs:
            environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        self._asking = threading.Lock()

    def ask(self, question: Mapping[str, Any], files: Sequence[int] = ()) -> int:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(question).encode()], list(files))
            answer = self._socket.recv(100)
        assert answer, "the process that tests are forked from has ended"
        return int(answer)


# Below: in the template, and in what is forked from it.


def _serve(control: socket.socket) -> tuple[_Order, list[int]] | None:
    """Answer until the tests end. Returns in a forked process, with its order and files; in the template `None`, at the end."""
    while True:
        text, files, *_ = socket.recv_fds(control, MESSAGE, 2)
        if not text:
            return None
        question = json.loads(text)
        if "status" in question:
            _, status = os.waitpid(question["status"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                control.close()
                return question["fork"], files
        for one in files:
            os.close(one)
        control.send(str(answer).encode())


def _become(order: _Order, files: Sequence[int]) -> None:
    """Take what a process is started with."""
    if order["session"]:
        os.setsid()
    for number, one in enumerate(files, 1):
        os.dup2(one, number)
        os.close(one)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    paths = [one for one in order["environment"].get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:1] = [order["folder"], *paths]  # the first one is of this file
    importlib.invalidate_caches()
    sys.argv[:] = ["-m", *order["arguments"]]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = open(number, "wb" if number else "rb", buffering=-1 if number == 0 else 0, closefd=False)  # noqa: SIM115
        raw: Any = file if number == 0 else io.BufferedWriter(file)
        before: io.TextIOWrapper = getattr(sys, name)
        text = io.TextIOWrapper(raw, before.encoding, before.errors, line_buffering=number == 2)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    found = _serve(control)
    if found is not None:
        order, files = found
        _become(order, files)
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
