"""PostgreSQL in place of SQLite: the same worker, the same promises."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.dead_letters.resend import redrive
from conventions.storage.database import Database
from tests.support import patient, wait_until
from tests.workers import Installation, letters, wait_for_letter


class Book(ImmediateTask):
    """Book one order."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, order_id: int) -> str:
        with self.transaction() as session:
            session.execute(text("INSERT INTO bookings (order_id) VALUES (:id)"), {"id": order_id})
            session.info["result"] = self.job.id
        return self.job.id


class Refuse(ImmediateTask):
    """Fail for a business reason until a file is there."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path, text: str) -> None:
        if not file.exists():
            raise BusinessError(text)
        file.with_name("delivered").touch()


class Patient(ImmediateTask):
    """Book one order, in a database that may be failing over."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = RetryPolicy(attempts=1, network_attempts=100, first_wait=0.2, max_wait=0.5)

    def run(self, order_id: int) -> int:
        with self.transaction() as session:
            session.execute(text("INSERT INTO bookings (order_id) VALUES (:id)"), {"id": order_id})
        return self.attempt


@pytest.fixture
def installation(valkey_url: str, postgres_url: str, tmp_path: Path) -> Installation:
    """The tasks of this module, on an empty PostgreSQL database."""
    settings = {"broker_url": valkey_url, "database_url": postgres_url}
    return Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """Its application in this process."""
    with installation.application() as app:
        yield app


def count(app: ConventionsApp, order_id: int) -> int:
    """How often an order was booked."""
    with app.database.session() as session:
        found = session.scalar(text("SELECT count(*) FROM bookings WHERE order_id = :id"), {"id": order_id})
        return int(found or 0)


@pytest.mark.everyday
def test_a_worker_on_postgresql(app: ConventionsApp, installation: Installation, tmp_path: Path) -> None:
    """`db upgrade` makes the tables, twice without harm; effects are single; failures become dead letters."""
    for _ in range(2):
        result = installation.run("db", "upgrade")
        assert result.returncode == 0, result.stdout
    assert {"conventions_idempotency", "conventions_dead_letters"} <= set(
        inspect(app.database.engine).get_table_names()
    )
    with app.database.session() as session:
        session.execute(text("CREATE TABLE bookings (order_id INTEGER NOT NULL)"))
    with installation.worker("-c", "4"):
        bookings = [Book.delay(n % 5) for n in range(20)]
        receipts = [booking.get(timeout=patient(40)) for booking in bookings]
        assert [count(app, n) for n in range(5)] == [1] * 5
        assert receipts[:5] * 4 == receipts

        for key in app.store.redis.scan_iter(match=f"{app.store.key('claim')}:*"):
            app.store.redis.delete(key)
        assert Book.delay(3).get(timeout=patient(10)) == receipts[3]
        assert count(app, 3) == 1, "Redis forgot, the database did not"

        file = tmp_path / "mended"
        message = Refuse.delay(file, "あいう 'quoted'")
        letter = wait_for_letter(app, message.id)
        assert (letter.error, letter.error_message) == ("BusinessError", "あいう 'quoted'")
        assert letter.arguments == {"file": str(file), "text": "あいう 'quoted'"}
        file.touch()
        assert redrive(app, message.id, "ann")
        wait_until(file.with_name("delivered").exists, description="the redriven job ran")


def test_a_fail_over_kills_no_job(app: ConventionsApp, installation: Installation, postgres_url: str) -> None:
    """While the database takes no writes, jobs are tried again as after an error of the network, and the recorder waits."""
    app.database.upgrade()
    with app.database.session() as session:
        session.execute(text("CREATE TABLE bookings (order_id INTEGER NOT NULL)"))
    app.database.dispose()
    server = Database(make_url(postgres_url).set(database="postgres").render_as_string(hide_password=False))
    name = make_url(postgres_url).database

    def read_only(value: str) -> None:
        with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}"))
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(ended), {"name": name})

    read_only("on")
    with installation.worker("-c", "2") as worker:
        orders = [Patient.delay(number) for number in range(8)]
        worker.wait_for("next attempt in")
        worker.wait_for("not recorded for now")
        read_only("off")
        assert max(order.get(timeout=patient(40)) for order in orders) > 1  # attempts; some may have begun afterwards
        wait_until(lambda: app.journal.length() == 0, 20, "everything is recorded")
        assert [count(app, number) for number in range(8)] == [1] * 8
        assert not letters(app)
    server.dispose()
