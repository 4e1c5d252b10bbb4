"""`pip install celery-conventions` alone: what runs without Flower, PostgreSQL's driver, holidays and watched files, and what says so."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.stack_app import StackApp
from tests.plain_install import make_plain_install
from tests.support import patient


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of such an environment."""
    return make_plain_install(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def app(python: Path) -> Iterator[StackApp]:
    """An app that runs there, in a folder with a short path, so that the socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="plain-") as folder:
        yield StackApp(Path(folder), python)


def test_the_stack_runs_and_names_what_it_does_without(app: StackApp) -> None:
    """Jobs run, a schedule is due, and Flower and the reload are named with what installs them."""
    with app.running("up", "--concurrency", "1") as running:
        running.stack()
        running.wait_for("Flower     flower is not installed: pip install 'celery-conventions[flower]'")
        running.wait_for(
            "changed files are not noticed: watchfiles is not installed: pip install 'celery-conventions[watchfiles]'"
        )
        app.send("job")
        assert app.left("job.done") == "first"
        assert running.interrupt() == 0
        assert "flower    |" not in running.output


def test_a_port_for_a_flower_that_is_not_there(app: StackApp) -> None:
    """Whoever names a port wants that Flower: refused."""
    refused = app.run("up", "--port", "5555")
    assert refused.returncode == 2
    assert "Error: --port: flower is not installed: pip install 'celery-conventions[flower]'" in refused.stdout


@pytest.mark.parametrize("arguments", [(), ("--port=5555", "--address=127.0.0.1")])
def test_the_command_of_flower(app: StackApp, arguments: tuple[str, ...]) -> None:
    """Celery alone says that there is no such command."""
    refused = app.run("flower", *arguments)
    assert refused.returncode == 2
    assert refused.stdout == "Error: flower is not installed: pip install 'celery-conventions[flower]'\n"


@pytest.mark.parametrize(
    "command",
    [
        ("audit", "list"),
        ("jobs", "list", "--arg", "name=x"),
        ("batch", "list"),
        ("now",),
        ("dead-letters", "list"),
        ("schedule", "list"),
        ("keys", "new", "k"),
    ],
)
def test_commands_without_flower(app: StackApp, valkey_url: str, command: tuple[str, ...]) -> None:
    """Whatever pages share with them."""
    app.environment |= {"CONVENTIONS_BROKER_URL": valkey_url, "CONVENTIONS_KEY_PREFIX": "plain"}
    assert app.run("db", "upgrade").returncode == 0
    told = app.run(*command)
    assert told.returncode in (0, 1), told.stdout  # `now`: no worker runs
    assert "Traceback" not in told.stdout, told.stdout


def test_a_key_is_made_where_nothing_is_configured(app: StackApp) -> None:
    """It is the first thing that somebody does."""
    told = app.run("keys", "new", "2026-12")
    assert told.returncode == 0, told.stdout
    assert told.stdout.startswith("2026-12:")
    assert app.run("keys", "new", "plain").returncode == 2


@pytest.mark.parametrize(
    "command", [("db", "upgrade"), ("worker",), ("beat",), ("job", "m1"), ("dead-letters", "list")]
)
def test_postgresql_without_its_driver(app: StackApp, valkey_url: str, command: tuple[str, ...]) -> None:
    """What needs SQL ends in one line; the address is not shown."""
    app.environment |= {
        "CONVENTIONS_DATABASE_URL": "postgresql://shop:hidden@127.0.0.1:1/shop",
        "CONVENTIONS_BROKER_URL": valkey_url,
        "CONVENTIONS_KEY_PREFIX": "plain",
    }
    refused = app.run(*command)
    assert refused.returncode == 2, refused.stdout
    fault = "the database is PostgreSQL, and its driver cannot be used: psycopg is not installed: pip install 'celery-conventions[psycopg]'"
    assert fault in refused.stdout
    assert "Traceback" not in refused.stdout
    assert "hidden" not in refused.stdout


def test_japanese_business_days_without_holidays(python: Path) -> None:
    """The schedule is refused where it is written, not at nine o'clock."""
    code = "from conventions import cron, japanese_business_days; cron('0 9 * * *', only=japanese_business_days)"
    refused = subprocess.run([python, "-c", code], text=True, stderr=subprocess.PIPE, check=False, timeout=patient(30))
    assert refused.stderr.splitlines()[-1] == (
        "conventions.core.errors.ScheduleError: japanese_business_days cannot know the holidays: holidays is not installed: "
        "pip install 'celery-conventions[holidays]'"
    )
