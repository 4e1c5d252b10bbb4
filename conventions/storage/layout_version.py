"""The version of what is in Redis, so that two releases may run side by side, and none touches what it does not know.

A release reads the layout before its own and its own, and writes its own only once no process lives that does not know it.
Who lives is kept in `members`: workers, for their pool and recorder, too, and beats say so every 10 s, senders with a message
that they send. A newer layout than is known here is refused, by scripts and by whoever starts or runs.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from conventions.core.errors import NewerLayout
from conventions.storage.redis_store import Store

LAYOUT = 1
"""The layout in which this release writes; `storage/lua/layout.lua` refuses others."""

LOWEST = 1  # that it reads
SAY_EVERY = 10.0  # seconds between two words of a living process
GONE_AFTER = 60.0  # seconds without one
REFUSED = "NEWERLAYOUT"  # with which the scripts begin their answer


class Layouts(NamedTuple):
    """The layouts that a release knows."""

    lowest: int = LOWEST
    highest: int = LAYOUT


KNOWN = Layouts()


class Member:
    """One living process, in the registry of each Redis that it uses.

    Args:
        kind: what the process is, such as `worker`.
        layouts: those that it knows.
        gone_after: seconds after which others count as gone.
    """

    def __init__(self, kind: str, layouts: Layouts = KNOWN, *, gone_after: float = GONE_AFTER) -> None:
        self._kind, self._layouts, self._gone_after = kind, layouts, gone_after

    @property
    def name(self) -> str:
        """Its kind, host and process id."""
        return member_name(self._kind)

    def say(self, stores: Sequence[Store]) -> None:
        """Say that it lives.

        Raises:
            NewerLayout: the layout is not known here, so that nothing may be read or written.
            RedisError: a server does not answer.
        """
        for store in stores:
            lowest, highest = self._layouts
            layout, _ = store.run("member", [self.name, lowest, highest, round(self._gone_after * 1000)])
            if not layout.isdigit() or not lowest <= int(layout) <= highest:
                store.redis.hdel(store.key("members"), self.name)
                raise newer_layout(layout.decode(errors="replace"), self._layouts)

    def leave(self, stores: Sequence[Store]) -> None:
        """Say that it ends in order. Raises: RedisError."""
        for store in stores:
            store.redis.hdel(store.key("members"), self.name)


def member_name(kind: str) -> str:
    """How a process of this kind is named, here and now: after a fork it is another one."""
    return f"{kind} {socket.gethostname()}:{os.getpid()}"


def newer_layout(found: str, layouts: Layouts = KNOWN) -> NewerLayout:
    """What is said of a layout that is not known here."""
    return NewerLayout(
        [
            (
                f"what is in Redis has layout {found[:20]}, and this release knows layout {layouts.highest}: nothing is read or "
                "written here; install the release that the workers have"
            )
        ]
    )


def refused(error: BaseException) -> NewerLayout | None:
    """What the answer of a script means that has refused the layout; `None` when it is another error."""
    text = str(error)
    return newer_layout(text.removeprefix(REFUSED).strip()) if text.startswith(REFUSED) else None


def living(store: Store) -> list[str]:
    """The names of the processes that have said so within the last minute. Raises: RedisError."""
    redis: Any = store.redis
    now = redis.time()[0] * 1000
    last_words = {name: value.rpartition(":")[2] for name, value in members(store).items()}
    return sorted(name for name, at in last_words.items() if not at.isdigit() or now - int(at) <= GONE_AFTER * 1000)


def members(store: Store) -> dict[str, str]:
    """The registry as it is: name to `<lowest layout>:<highest>:<ms of the last word>`. Raises: RedisError."""
    found: Any = store.redis.hgetall(store.key("members"))
    return {name.decode(): value.decode(errors="replace") for name, value in found.items()}
