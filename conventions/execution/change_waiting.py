"""Cancel messages that wait, move them to another queue, or hold them for review, chosen by a `Selection` (R22).

Each step acts on up to 500 messages, and only on those that are where they were seen. So what a worker takes meanwhile runs, and a
change that is stopped or killed has done a part. Pause the queue first where nothing is to run.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from kombu.utils.json import loads

from conventions.broker.codec import body_of
from conventions.broker.signature import fault_of_revoked
from conventions.broker.waiting_messages import Waiting, WaitingPlace, look, move
from conventions.core.errors import JournalFull, KeyRevoked, PurgeStopped
from conventions.execution.application import Application
from conventions.execution.cancel import cancel as cancel_message
from conventions.execution.cancel import is_function
from conventions.execution.end_waiting import WaitingEnds
from conventions.execution.purge_queues import PLACES, known_queues
from conventions.execution.waiting_selection import Selection, check_looks
from conventions.records.audit_entry import AuditEntry

PASSES = 5  # what moves between two reads of a queue is seen in the next pass
ERROR = "Cancelled"


@dataclass
class Outcome:
    """What was done.

    Attributes:
        done: messages by queue.
        told: of the cancelled ones, those that a worker ends, since something waits for their end.
        left: messages that moved each time that they were to be changed, or whose form is not known here.
        complete: whether all were looked at; else nobody knows how many are left.
    """

    done: Counter[str] = field(default_factory=Counter)
    told: int = 0
    left: int = 0
    complete: bool = False

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.done.values())


Step: TypeAlias = Callable[[Sequence[Waiting], Outcome], int]
"""Acts on messages, and returns how many are gone from their place."""

Stops: TypeAlias = Callable[[], bool]
"""Whether to stop before the next step."""


def never() -> bool:
    """Nobody stops it."""
    return False


class _Stopped(Exception):
    """Somebody asked for it."""


@dataclass
class _Change:
    app: Application
    selection: Selection
    actor: str
    reason: str
    stops: Stops
    outcome: Outcome = field(default_factory=Outcome)

    def run(self, action: str, step: Step, **more: Any) -> None:
        queues = self.selection.queues
        before = more | self.selection.words
        self._note(f"{action} begins", before)  # first: it may be killed
        try:
            for _ in range(PASSES):
                changed, self.outcome.left = self.outcome.total, 0
                for queue in queues:
                    for place in PLACES:
                        self._pass(queue, place, step)
                if self.outcome.total == changed and not self.outcome.left:
                    break
            self.outcome.complete = True
        except _Stopped:
            pass
        finally:
            left = {"left": self.outcome.left} if self.outcome.complete else {"cut short": True}
            self._note(action, before, {"done": dict(self.outcome.done), **left})

    def _pass(self, queue: str, place: WaitingPlace, step: Step) -> None:
        """Go once through one place of a queue, as far as it reached when this began. What stays there is skipped."""
        now, stays = datetime.now(UTC), 0
        sizes = self.app.broker.sizes(queue)
        unseen = sizes.ready if place == "queue" else sizes.delayed
        while unseen > 0 and (some := look(self.app.broker, queue, place, stays)):
            if self.stops():
                raise _Stopped
            chosen = [one for one in some if self.selection.holds(one, now)]
            gone = step(chosen, self.outcome) if chosen else 0
            self.outcome.done[queue] += gone
            stays += len(some) - gone
            unseen -= len(some)

    def _note(self, action: str, before: dict[str, Any], after: dict[str, Any] | None = None) -> None:
        target = "all queues" if self.selection.all_queues else ", ".join(self.selection.queues)
        self.app.journal.note(AuditEntry(self.actor, action, target, self.reason, before, after))


def cancel_selected(
    app: Application, selection: Selection, actor: str, reason: str, *, stops: Stops = never
) -> Outcome:
    """Cancel the selected messages, until `stops`. Each has a row of kind `cancelled`.

    One whose end something waits for, as a chain or a chord, is marked: a worker tells those that wait. Of a function nobody is told: it has
    no claim, in which a worker would find the mark.

    Raises:
        NoSelection: the broker shows none.
        PurgeStopped: the journal is full; says how many were cancelled.
        RedisError: what was cancelled until then has its rows.
    """
    check_looks(app)
    ends = WaitingEnds(app, "cancelled", ERROR, f"cancelled in the queue {{queue}} by {actor}: {reason}")
    marked: set[str] = set()

    def step(some: Sequence[Waiting], outcome: Outcome) -> int:
        followed = [one for one in some if one.is_followed and not is_function(app, one)]
        went = ends.end([one for one in some if one not in followed])
        outcome.left += went.count(False)
        for one in followed:
            if one.message_id not in marked:
                cancel_message(app, one.message_id)
                marked.add(one.message_id)
                outcome.done[one.queue] += 1
                outcome.told += 1
        return sum(went)

    return _ended(_Change(app, selection, actor, reason, stops), ends, "messages cancel", step, "cancelled")


def hold_signed(
    app: Application, key: str, since: datetime, actor: str, reason: str, *, stops: Stops = never
) -> Outcome:
    """Make dead letters of the messages that wait and that a key has signed since a moment, until `stops`: whoever redrives one has looked at it.

    Those that only say so, and whose signature does not fit, stay: a worker refuses them.

    Raises:
        NoSelection: the broker shows none.
        PurgeStopped: the journal is full; says how many are held.
        RedisError: what is held until then has its letters.
    """
    check_looks(app)
    selection = Selection(tuple(known_queues(app)), signed_with=key, sent_since=since, all_queues=True)
    ends = WaitingEnds(
        app, "dead", KeyRevoked.__name__, f"{fault_of_revoked(key, since)}; redrive it where it is right"
    )

    def step(some: Sequence[Waiting], outcome: Outcome) -> int:
        went = ends.end([one for one in some if is_signed(app, one)])
        outcome.left += went.count(False)
        return sum(went)

    return _ended(_Change(app, selection, actor, reason, stops), ends, "keys revoke", step, "held")


def _ended(change: _Change, ends: WaitingEnds, action: str, step: Step, done: str) -> Outcome:
    """Run a change that ends messages; `done`: what they are then. Raises: PurgeStopped."""
    try:
        change.run(action, step)
    except JournalFull as error:
        raise PurgeStopped(f"{change.outcome.total:,} messages are {done}: {error}") from error
    finally:
        ends.follow_up()
    return change.outcome


def is_signed(app: Application, one: Waiting) -> bool:
    """Whether somebody with the keys has sent a message that waits as it is."""
    try:
        envelope = loads(one.payload)  # type: ignore[no-untyped-call]  # kombu has few types
        content = envelope.get("content-type"), envelope.get("content-encoding")
        return app.signatures is not None and not app.signatures.fault_of(
            envelope["headers"], *content, body_of(envelope)
        )
    except Exception:  # noqa: BLE001  # of headers that no sender of ours writes
        return False


def move_selected(
    app: Application, selection: Selection, to: str, actor: str, reason: str, *, stops: Stops = never
) -> Outcome:
    """Move the selected messages to another queue, until `stops`. Each keeps its priority, its order of arrival, and when it is due.

    Raises:
        NoSelection: the broker shows none.
        RedisError: a part has moved.
    """
    check_looks(app)

    def step(some: Sequence[Waiting], outcome: Outcome) -> int:
        went = move(app.broker.store, [(one, to) for one in some])
        outcome.left += went.count(False)
        return sum(went)

    change = _Change(app, selection, actor, reason, stops)
    change.run("messages move", step, to=to)
    return change.outcome
