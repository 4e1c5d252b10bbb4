"""celery-conventions: `enqueue_in` within the transaction, and the relay of the worker."""

from sqlalchemy.orm import Session

from bench.orders.ours import ShipOrder, app, prepare, work
from bench.orders.shop import ITEMS, Way, run
from conventions.outbox.relay import Relay


def sell(session: Session, number: int, sent: float) -> None:
    """Send in the transaction."""
    ShipOrder.enqueue_in(session, number=number, items=ITEMS, sent=sent)


def relay() -> None:
    """Send what waits; a worker does so beside its jobs."""
    app.import_packages()
    app.database.engine.connect().close()
    relay = Relay(app, lambda: True)
    while relay.send_part():
        pass


if __name__ == "__main__":
    run(Way(sell, work, prepare, relay))
