"""A message that ends its worker before its job begins is not delivered for ever."""

from collections.abc import Mapping
from typing import Any

from conventions.core.errors import UndeliverableMessage

DELIVERY_LIMIT = 20  # deliveries without a start: the message ends its worker before there is a claim


def fault_of_deliveries(delivery: Mapping[str, Any] | None) -> UndeliverableMessage | None:
    """The reason to keep a message as a dead letter: it was delivered too often. `None` where our transport did not deliver it."""
    if not delivery or delivery["deliveries"] <= DELIVERY_LIMIT:
        return None
    return UndeliverableMessage(
        f"delivered {delivery['deliveries']} times, and each time its worker ended before the job began, or "
        "what follows the job could not be sent; the worker's log says which"
    )
