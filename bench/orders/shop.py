"""What the programs of all ways share: orders in PostgreSQL, the work of a job, and the verbs of a program.

`python -m bench.orders.WAY prepare`, `work` (until SIGTERM), and `sell FIRST COUNT EVERY`, which sells the orders FIRST, FIRST + 1, ... in a
transaction each, one every EVERY seconds, or as fast as it goes with 0, and prints the seconds; `relay` prints those of the outbox. `conventions` is not imported here: bare
Celery shares this file.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from bench.records import record

URL, DATABASE = "BENCH_URL", "BENCH_DATABASE"
PROCESSES = 8
SECONDS = 0.005  # of waiting, as for another service
ITEMS = ["tea", "cup", "spoon"]

Sell = Callable[[Session, int, float], Callable[[], object] | None]


@dataclass(frozen=True)
class Way:
    """One way to send a job for each order.

    Args:
        sell: sends it within the transaction, or returns what does so after the commit. It gets the session, the number and the moment.
        work: runs a worker with `PROCESSES` jobs at once.
        prepare: makes its tables.
        relay: sends what waits in its outbox, where it has one that something else looks at.
    """

    sell: Sell
    work: Callable[[], None]
    prepare: Callable[[], None] = lambda: None
    relay: Callable[[], None] = lambda: None


def engine() -> Engine:
    """The database of the orders, and of whatever a way keeps there."""
    return create_engine(os.environ[DATABASE].replace("postgresql://", "postgresql+psycopg://", 1))


_redis: list[Redis] = []


def ship(number: int, items: list[str], sent: float) -> None:
    """The work of a job: one INCR, some milliseconds of waiting, one record."""
    if not _redis:
        _redis.append(Redis.from_url(os.environ[URL]))
    _redis[0].incrby("bench:shipped", len(items))
    record(number, sent, SECONDS)


def run(way: Way) -> None:
    """Do what the arguments of this process say."""
    verb, *numbers = sys.argv[1:]
    if verb == "work":
        way.work()
    elif verb == "prepare":
        with engine().begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS orders (number integer PRIMARY KEY, items text)"))
            connection.execute(text("TRUNCATE orders"))
        way.prepare()
    elif verb == "relay":
        begun = time.monotonic()
        way.relay()
        sys.stdout.write(f"{time.monotonic() - begun}\n")
    else:
        _sell(way.sell, int(numbers[0]), int(numbers[1]), float(numbers[2]))


def _sell(sell: Sell, first: int, count: int, every: float) -> None:
    shop = engine()
    with shop.connect():  # the pool has a connection
        pass
    begun = time.monotonic()
    for number in range(first, first + count):
        if (early := begun + (number - first) * every - time.monotonic()) > 0:
            time.sleep(early)
        with Session(shop) as session:
            order = {"number": number, "items": ",".join(ITEMS)}
            session.execute(text("INSERT INTO orders VALUES (:number, :items)"), order)
            after = sell(session, number, time.monotonic())
            session.commit()
        if after is not None:
            after()
    sys.stdout.write(f"{time.monotonic() - begun}\n")
