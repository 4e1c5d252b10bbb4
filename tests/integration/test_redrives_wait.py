"""Redrives of a queue that nobody reads hold no process: a worker of one process goes on with all else (R18)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conventions import BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.old_redrive_task import SendDeadLetters
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.redrive_status import RedriveStatus, Watch
from conventions.records import executions
from conventions.storage.tables import RedriveRow
from tests.redriving import begin
from tests.support import wait_until
from tests.workers import Installation, letters, messages, told

REDRIVES = 11


class Pay(ImmediateTask):
    """Pay one bill, once the bank is open."""

    idempotent_on = ("bill",)
    queue_name = "bank"
    retry_policy = RetryPolicy(attempts=1)

    def run(self, bill: int, folder: str) -> None:
        """Write one line."""
        if not (Path(folder) / "open").exists():
            raise BusinessError("the bank is closed")
        with (Path(folder) / "paid").open("a") as file:
            file.write(f"{bill}\n")


class Greet(ImmediateTask):
    """Another job, of another queue."""

    idempotent_on = ("name",)

    def run(self, name: str, folder: str) -> None:
        """Leave a file."""
        (Path(folder) / name).touch()


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """The tasks of this module, on a database of each kind in turn."""
    url = new_database(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_postgres_url")
    return Installation(tmp_path, [__name__], [Path(__file__).parent], broker_url=valkey_url, database_url=url)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        app.load_tasks()
        yield app


def statuses(app: ConventionsApp) -> list[RedriveStatus]:
    """All redrives, as people see them."""
    watch = Watch(app)
    with app.database.session(read_only=True) as session:
        found = watch.look(redrive_rows.listing(session, 99), session)
        session.expunge_all()
    return watch.explain(found)


def left_by_the_task_of_before(app: ConventionsApp, letter: str) -> Any:
    """A redrive that a worker of the version before had begun: its row, and its message on `long`."""
    with app.database.session() as session:
        row = redrive_rows.start(session, RedriveOrder(Filter(ids=(letter,)), "u-9"))
        row.state = "canary"
        id_ = row.id
    return SendDeadLetters.delay(redrive_id=id_)


def test_eleven_redrives_on_a_paused_queue(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """They wait, and say why; other jobs run; all of them finish once the queue is read again, each effect once.

    One of them was begun by the version before.
    """
    with installation.worker("-c", "1") as worker:
        for bill in range(REDRIVES):
            Pay.delay(bill=bill, folder=str(tmp_path))
        wait_until(lambda: len(letters(app)) == REDRIVES, 60)
        told(app.control.cancel_consumer, "bank")
        (tmp_path / "open").touch()
        old, *others = [letter.id for letter in letters(app)]
        message = left_by_the_task_of_before(app, old)
        for letter in others:
            begin(app, RedriveOrder(Filter(ids=(letter,)), "u-9"))

        wait_until(lambda: sum(one.queue == "bank" for one in messages(app)) == REDRIVES, 60, "the canaries are sent")
        Greet.delay(name="hello", folder=str(tmp_path))
        wait_until((tmp_path / "hello").exists, 20, "another job runs")
        why = "queue bank has 11 waiting, and no worker consumes it"
        found = wait_until(
            lambda: len(some := [one for one in statuses(app) if why in one.why]) == REDRIVES and some,
            20,
            "each says why it waits",
        )
        assert {(one.row.state, one.counts.unanswered) for one in found} == {("canary", 1)}
        listed = installation.run("dead-letters", "redrives", "--json").stdout
        assert listed.count("no worker consumes it") == REDRIVES, listed

        told(app.control.add_consumer, "bank")
        wait_until(lambda: {one.row.state for one in statuses(app)} == {"finished"}, 60, "all of them finish")
        paid = (tmp_path / "paid").read_text().split()
        assert sorted(map(int, paid)) == list(range(REDRIVES)), worker.output

        def ended() -> list[tuple[str, str | None]]:
            with app.database.session() as session:
                return [(one.kind, one.task) for one in executions.of_message(session, message.id)]

        assert wait_until(ended) == [("succeeded", SendDeadLetters.name)], "its message ended, without effect"
        with app.database.session() as session:
            assert all(row.failed == 0 for row in session.query(RedriveRow))
