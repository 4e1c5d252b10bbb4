"""What people do: pause a queue, a task or a worker, resume it, and hear which workers follow (R22)."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from conventions.pauses.pause import Pause, replaced_facts
from conventions.pauses.pause_store import Pauses, Target
from conventions.records.audit_entry import AuditEntry
from conventions.storage.redis_store import Store

FOLLOW_WITHIN = 6.0  # seconds: a worker reads the pauses each second, and reports every two
ASK_EVERY = 0.2  # seconds


class PausedAgain(Exception):
    """Somebody else has paused it again meanwhile. `pause`: the pause that still holds."""

    def __init__(self, pause: Pause) -> None:
        super().__init__(pause)
        self.pause = pause


class Follower(Protocol):
    """A living worker; see `WorkerNow`."""

    @property
    def name(self) -> str:
        """Its node name."""

    @property
    def pauses(self) -> int:
        """The revision that it follows."""


class Change(NamedTuple):
    """What was done: the pause, and the revision of it; and the pause that it took the place of."""

    pause: Pause
    revision: int
    before: Pause | None = None


class PauseActions:
    """The actions, in the name of an actor.

    Args:
        store: the application's Redis.
    """

    def __init__(self, store: Store) -> None:
        self._pauses = Pauses(store)

    def pause(self, target: Target, actor: str, reason: str, until: datetime | None = None) -> Change:
        """Begin nothing of it any more. The pause outlives restarts and deploys.

        Args:
            target: what.
            actor: who does it.
            reason: why; shown to everyone.
            until: when it resumes by itself, aware.

        Raises:
            ValueError: see `Pause.made`.
            RedisError: it may be paused or not.
        """
        now = self._pauses.read()
        made = Pause.made(reason, actor, now.at, until)
        before = now.pauses.get(target)
        entry = AuditEntry(actor, f"{target.kind} pause", target.name, made.reason, replaced_facts(before), made.facts)
        return Change(made, self._pauses.pause(target, made, entry), before)

    def resume(self, target: Target, actor: str, reason: str | None = None) -> Change | None:
        """End a pause. `None`: there was none.

        Raises:
            PausedAgain: somebody has replaced the pause.
            RedisError: it may be paused or not.
        """
        pause = self._pauses.read().pauses.get(target)
        if pause is None:
            return None
        entry = AuditEntry(actor, f"{target.kind} resume", target.name, reason, pause.facts)
        if revision := self._pauses.resume(target, pause, entry):
            return Change(pause, revision)
        if (other := self._pauses.read().pauses.get(target)) is not None:
            raise PausedAgain(other)
        return None


def those_that_do_not_follow(
    workers: Callable[[], Iterable[Follower]], revision: int, within: float = FOLLOW_WITHIN
) -> list[str]:
    """Wait until all living workers follow a revision. Returns the names of those that have not said so in time.

    Raises:
        RedisError.
    """
    deadline = time.monotonic() + within
    while True:
        late = [one.name for one in workers() if one.pauses < revision]
        if not late or time.monotonic() >= deadline:
            return late
        time.sleep(ASK_EVERY)
