"""The sub-commands as a shell runs them: entry points, standard output and error apart, exit status."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import patient
from tests.workers import Installation


@pytest.fixture
def shell(installation: Installation) -> "Shell":
    """A folder with an application."""
    (installation.folder / "jobs.py").write_text(
        'from conventions import ImmediateTask\n\n\nprint("on import")\n\n\nclass Send(ImmediateTask):\n'
        '    """Send."""\n\n    not_idempotent = "a test"\n\n    def run(self) -> None: ...\n',
        encoding="utf-8",
    )
    (installation.folder / "mine.py").write_text(
        'from conventions import create_app\n\napp = create_app("mine", packages=["jobs"], schedule=None)\n',
        encoding="utf-8",
    )
    return Shell(installation)


class Shell:
    """Runs commands."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `celery -A mine …` to its end."""
        return subprocess.run(
            self._installation.celery(*arguments, app="mine"),
            cwd=self._installation.folder,
            env=self._installation.environment | variables,
            text=True,
            capture_output=True,
            timeout=patient(60),
            check=False,
        )


def test_json_is_alone_on_standard_output(shell: Shell) -> None:
    """Nothing but JSON, whatever Celery has to say at its start."""
    result = shell.run("dead-letters", "list", "--json")
    assert (result.returncode, json.loads(result.stdout)) == (0, []), result.stderr


def test_a_wrong_configuration_is_reported_whole(shell: Shell) -> None:
    """Every fault in one run, status 2, no traceback, nothing on standard output."""
    result = shell.run("dead-letters", "list", CONVENTIONS_LEASE="soon", CONVENTIONS_TIMEZONE="Asia/Edo")
    assert (result.returncode, result.stdout) == (2, "")
    assert "CONVENTIONS_LEASE" in result.stderr
    assert "CONVENTIONS_TIMEZONE" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_broker_one_line_says_what_to_do(shell: Shell) -> None:
    """Nothing configured and nothing running in this folder."""
    result = shell.run("batch", "list", "--json", CONVENTIONS_BROKER_URL="")
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "celery -A mine up" in line
    assert "CONVENTIONS_BROKER_URL" in line


def test_a_broken_task_module_is_named_with_its_line(shell: Shell, installation: Installation) -> None:
    """Status 2 from a command that needs the tasks; no traceback."""
    (installation.folder / "jobs.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    result = shell.run("explain", "Send", "ValueError")
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{Path('jobs.py')}, line 1" in result.stderr
    assert "Traceback" not in result.stderr
