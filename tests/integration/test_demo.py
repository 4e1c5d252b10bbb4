"""`celery -A <app> demo` with real processes and a scenario that is not ours."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stack_app import StackApp
from tests.support import wait_until

DEMO = '''
"""A scenario whose end is chosen by a variable."""
import os, time
from contextlib import contextmanager
from pathlib import Path
from conventions.demo import Outcome
from jobs.work import Leave


@contextmanager
def environment(folder):
    yield {"CONVENTIONS_START_LIMIT": "25"}
    Path("left").touch()


def scenario(app, console, folder):
    end = os.environ["DEMO_END"]
    if end == "error":
        raise ValueError("no such file: input.csv")
    assert app.settings.start_limit == 25
    Leave.delay(end)
    while not Path(f"{end}.done").exists():
        time.sleep(0.05)
    yield Outcome("leave", sent=1, done=1, failed=0, expected_failed=0, seconds=0.5)
    yield Outcome("refuse", sent=3000, done=2999, failed=1, expected_failed=1 if end == "good" else 0, seconds=10)
'''


@pytest.fixture(scope="module")
def app() -> Iterator[StackApp]:
    """An app with a demo; its folder keeps what the earlier tests left."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    app = StackApp(folder)
    app.environment["CONVENTIONS_CONCURRENCY"] = "1"
    app.write("jobs/demo.py", DEMO)
    yield app
    shutil.rmtree(folder)


def test_the_demo_ends_with_a_table_and_stays_up_until_ctrl_c(app: StackApp) -> None:
    """The scenario has its environment, its jobs run, the logs are in files; a second stack is refused."""
    app.environment["DEMO_END"] = "good"
    with app.running("demo") as running:
        running.stack()
        running.wait_for("Ctrl-C to stop")
        refused = app.run("demo")
        assert refused.returncode == 2
        assert f"process {running.process.pid};" in refused.stdout
        assert running.interrupt() == 0, running.output
        wait_until(lambda: not running.services(), description="nothing left")
    assert "1 (expected)" in running.output
    assert "2,999" in running.output
    assert "300.0" in running.output
    assert running.stack_found.flower_url
    assert running.stack_found.flower_url in running.output
    assert "ready." in (app.conventions / "logs" / "worker.log").read_text()
    assert (app.folder / "left").exists(), "the environment was left"


def test_a_second_demo_that_is_not_as_expected_ends_with_1(app: StackApp) -> None:
    """With --exit it does not wait, and says which job and where to look."""
    app.environment["DEMO_END"] = "bad"
    demo = app.run("demo", "--exit")
    assert demo.returncode == 1, demo.stdout
    assert "Not as expected: refuse. The logs are in .conventions/logs." in demo.stdout
    assert "Ctrl-C" not in demo.stdout


def test_a_scenario_that_raises_ends_with_one_line_and_1(app: StackApp) -> None:
    """The error is one line, its traceback is in a log."""
    app.environment["DEMO_END"] = "error"
    demo = app.run("demo", "--exit")
    assert demo.returncode == 1
    assert "The demo failed: ValueError: no such file: input.csv" in demo.stdout
    assert "Traceback" not in demo.stdout
    assert "Traceback" in (app.conventions / "logs" / "demo.log").read_text()


def test_an_app_without_a_demo_is_told_so(tmp_path: Path) -> None:
    """One line that names the missing module, and status 2."""
    demo = StackApp(tmp_path / "app").run("demo")
    assert demo.returncode == 2
    assert demo.stdout.splitlines()[-1] == "Error: this app has no demo: there is no module jobs.demo"


def test_a_service_that_dies_is_not_as_expected(app: StackApp) -> None:
    """When every job is right but beat cannot run, the demo says so and ends with 1."""
    app.environment["DEMO_END"] = "good"
    app.write("beat_schedule.py", "raise RuntimeError\n")
    demo = app.run("demo", "--exit")
    assert demo.returncode == 1
    assert "Not as expected: beat ended by itself. The logs are in .conventions/logs." in demo.stdout
    assert "beat_schedule.py, line 1" in (app.conventions / "logs" / "beat.log").read_text()
