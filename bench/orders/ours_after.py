"""celery-conventions: `delay` after the commit. Killed between the two, the job is lost."""

from functools import partial

from bench.orders.ours import ShipOrder, prepare, work
from bench.orders.shop import ITEMS, Way, run

if __name__ == "__main__":
    run(Way(lambda _, number, sent: partial(ShipOrder.delay, number=number, items=ITEMS, sent=sent), work, prepare))
