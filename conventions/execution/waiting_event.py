"""What the journal says of a message that waits, by its headers: they may be another program's."""

from collections.abc import Mapping
from typing import Any

from conventions.broker.header_names import ACTOR, ENQUEUED_AT, GENERATION, KEY
from conventions.core.actor import SYSTEM
from conventions.core.error_text import clean
from conventions.core.value_bounds import LARGEST_COUNT
from conventions.records.journal import Event


def waiting_event(
    headers: Mapping[str, Any], tag: str, kind: str, *, queue: str, generation: int, attempt: int
) -> Event:
    """The event, without what only its end knows.

    Args:
        headers: of the message.
        tag: its id, unless it names one.
        kind: of the event.
        queue: where it waits.
        generation: how often it was redriven, unless its headers say so.
        attempt: the number of its next attempt.
    """
    id_, said = headers.get("id"), headers.get(GENERATION)
    return Event(
        message_id=clean(id_ if isinstance(id_, str) and id_ else tag),
        kind=kind,
        task=_text(headers.get("task")),
        queue=queue,
        actor=_text(headers.get(ACTOR)) or SYSTEM,
        key=_text(headers.get(KEY)),
        generation=said if type(said) is int and 0 <= said <= LARGEST_COUNT else generation,
        attempt=attempt,
        enqueued_at=_text(headers.get(ENQUEUED_AT)),
    )


def _text(value: object) -> str | None:
    return None if value is None else clean(str(value))
