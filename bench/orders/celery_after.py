"""Bare Celery: `delay` after the commit. Killed between the two, the job is lost; a killed worker loses its jobs, too."""

import os
from functools import partial

from celery import Celery

from bench.orders.shop import ITEMS, PROCESSES, URL, Way, run, ship

app = Celery("orders", broker=os.environ[URL])


@app.task(name="bench.ship", ignore_result=True)
def ship_order(number: int, items: list[str], sent: float) -> None:
    """Ship it."""
    ship(number, items, sent)


if __name__ == "__main__":
    run(
        Way(
            sell=lambda _, number, sent: partial(ship_order.delay, number=number, items=ITEMS, sent=sent),
            work=lambda: app.Worker(concurrency=PROCESSES, pool_cls="prefork", loglevel="WARNING").start(),
        )
    )
