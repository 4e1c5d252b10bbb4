"""A forked process is as one of its own: what it is given, what it says, how it ends. Otherwise the suite would prove something else."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import prepared_python
from tests.prepared_python import DJANGO, FRESH, WRITES_NO_BYTECODE, Forked
from tests.support import wait_until

SHOW = """\
import json, os, signal, sys, threading
print(json.dumps({
    "argv": sys.argv, "path": sys.path[:2], "folder": os.getcwd(), "name": __name__, "zone": __import__("time").tzname[0],
    "variables": {name: os.environ.get(name) for name in ("MINE", "HOME", "PATH")}, "input": sys.stdin.read(),
    "signals": [str(signal.getsignal(one)) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD)],
    "threads": threading.active_count(), "files": sorted(os.listdir("/proc/self/fd"))[:-1], "leads": os.getsid(0) == os.getpid(),
    "no bytecode": sys.dont_write_bytecode,
    "modules": sorted({one.partition(".")[0] for one in sys.modules} & {"tests", "installed", "tasks"}),
    "encodings": [sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors, sys.stdout.line_buffering],
}))
print("あ", file=sys.stderr)
import atexit; atexit.register(lambda: print("at exit"))
threading.Thread(target=lambda: (threading.main_thread().join(), print("a thread"))).start()
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a module that shows what it was given."""
    (tmp_path / "shows.py").write_text(SHOW)
    (tmp_path / "within").mkdir()
    (tmp_path / "within" / "shows.py").write_text(SHOW)
    (tmp_path / "waits.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "fails.py").write_text("raise ValueError('no')\n")
    return tmp_path


def shown(folder: Path, how: str, status: int, **variables: str) -> tuple[int, dict[str, object], str | None]:
    """What a process of its own, or a forked one, shows: its status, what it was given, and its errors."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "MINE": "7", "TZ": "Asia/Tokyo"} | variables
    words = {"a module": ["-m", "shows"], "a program": ["-c", SHOW], "a file": ["within/shows.py"]}[how]
    command = [sys.executable, *words, str(status)]
    ended = prepared_python.run(command, cwd=folder, env=environment, timeout=60, apart=True)
    first, *others = ended.stdout.splitlines()
    assert others == ["a thread", "at exit"]
    return ended.returncode, json.loads(first), ended.stderr


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("how", ["a module", "a program", "a file"])
@pytest.mark.parametrize("more", [{}, {DJANGO: "x.settings"}, {WRITES_NO_BYTECODE: "1"}])
def test_all_that_it_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], how: str, status: int
) -> None:
    """The same in a forked process and in one of its own."""
    forked = shown(folder, how, status, **more)
    monkeypatch.setenv(FRESH, "1")
    own = shown(folder, how, status, **more)
    assert forked[1] == own[1]
    assert forked == own
    assert (forked[0], forked[2]) == (status, "あ\n")
    assert forked[1]["zone"] == "JST"


@pytest.mark.parametrize("wrong", ["raise ValueError('no')", "raise SystemExit('ValueError: no')"])
def test_an_error(folder: Path, wrong: str) -> None:
    """Is on standard error, with a status of 1."""
    (folder / "fails.py").write_text(f"{wrong}\n")
    ended = prepared_python.run([sys.executable, "-m", "fails"], cwd=folder, env=os.environ, timeout=60, apart=True)
    assert ended.returncode == 1
    assert (ended.stderr or "").endswith("ValueError: no\n")


def waiting(folder: Path) -> Forked:
    """A forked process that waits, in a group of its own."""
    log = folder / "log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "waits"]
        process = prepared_python.start(
            command, cwd=folder, env=os.environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    assert isinstance(process, Forked)
    wait_until(lambda: "waits" in log.read_text(), 30, "it waits")
    return process


def test_signals(folder: Path) -> None:
    """It ends by them, its number is its own until somebody has asked, and it can be asked again."""
    process = waiting(folder)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM
    assert (process.poll(), process.returncode) == (-signal.SIGTERM, -signal.SIGTERM)
    process.kill()  # nothing, and of no other process
    assert not psutil.pid_exists(process.pid)


def test_a_group_that_is_killed(folder: Path) -> None:
    """Before anybody has seen its end it is a zombie, as a child of this process would be."""
    process = waiting(folder)
    os.killpg(process.pid, signal.SIGKILL)
    status = psutil.Process(process.pid)
    wait_until(lambda: status.status() == psutil.STATUS_ZOMBIE, 30, "it is dead")
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONWARNINGS", "OTEL_SERVICE_NAME"])
def test_what_is_read_at_import(folder: Path, name: str) -> None:
    """A process with such a variable is one of its own."""
    environment = {**os.environ, name: ""}
    with (folder / "log").open("w") as output:
        command = [sys.executable, "-m", "fails"]
        process = prepared_python.start(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    assert isinstance(process, subprocess.Popen)
    assert process.wait(30) == 1
