"""A send that is refused for safety is in the audit, and its error is the same (R20, R22)."""

# pytest passes fixtures as arguments of their names

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from conventions import CredentialInPayload, ImmediateTask, PermissionDenied, acting_as
from conventions.app import ConventionsApp
from conventions.recording.recorder import Recorder
from conventions.records.journal import Journal
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow
from tests.recorded import contents
from tests.workers import KEYS, application

SECRET = "ghp_" + "a1B2c3D4e5F6" * 3  # a shape of GitHub's tokens


class Told(ImmediateTask):
    """Takes a text."""

    idempotent_on = ("text",)

    def run(self, text: str) -> None:
        """Nothing."""


class Watched(ImmediateTask):
    """Requires a permission."""

    idempotent_on = ("number",)
    requires = "report:read"

    def run(self, number: int) -> None:
        """Nothing."""


@pytest.fixture
def app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with these tasks, and a function."""
    with application(
        broker_url=valkey_url,
        database_url=new_database(tmp_path),
        key_prefix=f"r{tmp_path.name[:20]}",
        message_keys=KEYS,
    ) as app:

        @app.task(name="tests.plain_text")
        def plain(text: str) -> None:
            """Nothing."""

        yield app


def refused(app: ConventionsApp) -> list[tuple[str, str, str, int]]:
    """Actor, target, class of the error and count of each row."""
    while Recorder(app.store, lambda: app.database).drain_once():
        pass
    rows = [row for row in contents(app.database, AuditRow) if row["action"] == "send refused"]
    assert SECRET not in str(rows)
    return sorted((row["actor"], row["target"], row["after"]["error"], row["after"]["count"]) for row in rows)


SENDS: dict[str, Callable[[ConventionsApp], Any]] = {
    "delay": lambda _: Told.delay(text=SECRET),
    "apply_async": lambda _: Told.apply_async(kwargs={"text": SECRET}),
    "many": lambda _: Told.enqueue_many([{"text": "fine"}, {"text": SECRET}]),
    "by name": lambda app: app.send_task(Told.name, kwargs={"text": SECRET}),
    "unknown": lambda app: app.send_task("tests.elsewhere", kwargs={"text": SECRET}),
    "function": lambda app: app.tasks["tests.plain_text"].delay(SECRET),
    "link": lambda _: Told.apply_async(kwargs={"text": "fine"}, link=Told.si(text=SECRET)),
    "chain": lambda _: chain(Told.si(text="fine"), Told.si(text=SECRET)).apply_async(),
    "key": lambda _: Told.apply_async(kwargs={"text": "fine"}, idempotency_key=SECRET),
}


@pytest.mark.parametrize("way", SENDS)
def test_a_credential(app: ConventionsApp, way: str) -> None:
    """Whichever way it is sent: one row, of who sent it, without the value."""
    with acting_as("u-9"), pytest.raises(CredentialInPayload):
        SENDS[way](app)
    ((actor, _, error, count),) = refused(app)
    assert (actor, error, count) == ("u-9", "CredentialInPayload", 1)


def test_equal_ones_are_one_row(app: ConventionsApp) -> None:
    """A loop of them hides nothing else."""
    for _ in range(50):
        with pytest.raises(CredentialInPayload):
            Told.apply_async(kwargs={"text": SECRET}, actor="u-3")
    found = refused(app)
    assert {row[:3] for row in found} == {("u-3", Told.name, "CredentialInPayload")}
    assert sum(row[3] for row in found) == 50
    assert len(found) <= 2, "a minute may have ended meanwhile"


def test_nobody_is_named(app: ConventionsApp) -> None:
    """Of a task that requires a permission."""
    for send in (lambda: Watched.delay(number=1), lambda: Watched.enqueue_many([{"number": 1}])):
        with pytest.raises(PermissionDenied):
            send()
    assert [row[:3] for row in refused(app)] == [("system", Watched.name, "PermissionDenied")]


def test_what_is_wrong_otherwise_is_no_matter_of_the_audit(app: ConventionsApp) -> None:
    """An error of a programmer."""
    with pytest.raises(TypeError):
        Told.delay(nothing="x")  # type: ignore[call-arg]  # that is the test
    assert refused(app) == []


def test_redis_is_away(app: ConventionsApp, caplog: pytest.LogCaptureFixture) -> None:
    """The error of the send goes on."""
    vars(app)["journal"] = Journal(Store("redis://127.0.0.1:1/0", "away", patience=0.1))
    with pytest.raises(CredentialInPayload):
        Told.delay(text=SECRET)
    assert "is not in the audit" in caplog.text
