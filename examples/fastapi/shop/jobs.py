"""Jobs of orders."""

from datetime import UTC, datetime

from conventions import ImmediateTask
from shop.tables import Charge, Order


class ChargeOrder(ImmediateTask):
    """Charge one order, once: the charge and the record of this job are one commit."""

    idempotent_on = ("order_id",)

    def run(self, order_id: int) -> None:
        """Charge it."""
        with self.transaction() as session:
            order = session.get_one(Order, order_id, with_for_update=True)
            order.charged_at = datetime.now(UTC)
            order.charges.append(Charge(amount=order.amount))
