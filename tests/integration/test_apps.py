"""A team's own application, outside of this repository, by the command line; and what its mistakes look like."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support import patient, wait_until
from tests.workers import Installation

TASKS = '''
"""The tasks of a team."""
from pathlib import Path

from conventions import EVERY_ARGUMENT, ImmediateTask, LongRunningTask, ScheduledTask


class Touch(ImmediateTask):
    """Leave a file."""

    queue_name = "touch"
    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        file.touch()


class Nightly(ScheduledTask):
    """Leave a file at night."""

    def run(self, file: Path) -> None:
        file.touch()


class Rebuild(LongRunningTask):
    """Leave a file after a long time."""

    idempotent_on = ("file",)

    def run(self, file: Path) -> None:
        self.progress.advance()
        file.touch()
'''

SEND = """
from pathlib import Path

import guest.jobs
import mine.jobs

for jobs in (mine.jobs, guest.jobs):
    package = jobs.__name__.partition(".")[0]
    for task, name in ((jobs.Touch, "touched"), (jobs.Nightly, "nightly"), (jobs.Rebuild, "rebuilt")):
        task.delay(Path(f"{package}-{name}").absolute())
"""

UNDECIDED = """\
from conventions import ImmediateTask


class Undecided(ImmediateTask):
    '''Do something.'''

    def run(self, number: int) -> None: ...
"""


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, making the folders on the way."""
    for name, code in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(code), encoding="utf-8")


@pytest.fixture
def mine(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """A folder with the package `mine`, which makes an application; nothing of this repository but `conventions`."""
    init = 'from conventions import create_app\n\napp = create_app("mine", packages=["mine"])\n'
    write(tmp_path, {"mine/__init__.py": init, "mine/jobs.py": TASKS})
    return Installation(tmp_path, ["mine"], broker_url=valkey_url, database_url=new_database(tmp_path))


def test_packages_of_a_team(mine: Installation) -> None:
    """One that makes an application by `create_app("mine", packages=["mine"])`, and one that the setting adds."""
    write(mine.folder, {"guest/__init__.py": "import mine\n", "guest/jobs.py": TASKS})
    mine.settings["task_packages"] = "guest"
    with mine.worker("-c", "2", app="mine"):
        send = [sys.executable, "-c", SEND]
        subprocess.run(send, cwd=mine.folder, env=mine.environment, check=True, timeout=patient(60))
        for package in ("mine", "guest"):
            for name in ("touched", "nightly", "rebuilt"):
                wait_until((mine.folder / f"{package}-{name}").exists, description=f"{name} of {package}")


def test_a_broken_module_stops_a_worker(mine: Installation) -> None:
    """One line with the module, the file, the line, and what to write; status 2; no traceback."""
    write(mine.folder, {"mine/undecided.py": UNDECIDED})
    result = mine.run("worker", app="mine")
    assert result.returncode == 2, result.stdout
    (line,) = [line for line in result.stdout.splitlines() if "Undecided" in line]
    assert line.startswith(f"Error: mine.undecided ({mine.folder}/mine/undecided.py, line 4): Undecided: ")
    assert 'write idempotent_on = ("number",)' in line
    assert "Traceback" not in result.stdout


def test_wrong_settings_stop_a_command(mine: Installation) -> None:
    """Every fault at once; status 2; no traceback."""
    faults = {
        "CONVENTIONS_TIMEZONE": "Mars/Olympus",
        "CONVENTIONS_CONCURRENCY": "many",
        "CONVENTIONS_DATABASE_URL": "mysql://x",
    }
    for result in at_once(mine, ("worker",), ("beat",), **faults):
        assert result.returncode == 2, result.stdout
        for variable in faults:
            assert result.stdout.count(f"{variable}: ") == 1, result.stdout
        assert "Traceback" not in result.stdout


def test_without_a_broker_a_command_says_what_to_do(mine: Installation) -> None:
    """One line; status 2; no traceback."""
    del mine.settings["broker_url"]
    line = "Error: no broker: start one here with `celery -A mine up`, or set CONVENTIONS_BROKER_URL"
    for result in at_once(mine, ("worker",), ("inspect", "ping"), ("flower", "--port=0")):
        assert result.returncode == 2, result.stdout
        assert result.stdout.splitlines()[-1] == line, result.stdout
        assert "Traceback" not in result.stdout


def at_once(
    installation: Installation, *commands: tuple[str, ...], **variables: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run several commands at the same time."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda command: installation.run(*command, app="mine", **variables), commands))
