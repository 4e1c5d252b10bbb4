"""`believed_message`: of the message of a dead letter, what a redrive may sign (R20).

The settle script adds the message as it lies in Redis, where whoever can write there may have altered it. What the worker believed of it stands in the
event, which the worker has signed.
"""

import json
import logging
from typing import Any

from conventions.broker.codec import body_of
from conventions.broker.header_names import OURS, SIGNATURE
from conventions.broker.signature import Signatures, without_unsigned
from conventions.core.error_text import cut
from conventions.records.journal import Event

logger = logging.getLogger(__name__)


def believed_message(event: Event, message: bytes, signatures: Signatures) -> bytes | None:
    """The message without what nobody with the keys has said; `None`: it is not the one that died, and its letter has the arguments only.

    Args:
        event: of the death.
        message: as it lay in Redis.
        signatures: verifies.
    """
    envelope = _mapping(message)
    headers = envelope.get("headers")
    if not isinstance(headers, dict):
        return message  # nothing of it is ever sent as it is
    if headers.get(SIGNATURE):
        try:
            fault = signatures.fault_of(
                headers, envelope.get("content-type"), envelope.get("content-encoding"), body_of(envelope)
            )
        except Exception as odd:  # noqa: BLE001  # of headers that no sender of ours writes
            fault = f"it cannot be read ({type(odd).__name__})"
        if not fault and cut(str(headers.get("id"))) != cut(event.message_id):
            fault = "it is another one"
        if fault:
            logger.error("the message of a dead letter is not the one that died: id=%s: %s", event.message_id, fault)
            return None
        kept = without_unsigned(headers)
    else:
        kept = {name: one for name, one in headers.items() if name not in OURS} | (event.headers or {})
    return message if kept == headers else json.dumps({**envelope, "headers": kept}).encode()


def _mapping(message: bytes) -> dict[str, Any]:
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
