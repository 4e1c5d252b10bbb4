"""`Flow`: how fast a queue fills and empties. What nobody can know is left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from conventions.metrics.queue_length_history import Depth
from conventions.metrics.series import Series
from conventions.metrics.state_now import Levels, QueueNow

RATE_MINUTES = 2  # full minutes over which rates are taken
OF_PRESENT = 20.0  # seconds of the present minute from which on its own pace says when a queue is empty
BEGUN = ("succeeded", "dead", "duplicate", "expired", "revoked")
"""Kinds by which a message ends at a worker."""
REMOVED = ("cancelled", "purged")
"""Kinds by which a person takes a message out of its queue."""
LITTLE = 0.05  # of what ended: so many that people removed or moved make a rate no worse than its looks do
PAUSED_OR_RESUMED = frozenset(f"{kind} {done}" for kind in ("queue", "task", "worker") for done in ("pause", "resume"))


@dataclass(frozen=True, slots=True)
class Flow:
    """How fast a queue fills and empties, over the last full minutes.

    Attributes:
        comes: messages that were sent, a second; `None`: people have removed or moved messages just then.
        goes: messages that ended, a second; `None`: the same, in a queue of functions.
        empty_in: seconds until no message is ready, at the pace of the present minute, or in its first 20 s at that of the last full ones; `None`: it is empty, or does not get shorter, or nobody can know.
    """

    comes: float | None
    goes: float | None
    empty_in: float | None


class Action(Protocol):
    """What a person did, and when."""

    @property
    def at(self) -> datetime:
        """When; aware."""

    @property
    def action(self) -> str:
        """As the audit names it."""

    @property
    def target(self) -> str:
        """What it was done to."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """What is known of the last minutes, each by its number since the epoch.

    Attributes:
        counts: what was counted.
        depths: how long queues were at the end.
        moved: how many messages people moved into or out of a queue.
        last: the present one.
        passed: seconds of that.
    """

    counts: Mapping[int, Mapping[Series, Mapping[str, int]]]
    depths: Mapping[int, Mapping[str, Depth]]
    moved: Mapping[int, Mapping[str, int]]
    last: int
    passed: float = 0.0


def first_minute(last: int) -> int:
    """The first minute of which something must be known, where `last` is the present one: at its end the rates begin."""
    return last - RATE_MINUTES - 1


def flows_of(minutes: Minutes, levels: Levels, actions: Sequence[Action]) -> dict[str, Flow]:
    """By queue; one of which nothing is known is missing."""
    before = minutes.depths.get(first_minute(minutes.last))
    after = minutes.depths.get(minutes.last - 1)
    if before is None or after is None:
        return {}
    return {
        name: _flow(minutes, before.get(name, Depth()), after.get(name, Depth()), queue, _still(levels, actions, name, minutes))
        for name, queue in (levels.queues or {}).items()
    }  # fmt: skip


def _flow(minutes: Minutes, before: Depth, after: Depth, queue: QueueNow, still: bool) -> Flow:
    seconds = RATE_MINUTES * 60
    longer = after.ready - before.ready
    if before.delayed is None or after.delayed is None:  # a recorder of the release before has looked
        all_longer, back = longer, _counted(minutes, queue.name, ("retried",))
    else:  # a message that is tried again, or held back, stays in its queue
        all_longer, back = longer + after.delayed - before.delayed, 0
    ended, removed = _counted(minutes, queue.name, BEGUN), _counted(minutes, queue.name, REMOVED)
    since = range(first_minute(minutes.last), minutes.last + 1)
    # The looks at a queue are not at the edges of the minutes, so what was removed in the minute before may be seen in this one.
    changed = _counted(minutes, queue.name, REMOVED, since) + sum(
        minutes.moved.get(one, {}).get(queue.name, 0) for one in since
    )
    if changed > LITTLE * ended:
        return Flow(None, ended / seconds if ended else None, None)
    # Of functions no end is recorded: as many have gone, at the least, as the queue is shorter.
    goes = max(ended + back, -all_longer)
    comes = max(0, max(ended + removed + back, -all_longer) + all_longer)
    pace, ready = min(-longer, -all_longer) / seconds, queue.level.ready or 0
    if OF_PRESENT <= minutes.passed <= 60:
        pace = _shorter_since(after, queue) / minutes.passed
    runs = not still and queue.consumers != 0
    return Flow(comes / seconds, goes / seconds, ready / pace if runs and ready and pace > 0 else None)


def _shorter_since(before: Depth, queue: QueueNow) -> int:
    """By how much a queue is shorter now, and also where what is not due counts."""
    level = queue.level
    shorter = before.ready - (level.ready or 0) - (level.in_flight or 0)
    return shorter if before.delayed is None else min(shorter, shorter + before.delayed - (level.delayed or 0))


def _counted(minutes: Minutes, queue: str, kinds: Sequence[str], of: range | None = None) -> int:
    full = range(minutes.last - RATE_MINUTES, minutes.last) if of is None else of
    return sum(
        counted.get(kind, 0)
        for minute in full
        for series, counted in minutes.counts.get(minute, {}).items()
        if series.queue == queue
        for kind in kinds
    )


def _still(levels: Levels, actions: Sequence[Action], queue: str, minutes: Minutes) -> bool:
    """Whether a queue is paused, or people have paused or resumed, since the rates begin, what is in it."""
    if levels.pause_of("queue", queue) is not None:
        return True
    begin = first_minute(minutes.last) * 60
    done = [one for one in actions if one.action in PAUSED_OR_RESUMED and one.at.timestamp() >= begin]
    tasks = set(_tasks_of(minutes, queue))
    return any(
        one.action.startswith("worker ") or one.target in ({queue} if one.action.startswith("queue ") else tasks)
        for one in done
    )


def _tasks_of(minutes: Minutes, queue: str) -> Iterator[str]:
    for counted in minutes.counts.values():
        yield from (series.task for series in counted if series.queue == queue)
