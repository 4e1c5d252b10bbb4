"""`ReadRequest`: what a read asks for. `Delivery`: what it returns."""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from conventions.broker.delivery_names import new_name

NONE: frozenset[str] = frozenset()
SEPARATOR, BEFORE_PAYLOAD = b"\x1f", 5  # between the fields of a sent message, and their number: see `queues.lua`


class Delivery(NamedTuple):
    """One delivery of a message to this process.

    Attributes:
        payload: JSON, unless the entry of the queue is not a message.
        deliveries: how often the message was delivered, with this time.
        changes: headers that replace those of the payload, after an earlier attempt.
        alone: the message was started or tried before, so it runs alone and not in a group.
    """

    tag: bytes
    queue: str
    payload: bytes
    receipt: str
    deliveries: int
    changes: dict[str, Any]
    alone: bool = False


def tag_of(raw: bytes) -> str | bytes:
    """A tag in the form for the scripts: text, or bytes if another program wrote a tag that is not text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class ReadRequest(NamedTuple):
    """What a read asks for.

    Attributes:
        queues: in the order in which the server looks at them.
        most: the largest number of messages.
        unacknowledged: queues whose messages are removed when they are delivered.
        few_of: queues from which at most `few` messages are wanted, counted together.
        few: at least one.
        most_bytes: the limit for all messages that are not small, in bytes together. One such message always comes,
            unless it is 0.
        at_once: how many messages the server reads together, before it puts some of them back; 0: all.
    """

    queues: Sequence[str]
    most: int
    unacknowledged: Collection[str] = ()
    few_of: Collection[str] = ()
    few: int = 1
    most_bytes: int = 1 << 40
    at_once: int = 0

    def arguments(self, visibility: int) -> list[Any]:
        """The arguments of `reserve`. `visibility`: ms without a heartbeat until a message goes to another worker."""
        arguments: list[Any] = [
            self.most,
            self.few,
            visibility,
            new_name(),
            self.most_bytes,
            self.at_once or self.most,
        ]
        for queue in self.queues:
            arguments += (queue, int(queue in self.unacknowledged), int(queue in self.few_of))
        return arguments


def brought(reply: Any) -> tuple[float | None, list[Delivery]]:
    """Read the answer of `reserve`: seconds until the next delayed message is due, and the deliveries."""
    due, messages = reply[:2]
    deliveries = [
        Delivery(tag, queue.decode(), sent, receipt.decode(), *_history(*history))
        if history
        else Delivery(tag, queue.decode(), _payload(sent), receipt.decode(), 1, {})
        for tag, queue, sent, receipt, *history in messages
    ]
    return (None if int(due) < 0 else int(due) / 1000), deliveries


def left_by(reply: Any) -> frozenset[str]:
    """The queues whose next message did not fit into the limit of bytes."""
    return frozenset(queue.decode() for queue in reply[2]) if len(reply) > 2 else NONE


def _payload(sent: bytes) -> bytes:
    parts = sent.split(SEPARATOR, BEFORE_PAYLOAD)
    return parts[BEFORE_PAYLOAD] if len(parts) > BEFORE_PAYLOAD else sent  # another program wrote it


def _history(deliveries: int, changes: bytes, alone: int) -> tuple[int, dict[str, Any], bool]:
    return deliveries, json.loads(changes) if changes else {}, bool(alone)
