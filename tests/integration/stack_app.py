"""A small app in a folder of its own, and the commands `up` and `demo` run in it as a user does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from conventions import create_app
from conventions.stack.folder import MESSAGE_KEY, Stack, find, key_of_stacks
from tests.support import patient, wait_until

INIT = """
from conventions import create_app

app = create_app("jobs")
"""

WORK = '''
"""Jobs that leave a file."""
import time
from pathlib import Path
from conventions import ImmediateTask


class Leave(ImmediateTask):
    """Leave a file when started, and another one after some seconds or when told to go on."""

    not_idempotent = "every message leaves its files"

    def run(self, name: str, seconds: float = 0) -> None:
        Path(f"{name}.started").write_text("VERSION")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not Path(f"{name}.go").exists():
            time.sleep(0.05)
        Path(f"{name}.done").write_text("VERSION")
'''

SEND = "import sys; from jobs.work import Leave; Leave.delay(sys.argv[1])"


class StackApp:
    """The app's folder."""

    def __init__(self, folder: Path, python: Path | str = sys.executable) -> None:
        self.folder = folder
        self._python = str(python)
        self.conventions = folder / ".conventions"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")},
            "NO_COLOR": "1",
        }
        (folder / "jobs").mkdir(parents=True)
        self.write("jobs/__init__.py", INIT)
        self.write_work("first")

    def write(self, name: str, text: str) -> None:
        """Write a file of the app."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def write_work(self, version: str) -> None:
        """Write the tasks; the files they leave hold the version."""
        self.write("jobs/work.py", WORK.replace("VERSION", version))

    def celery(self, *arguments: str) -> list[str]:
        """The command line."""
        return [self._python, "-m", "celery", "-A", "jobs", *arguments]

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.celery(*arguments),
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patient(timeout),
            check=False,
        )

    @contextmanager
    def running(self, *arguments: str) -> Iterator["Running"]:
        """Run a command in the background; whatever is left of it at the end is killed."""
        running = Running(self, *arguments)
        try:
            yield running
        finally:
            running.kill_all()

    def send(self, name: str, seconds: float = 0) -> None:
        """Send a job from this process."""
        stack = wait_until(lambda: find(self.conventions), description="an embedded stack")
        keys = key_of_stacks(MESSAGE_KEY, self.conventions)
        with create_app("sender", packages=[], schedule=None, broker_url=stack.broker_url, message_keys=keys) as sender:
            sender.send_task("jobs.work.Leave", kwargs={"name": name, "seconds": seconds}, queue="immediate")

    def send_from_elsewhere(self, name: str) -> None:
        """Send a job by the class, as another program in the folder does."""
        command = [sys.executable, "-c", SEND, name]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=patient(30))

    def left(self, name: str, timeout: float = 20) -> str:
        """Wait for the file that a job leaves; returns the version that wrote it."""
        path = self.folder / name
        return wait_until(lambda: path.exists() and path.read_text(), timeout, f"{name} is left by a job")


class Running:
    """A command that runs."""

    def __init__(self, app: StackApp, *arguments: str) -> None:
        self.log = app.folder / f"{arguments[0]}.out"
        self._app = app
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                app.celery(*arguments), cwd=app.folder, env=app.environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.group = 0
        self.stack_found: Stack

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, count: int = 1, timeout: float = 40) -> None:
        """Wait until a text was printed so often. Raises: AssertionError with all that was printed."""
        try:
            wait_until(lambda: self.output.count(text) >= count, timeout, f"{count} x {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def stack(self) -> Stack:
        """Wait for the embedded stack of this process, and note the group of its services."""
        found = self.stack_found = wait_until(lambda: find(self._app.conventions), description="an embedded stack")
        assert found.pid == self.process.pid
        children = psutil.Process(self.process.pid).children()
        self.group = next(child.pid for child in children if "guardian.py" in " ".join(child.cmdline()))
        return found

    def services(self) -> list[psutil.Process]:
        """The living processes of the services' group."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) == self.group and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """The main processes of its workers."""
        parents = [child.pid for child in psutil.Process(self.process.pid).children()]
        return [process for process in self.services() if process.pid in parents and "worker" in process.cmdline()]

    def interrupt(self) -> int:
        """Press Ctrl-C and wait for the end; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=patient(20))

    def kill_all(self) -> None:
        """Leave nothing."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.group and self.services():
            with suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
