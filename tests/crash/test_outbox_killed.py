"""1,000 orders, a half of them rolled back, while workers with their relays are killed: receipts exactly for the committed ones."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from conventions.storage.database import Database
from tests.support import wait_until
from tests.workers import Installation

ORDERS = 1000
SHOP = '''
import os
import sys

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from conventions import ImmediateTask, create_app

app = create_app("shop", packages=["shop"], schedule=None)


class SendReceipt(ImmediateTask):
    """Write one receipt."""

    idempotent_on = ("order_id",)

    def run(self, order_id: int) -> None:
        with self.transaction() as session:
            session.execute(text("INSERT INTO receipts (order_id) VALUES (:id)"), {"id": order_id})


def take_orders(first, last):
    """Take orders, and roll each odd one back. A sender is killed in the middle of one, too."""
    engine = create_engine(app.database.url, connect_args={"timeout": 30} if app.database.is_sqlite else {})
    with Session(engine) as session:
        for number in range(first, last):
            session.execute(text("INSERT INTO orders (id) VALUES (:id)"), {"id": number})
            SendReceipt.enqueue_in(session, order_id=number)
            if number % 2:
                session.rollback()
            else:
                session.commit()
        session.execute(text("INSERT INTO orders (id) VALUES (:id)"), {"id": last + 100_000})
        SendReceipt.enqueue_in(session, order_id=last + 100_000)
        session.flush()
        print("killed", flush=True)
        os._exit(0)
'''


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_receipts_exactly_for_what_is_committed(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, kind: str
) -> None:
    """Whoever is killed, whenever."""
    url = new_database(tmp_path) if kind == "sqlite" else request.getfixturevalue("migrated_postgres_url")
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    installation = Installation(tmp_path, ["shop"], broker_url=valkey_url, database_url=url, lease=6)
    engine = create_engine(Database(url).url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE receipts (order_id INTEGER NOT NULL)"))

    def receipts() -> Counter[int]:
        with engine.connect() as connection:
            return Counter(connection.execute(text("SELECT order_id FROM receipts")).scalars())

    def rows() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM conventions_outbox")).scalar_one())

    def take_orders(first: int, last: int) -> None:
        assert "killed" in installation.python(f"import shop\nshop.take_orders({first}, {last})")

    expected = dict.fromkeys(range(0, ORDERS, 2), 1)
    take_orders(0, ORDERS // 2)  # nobody runs yet
    for least in (20, 150):
        with installation.worker("-c", "2", app="shop") as worker:
            wait_until(lambda least=least: len(receipts()) >= least, 60, "some are there")  # type: ignore[misc]  # a value of this turn
            worker.kill()
    with installation.worker("-c", "2", app="shop") as worker:
        take_orders(ORDERS // 2, ORDERS)
        for recorder in worker.recorders():  # with the relay alone
            recorder.kill()
        wait_until(lambda: len(receipts()) >= len(expected), 90, "all are there")
        # What a killed relay had taken is sent once more, after `TAKEN_FOR`.
        wait_until(lambda: rows() == 0, 90, "the outbox is empty")
        waiting = "from shop import app\nsizes = app.broker.sizes('immediate')\nprint(sizes == type(sizes)(0, 0, 0))"
        wait_until(lambda: "True" in installation.python(waiting), 60, "none waits or is held")
        with engine.connect() as connection:
            orders = set(connection.execute(text("SELECT id FROM orders")).scalars())
    assert orders == set(expected)
    assert receipts() == expected
    engine.dispose()
