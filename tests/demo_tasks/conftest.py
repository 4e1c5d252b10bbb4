"""An application with a database, a mail server and a webhook receiver of its own, all real."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import celery
import pytest
from aiosmtpd.controller import Controller

from conventions import create_app
from conventions.app import ConventionsApp
from conventions.storage.database import Database
from tasks.demo_servers import environment
from tasks.settings import TaskSettings
from tasks.tables import Contact

MIGRATIONS = Path(__file__).parents[2] / "tasks" / "migrations"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'business.sqlite3'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database, of each kind in turn."""
    database = Database(database_url, [MIGRATIONS])
    database.upgrade()
    yield database
    database.dispose()


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the mail server and the webhook receiver keep what they take."""
    with environment(tmp_path) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield tmp_path


@pytest.fixture
def make_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ConventionsApp]]:
    """Make an application with these settings, in an empty folder, with a migrated database."""
    monkeypatch.chdir(tmp_path)
    made: list[ConventionsApp] = []
    before = celery.current_app._get_current_object()

    def make(**settings: Any) -> ConventionsApp:
        defaults = {
            "broker_url": "memory://",
            "redis_url": "redis://127.0.0.1:1",  # nobody is there: these tests need none
            "database_url": f"sqlite:///{tmp_path / 'business.sqlite3'}",
            "output_dir": str(tmp_path / "output"),
        }
        app = create_app("tasks", schedule=None, settings_class=TaskSettings, **(defaults | settings))
        app.load_tasks()
        app.database.upgrade()
        made.append(app)
        return app

    yield make
    for app in made:
        app.database.dispose()
        app.close()
    before.set_current()


@pytest.fixture
def app(make_app: Callable[..., ConventionsApp]) -> ConventionsApp:
    """An application with the default settings."""
    return make_app()


@pytest.fixture
def add_contact() -> Callable[..., int]:
    """Put one contact into an application's database and return its id."""

    def add(database: Database, email: str, name: str = "Operations desk HND", **values: Any) -> int:
        now = datetime.now(UTC)
        contact = Contact(email=email, name=name, **({"created_at": now, "updated_at": now} | values))
        with database.session() as session:
            session.add(contact)
            session.flush()
            return contact.id

    return add


@pytest.fixture
def mail_server() -> Iterator[Callable[[Any], int]]:
    """Run a mail server with the given handler and return its port."""
    running: list[Controller] = []

    def run(handler: Any) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        controller = Controller(handler, hostname="127.0.0.1", port=port)
        controller.start()
        running.append(controller)
        return port

    yield run
    for controller in running:
        controller.stop()
