"""`ReadRequest`, what a read asks for, and `Delivery`, what it brings."""

import json
from collections.abc import Collection, Sequence
from secrets import token_urlsafe
from typing import Any, NamedTuple

NONE: frozenset[str] = frozenset()
SEPARATOR, BEFORE_PAYLOAD = b"\x1f", 5  # of what was sent, and how many of them: see `queues.lua`


class Delivery(NamedTuple):
    """A message that was handed out.

    Attributes:
        payload: JSON, unless what lay in the queue is no message.
        deliveries: how often it was handed out, this time included.
        changes: headers that differ from those in the payload, since it was tried before.
        alone: it was started or tried before, so it goes to no process together with others.
    """

    tag: bytes
    queue: str
    payload: bytes
    receipt: str
    deliveries: int
    changes: dict[str, Any]
    alone: bool = False


def tag_of(raw: bytes) -> str | bytes:
    """A tag as the scripts take it; bytes where it is no text, as another program may have written it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class ReadRequest(NamedTuple):
    """What a read asks for.

    Attributes:
        queues: in the order in which they are looked at.
        most: messages that may come.
        unacknowledged: queues whose messages end when they are handed out.
        few_of: queues of which only `few` are wanted, of all of them together.
        few: at least one.
        most_bytes: what messages that are not small may have together; one of them always comes, unless it is 0.
        at_once: how many the server looks at together; 0: all of them. It reads those that it looks at, to put some of them back.
    """

    queues: Sequence[str]
    most: int
    unacknowledged: Collection[str] = ()
    few_of: Collection[str] = ()
    few: int = 1
    most_bytes: int = 1 << 40
    at_once: int = 0

    def arguments(self, visibility: int) -> list[Any]:
        """Those of `reserve`; `visibility`: ms without a heartbeat after which a message goes to another worker."""
        arguments: list[Any] = [
            self.most,
            self.few,
            visibility,
            token_urlsafe(12),
            self.most_bytes,
            self.at_once or self.most,
        ]
        for queue in self.queues:
            arguments += (queue, int(queue in self.unacknowledged), int(queue in self.few_of))
        return arguments


def brought(reply: Any) -> tuple[float | None, list[Delivery]]:
    """Read the answer of `reserve`: seconds until a delayed message is due, and the messages."""
    due, messages = reply[:2]
    deliveries = [
        Delivery(tag, queue.decode(), sent, receipt.decode(), *_history(*history))
        if history
        else Delivery(tag, queue.decode(), _payload(sent), receipt.decode(), 1, {})
        for tag, queue, sent, receipt, *history in messages
    ]
    return (None if int(due) < 0 else int(due) / 1000), deliveries


def left_by(reply: Any) -> frozenset[str]:
    """The queues whose next message was one too many in bytes."""
    return frozenset(queue.decode() for queue in reply[2]) if len(reply) > 2 else NONE


def _payload(sent: bytes) -> bytes:
    parts = sent.split(SEPARATOR, BEFORE_PAYLOAD)
    return parts[BEFORE_PAYLOAD] if len(parts) > BEFORE_PAYLOAD else sent  # another program wrote it


def _history(deliveries: int, changes: bytes, alone: int) -> tuple[int, dict[str, Any], bool]:
    return deliveries, json.loads(changes) if changes else {}, bool(alone)
