"""Applications and worker processes for tests: real ones, which leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psutil
from celery import _state
from kombu import pools
from redis.exceptions import TimeoutError as RedisTimeout

from conventions import Settings, create_app
from conventions.app import ConventionsApp
from conventions.core.named_keys import new_key
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.storage import redis_store
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow
from conventions.tasks import owners
from tests import prepared_python
from tests.shared_tasks import show
from tests.stored_messages import stored
from tests.support import patient, wait_until

KEYS = new_key("tests")  # nearly all tests sign their messages, as production does
AUDIT_KEYS = new_key("audit")  # and each worker of an installation seals the audit
ROOT = Path(__file__).parents[1]
SCAN = 10_000  # keys for each question
APPLICATION = """\
from conventions import create_app

app = create_app("tests", packages={packages!r}, schedule=None)
"""


@contextmanager
def remembering_current() -> Iterator[None]:
    """Put back, at the end, which application is the current one."""
    default, current, stores = _state.default_app, _state._tls.current_app, list(redis_store._current)
    owning = list(owners._owners)
    try:
        yield
    finally:
        _state.set_default_app(default)
        _state._set_current_app(current)
        redis_store._current[:] = stores
        owners._owners[:] = owning


def forget_applications() -> None:
    """Go on as if no other test had made one: a class that is in no package belongs to the only one that there is."""
    owners._owners.clear()


@contextmanager
def acting_through(app: ConventionsApp) -> Iterator[None]:
    """Make this application the current one for the block."""
    with remembering_current():
        forget_applications()
        owners.add_owner(app)
        app.set_current()
        app.set_default()
        redis_store.set_current(lambda: app.store)
        yield


@contextmanager
def application(
    packages: Sequence[str] = ("tests.support",), *, settings_class: Any = Settings, **settings: Any
) -> Iterator[ConventionsApp]:
    """An application that is the current one within the block, and closed after it.

    Unless packages are named, it has the tasks of the test's module and of what that imports, and imports no others. On a busy machine
    its sends are more patient than the setting is: a process that gets no processor for 3 s says that the broker did not answer.
    """
    show(packages)
    settings = {"broker_timeout": patient(3)} | settings
    with remembering_current():
        forget_applications()
        app = create_app(
            "tests", packages=packages, schedule=None, settings_class=settings_class, set_as_current=True, **settings
        )
        try:
            yield app
        finally:
            close(app)


def close(app: Any) -> None:
    """Close the connections of an application, ours or a bare one."""
    for holder in (app, app._local):
        backend = vars(holder).get("_backend_cache") or vars(holder).get("backend")
        if hasattr(
            backend, "result_consumer"
        ):  # a result that a failed test still holds would unsubscribe after the server is gone
            backend.result_consumer.subscribed_to.clear()
            backend.result_consumer.stop()
    if "in_flight" in vars(app):
        app.in_flight.stop()
    owner = app if hasattr(app, "takes_place") else None  # of bare ones, all that are there
    for group in (pools.producers, pools.connections):  # which keep whatever an application has opened, and so itself
        for key, pool in list(group.items()):
            connection = pool.connections.connection if group is pools.producers else pool.connection
            if getattr((connection.transport_options or {}).get("link"), "app", None) is owner:
                group.pop(key).force_close_all()
    if "database" in vars(app):
        app.database.dispose()
    if "store" in vars(app):
        app.store.redis.close()
    if "broker" in vars(app):
        app.broker.store.redis.close()
    app.close()


@dataclass(frozen=True)
class Sent:
    """A message that is in the broker: waiting, delayed, or held by a worker."""

    id: str
    task: str
    queue: str
    priority: int
    arguments: dict[str, Any]
    headers: dict[str, Any]
    following: dict[str, Any]


def messages(app: ConventionsApp) -> list[Sent]:
    """Every message of an application in the broker, in no order."""
    found, store = [], app.broker.store
    prefix = f"{store.key('message')}:"
    for key in store.redis.scan_iter(match=f"{prefix}*", count=SCAN):
        raw = stored(store, key.decode().removeprefix(prefix)).get("payload")
        if raw is None:  # acknowledged since
            continue
        message = json.loads(raw)
        headers, properties = message["headers"], message["properties"]
        _, arguments, following = json.loads(b64decode(message["body"]))
        queue, priority = properties["delivery_info"]["routing_key"], properties["priority"]
        found.append(Sent(headers["id"], headers["task"], queue, priority, arguments, headers, following))
    return found


class Broker(Protocol):
    """A server that can tell what it still has."""

    def left(self) -> list[str]:
        """What is not done."""


def wait_until_empty(app: ConventionsApp, timeout: float = 30, servers: Sequence[Broker] = ()) -> None:
    """Wait until every message was acknowledged. Raises: AssertionError with those that are left.

    `servers` are asked, too: only they know of messages that are not in a Redis.
    """

    def left() -> Sequence[Any]:
        try:
            return messages(app) or [one for server in servers for one in server.left()]
        except (
            RedisTimeout,
            LookupError,
            TypeError,
            ValueError,
        ) as error:  # on a busy machine; a message that a test has forged
            return [error]

    try:
        wait_until(lambda: not left(), timeout)
    except AssertionError as error:
        raise AssertionError(f"not acknowledged within {timeout:g} s: {left()}") from error


def forget(store: Store, *what: str) -> None:
    """Delete what an application has in Redis, or a part of it, such as `claim`.

    Whoever looks for keys on the shared server looks through all of them.
    """
    keys = list(store.redis.scan_iter(match=store.key(*what, "*"), count=SCAN))
    if keys:
        store.redis.unlink(*keys)


class Installation:
    """An application in a folder of its own, as a team runs it: processes are started there, tests send from here.

    Args:
        folder: where it lives, and the current folder of its processes.
        packages: its task packages, importable from `paths`.
        paths: folders to import from.
        settings_class: of its settings.
        settings: fields of that, given to `create_app` here and as environment to the processes.
    """

    def __init__(
        self,
        folder: Path,
        packages: Sequence[str],
        paths: Sequence[Path] = (),
        *,
        settings_class: Any = Settings,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.settings = {"key_prefix": f"t{uuid4().hex[:8]}", "message_keys": KEYS, "audit_keys": AUDIT_KEYS} | settings
        self.packages = tuple(packages)
        self._paths = (folder, *paths, ROOT)
        self.settings_class = settings_class
        text = APPLICATION.format(packages=self.packages)
        if settings_class is not Settings:  # a release of before knows of none
            module, name = settings_class.__module__, settings_class.__name__
            text = f"from {module} import {name}\n" + text.replace(
                "schedule=None", f"schedule=None, settings_class={name}"
            )
        (folder / "installed.py").write_text(text, encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its processes; those of the tests' own environment are left out."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")}
        ours = {f"CONVENTIONS_{name.upper()}": str(value) for name, value in self.settings.items() if value is not None}
        return outer | ours | {"PYTHONPATH": os.pathsep.join(map(str, self._paths)), "NO_COLOR": "1"}

    @contextmanager
    def application(self) -> Iterator[ConventionsApp]:
        """Its application within this process, the current one within the block."""
        with application(self.packages, settings_class=self.settings_class, **self.settings) as app:
            yield app

    def celery(self, *arguments: str, app: str = "installed") -> list[str]:
        """The command line `celery -A installed …`."""
        return [sys.executable, "-m", "celery", "-A", app, *arguments]

    def run(self, *arguments: str, app: str = "installed", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a celery command to its end; standard error is part of the output."""
        return prepared_python.run(
            self.celery(*arguments, app=app), cwd=self.folder, env=self.environment | variables, timeout=patient(60)
        )

    def json(self, *arguments: str, **variables: str) -> Any:
        """The JSON that a celery command prints with `--json`, whatever it says on standard error. Raises: AssertionError: its status is not 0."""
        command = self.celery(*arguments, "--json")
        ended = prepared_python.run(
            command, cwd=self.folder, env=self.environment | variables, timeout=patient(60), apart=True
        )
        assert ended.returncode == 0, ended
        return json.loads(ended.stdout)

    def python(self, program: str, **variables: str) -> str:
        """Run a program to its end; returns what it prints. Raises: AssertionError with its errors."""
        command, environment = [sys.executable, "-c", program], self.environment | variables
        ended = prepared_python.run(command, cwd=self.folder, env=environment, timeout=patient(60), apart=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @contextmanager
    def worker(self, *arguments: str, app: str = "installed", **variables: str) -> Iterator["Worker"]:
        """A worker that is ready; killed at the end, since tests of their own say how it stops."""
        with self.workers(arguments, app=app, **variables) as (worker,):
            yield worker

    @contextmanager
    def workers(self, *each: Sequence[str], app: str = "installed", **variables: str) -> Iterator[list["Worker"]]:
        """Several workers that start at the same time, one for each sequence of arguments."""
        command = self.celery("worker", "--loglevel=INFO", app=app)
        started: list[Worker] = []
        try:
            for number, arguments in enumerate(each):
                name = f"--hostname=worker{number}@%h"
                started.append(Worker(self, [*command, name, *arguments], variables))
            for worker in started:
                worker.wait_until_ready()
            yield started
        finally:
            for worker in started:
                worker.kill()


class Worker:
    """A worker process and its pool, a process group of their own."""

    def __init__(self, installation: Installation, command: list[str], variables: dict[str, str]) -> None:
        self.installation = installation
        self.log = installation.folder / f"worker-{uuid4().hex[:8]}.log"
        with self.log.open("w") as log:
            self.process = prepared_python.start(
                command,
                cwd=installation.folder,
                env=installation.environment | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has logged."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str, timeout: float = 20) -> None:
        """Wait until a text was logged. Raises: AssertionError with all that was logged."""
        try:
            wait_until(lambda: text in self.output or self.process.poll() is not None, timeout, repr(text))
            assert text in self.output, f"the worker ended without {text!r}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from error

    def wait_until_ready(self) -> None:
        """Wait until it consumes."""
        self.wait_for(" ready.", timeout=40)

    def children(self) -> list[psutil.Process]:
        """The living processes of its pool, without the recorder."""
        return [one for one, name in self._children() if name != "recorder"]

    def recorders(self) -> list[psutil.Process]:
        """Its recorder: one, or none for a moment."""
        return [one for one, name in self._children() if name == "recorder"]

    def _children(self) -> list[tuple[psutil.Process, str]]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append((child, child.name()))
        return found

    def stop(self, timeout: float = 20) -> int:
        """Ask it to stop and wait for it; returns the exit status. Raises: TimeoutExpired."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patient(timeout))

    def kill(self) -> int:
        """Kill it and its pool at once, and leave nothing of them; returns the exit status."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


def told(command: Callable[..., Any], *arguments: Any) -> Any:
    """What one worker answers to a remote command, sent until it does: one that has just said `ready` may not listen yet."""
    return wait_until(lambda: command(*arguments, reply=True, timeout=5, limit=1), 30, "the worker answers")


def inspected(app: ConventionsApp, question: str, workers: int = 1) -> dict[str, Any]:
    """What so many workers answer to a question of `celery inspect`, by their names: asked until they do, see `told`."""

    def ask() -> dict[str, Any] | None:
        found = getattr(app.control.inspect(timeout=5, limit=workers), question)() or {}
        return found if len(found) == workers else None

    return wait_until(ask, 30, f"{workers} workers answer {question}")


def letters(app: ConventionsApp, **which: Any) -> list[DeadLetterRow]:
    """The dead letters of an application."""
    with app.database.session() as session:
        found = dead_letters.listing(session, Filter(**which), limit=1000)
        session.expunge_all()
        return list(found)


def wait_for_letter(app: ConventionsApp, message_id: str, timeout: float = 20) -> DeadLetterRow:
    """Wait until a message is a dead letter."""
    return wait_until(
        lambda: next((letter for letter in letters(app, state=None) if letter.id == message_id), None),
        timeout,
        f"{message_id} is a dead letter",
    )
