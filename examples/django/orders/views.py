"""Take an order, and say what became of it."""

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from orders.jobs import ChargeOrder
from orders.models import Order


@csrf_exempt
@require_POST
def order(request: HttpRequest) -> JsonResponse:
    """Store an order, and send its job when it is committed."""
    wanted = json.loads(request.body)
    with transaction.atomic():
        made = Order.objects.create(customer=wanted["customer"], amount=wanted["amount"])
        # A row in this transaction: the job is sent when it is committed, and never if it is not.
        ChargeOrder.delay_on_commit(order_id=made.pk)
    return JsonResponse({"order": made.pk}, status=202)


@require_GET
def state(_request: HttpRequest, order_id: int) -> JsonResponse:
    """Whether it is charged, and by which receipts."""
    found = get_object_or_404(Order, pk=order_id)
    return JsonResponse({"charged": found.charged_at is not None, "receipts": [one.pk for one in found.receipts.all()]})
