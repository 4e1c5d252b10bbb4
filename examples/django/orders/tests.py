"""`manage.py test`: a job runs in the transaction of the test, which is rolled back."""

from django.test import TestCase

from orders.jobs import ChargeOrder
from orders.models import Order, Receipt


class ChargeOrderTest(TestCase):
    """No broker and no worker is needed: `apply` runs the job here."""

    def test_an_order_is_charged(self) -> None:
        """With one receipt."""
        order = Order.objects.create(customer="ann", amount=1200)
        ended = ChargeOrder.apply(kwargs={"order_id": order.pk})
        assert ended.get() == Receipt.objects.get().pk
        order.refresh_from_db()
        assert order.charged_at is not None

    def test_and_once(self) -> None:
        """The second job finds the record of the first one, which was written with the receipt."""
        order = Order.objects.create(customer="ann", amount=1200)
        results = [ChargeOrder.apply(kwargs={"order_id": order.pk}).get() for _ in range(2)]
        assert results[0] == results[1]
        assert Receipt.objects.count() == 1

    def test_nothing_of_another_test_is_left(self) -> None:
        """Neither rows nor records."""
        assert Receipt.objects.count() == 0
