"""What is sold, and what was paid."""

from django.db import models


class Order(models.Model):
    """An order of a customer."""

    customer = models.CharField(max_length=100)
    amount = models.PositiveIntegerField()  # yen
    charged_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"order {self.pk} of {self.customer}"


class Receipt(models.Model):
    """What was paid for an order. There may be one for each order, and the database does not ask for that: the job does."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="receipts")
    amount = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"receipt {self.pk} of order {self.order_id}"
