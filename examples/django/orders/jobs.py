"""Jobs of orders."""

from django.utils import timezone

from conventions import ImmediateTask
from orders.models import Order, Receipt


class ChargeOrder(ImmediateTask):
    """Charge one order, once: the writes of the block and the record of this job are one commit."""

    idempotent_on = ("order_id",)

    def run(self, order_id: int) -> int:
        """Write the receipt. Returns: its number."""
        with self.transaction(using="default") as record:
            order = Order.objects.select_for_update().get(pk=order_id)
            order.charged_at = timezone.now()
            order.save(update_fields=["charged_at"])
            record.result = Receipt.objects.create(order=order, amount=order.amount).pk
        return record.result
