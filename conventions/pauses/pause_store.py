"""`Pauses`: what is paused, in Redis. Workers read it each second; whatever is restarted or deployed, it stays."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from conventions.core.json_fields import to_json
from conventions.pauses.pause import Pause
from conventions.records.audit_entry import AuditEntry
from conventions.storage.redis_store import Store

Kind: TypeAlias = Literal["queue", "task", "worker"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REVISION = "revision"


class Target(NamedTuple):
    """What is paused: a queue, a task by its name, or a worker by its node name."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        """As the audit and Redis name it."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class PausedNow:
    """What is paused now.

    Attributes:
        at: by the server's clock.
        revision: grows with each change, so that a worker can say which one it follows.
        pauses: those that hold.
    """

    at: datetime
    revision: int
    pauses: Mapping[Target, Pause]

    def names(self, kind: Kind) -> frozenset[str]:
        """The paused ones of one kind."""
        return frozenset(target.name for target in self.pauses if target.kind == kind)


class Pauses:
    """The pauses of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> PausedNow:
        """What is paused now. A pause that a later release wrote in another form is left out."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._store.key("pauses"))
            pipe.time()
            found, (seconds, micros) = pipe.execute()
        at = datetime.fromtimestamp(seconds + micros / 1e6, UTC)
        read = {_target(name): _pause(raw) for name, raw in found.items()}
        pauses = {target: one for target, one in read.items() if target and one and one.holds(at)}
        return PausedNow(at, _number(found.get(REVISION.encode())), pauses)

    def pause(self, target: Target, pause: Pause, audit_entry: AuditEntry) -> int:
        """Pause it, with the entry for the audit, in one step; this replaces an earlier pause. Returns the revision."""
        return int(
            self._store.run("pause", [str(target), to_json(pause), audit_entry.encode(self._store.entry_signatures)])
        )

    def resume(self, target: Target, only: Pause, audit_entry: AuditEntry) -> int:
        """End this pause. Returns the revision; 0, and nothing changes, where there is none or another one by now."""
        return int(
            self._store.run(
                "resume", [str(target), only.since.isoformat(), audit_entry.encode(self._store.entry_signatures)]
            )
        )


def _target(name: bytes) -> Target | None:
    kind, _, rest = name.decode(errors="replace").partition(" ")
    return next((Target(one, rest) for one in KINDS if one == kind and rest), None)


def _pause(raw: bytes) -> Pause | None:
    try:
        return Pause.read(raw)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _number(raw: bytes | None) -> int:
    return int(raw) if raw is not None and raw.isdigit() else 0
