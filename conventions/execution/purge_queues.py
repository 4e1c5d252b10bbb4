"""Purge: remove what waits in queues. Each message ends with a row, and whoever did it with one in the audit (R22).

A step removes up to 500 messages and writes in the same moment how they ended, so a purge that is killed loses nothing; who
began it stands in the audit before anything goes.
What workers hold is not touched; what is delayed goes, too.
"""

import getpass
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from conventions.broker.redis_broker import Sizes
from conventions.broker.waiting_messages import WaitingPlace, look
from conventions.core.actor import SYSTEM, current_actor
from conventions.core.errors import JournalFull, PurgeStopped
from conventions.execution.application import Application
from conventions.execution.end_waiting import WaitingEnds
from conventions.records.audit_entry import AuditEntry

REPLIES = "reply.celery.pidbox"  # answers to remote control: the end of their queues' names
PLACES: tuple[WaitingPlace, ...] = (
    "delayed",
    "queue",
)  # in this order: what is due meanwhile is found among the ready ones
ERROR = "Purged"
BEGINS = "purge begins"


def is_reply_queue(queue: str) -> bool:
    """Whether a queue has answers to remote control, which end when nobody comes for them."""
    return queue.endswith(REPLIES)


def who_acts() -> str:
    """The actor of the running code; where there is none, who runs this process."""
    actor = current_actor()
    if actor != SYSTEM:
        return actor
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return SYSTEM


def known_queues(app: Application) -> list[str]:
    """Every queue that has messages of tasks, or that the application names."""
    names = {*app.broker.queues(), *map(str, app.amqp.queues)}
    return sorted(name for name in names if not is_reply_queue(name))


@dataclass
class _Purge:
    app: Application
    actor: str
    sizes: dict[str, Sizes]
    removed: dict[str, int] = field(default_factory=dict)
    ends: WaitingEnds = field(init=False)

    def __post_init__(self) -> None:
        said = f"removed from the queue {{queue}} by {self.actor}"
        self.ends = WaitingEnds(self.app, "purged", ERROR, said)

    @property
    def total(self) -> int:
        return sum(self.removed.values())

    def run(self) -> None:
        for queue, sizes in self.sizes.items():
            for place in PLACES:
                # Not more than there were: somebody may send as fast as this removes.
                left = sizes.ready + sizes.delayed - self.removed[queue]
                while left > 0 and (found := look(self.app.broker, queue, place)):
                    self.removed[queue] += (went := sum(self.ends.end(found[:left])))
                    left -= max(went, 1)


def purge(app: Application, queues: Iterable[str], *, reason: str | None = None) -> dict[str, int]:
    """Remove what waits in queues, delayed messages too, each with a row. Returns how many went, by queue.

    A schedule does not wait for a purged run, a batch counts a purged chunk as failed, and a dead letter that was sent again
    is dead again.

    Args:
        app: the application.
        queues: names.
        reason: why; kept in the audit.

    Raises:
        PurgeStopped: the journal is full; says how many went and how many are left.
        RedisError: what was removed until then has its rows.
    """
    names = sorted(set(queues))
    work = _Purge(app, who_acts(), {name: _sizes(app, name) for name in names if not is_reply_queue(name)})
    work.removed = dict.fromkeys(work.sizes, 0)
    is_deed = any(one.ready or one.delayed for one in work.sizes.values())  # kombu deletes queues of its own, too
    if is_deed:
        _note(app, work, BEGINS, reason)  # first: it may be killed
    try:
        work.run()
    except JournalFull as error:
        left = sum(one.ready + one.delayed for one in map(app.broker.sizes, work.sizes))
        raise PurgeStopped(f"{work.total:,} messages are purged, {left:,} are left: {error}") from error
    finally:
        if is_deed:
            _note(app, work, "purge", reason, {"purged": work.removed})
    # Last, so that what follows a batch does not go with the rest.
    work.ends.follow_up()
    return work.removed | {name: app.broker.drop(name) for name in names if is_reply_queue(name)}


def _sizes(app: Application, queue: str) -> Sizes:
    look(app.broker, queue, "queue", count=1)  # what another program wrote there is messages from now on
    sizes: Sizes = app.broker.sizes(queue)
    return sizes


def _note(app: Application, work: _Purge, action: str, reason: str | None, after: dict[str, Any] | None = None) -> None:
    before = {
        queue: {"ready": sizes.ready, "delayed": sizes.delayed, "in flight": sizes.in_flight}
        for queue, sizes in work.sizes.items()
    }
    app.journal.note(AuditEntry(work.actor, action, ", ".join(work.sizes), reason, before, after))
