"""celery-conventions: the application of both of its ways."""

import os

from bench.optimisations import WITHOUT, leave_out
from bench.orders.shop import DATABASE, PROCESSES, URL, ship
from conventions import ImmediateTask, create_app

leave_out(os.environ.get(WITHOUT, ""))
app = create_app(
    "orders",
    packages=(__name__,),
    schedule=None,
    broker_url=os.environ.get("BENCH_RABBITMQ") or os.environ[URL],
    redis_url=os.environ[URL],
    database_url=os.environ[DATABASE],
)


class ShipOrder(ImmediateTask):
    """Ship an order, once for its number."""

    idempotent_on = ("number",)

    def run(self, number: int, items: list[str], sent: float) -> None:
        """Ship it."""
        ship(number, items, sent)


def work() -> None:
    """Run a worker of all that this one sends."""
    app.Worker(concurrency=PROCESSES, pool_cls="prefork", loglevel="WARNING", exclude_queues=["long"]).start()


def prepare() -> None:
    """Make our tables."""
    app.database.upgrade()
