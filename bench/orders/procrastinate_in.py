"""Procrastinate, whose queue is a table of the same database: `defer` within the transaction."""

import asyncio
import os
from typing import Any

import procrastinate
from sqlalchemy.orm import Session

from bench.orders.shop import DATABASE, ITEMS, PROCESSES, Way, run, ship

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ[DATABASE]))


@app.task(name="bench.ship")
async def ship_order(number: int, items: list[str], sent: float) -> None:
    """Ship it, in a thread: the work of the others blocks, too."""
    await asyncio.to_thread(ship, number, items, sent)


def sell(session: Session, number: int, sent: float) -> None:
    """Send in the transaction."""
    connection: Any = session.connection().connection.driver_connection
    ship_order.configure(connection=connection).defer(number=number, items=ITEMS, sent=sent)


def prepare() -> None:
    """Make its tables, and empty them."""
    with app.open():
        app.schema_manager.apply_schema()


if __name__ == "__main__":
    run(Way(sell, lambda: app.run_worker(concurrency=PROCESSES, delete_jobs="successful"), prepare))
