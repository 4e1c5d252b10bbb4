"""The version of the data layout in Redis, so that two releases can run side by side and none touches unknown data.

A release reads the previous layout and its own. It writes its own layout only when every living process knows it. The
registry `members` holds the living processes: a worker (also for its pool and recorder) and a beat report every 10 s, a
sender reports with each message. Scripts and starting processes refuse a layout that is newer than they know.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from conventions.core.errors import NewerLayout
from conventions.core.time_units import milliseconds
from conventions.storage.redis_store import Store

LAYOUT = 1
"""The layout that this release writes; `storage/lua/layout.lua` refuses other layouts."""

LOWEST = 1  # the oldest layout that it reads
SAY_EVERY = 10.0  # seconds between two reports of a living process
GONE_AFTER = 60.0  # seconds without a report after which a process counts as dead
REFUSED = "NEWERLAYOUT"  # the first word of a script's refusal


class Layouts(NamedTuple):
    """The range of layouts that a release can read."""

    lowest: int = LOWEST
    highest: int = LAYOUT


KNOWN = Layouts()


class Member:
    """One living process, in the registry of each Redis that it uses.

    Args:
        kind: what the process is, such as `worker`.
        layouts: the layouts that it knows.
        gone_after: seconds without a report after which other processes count as dead.
    """

    def __init__(self, kind: str, layouts: Layouts = KNOWN, *, gone_after: float = GONE_AFTER) -> None:
        self._kind, self._layouts, self._gone_after = kind, layouts, gone_after

    @property
    def name(self) -> str:
        """The kind, host and id of this process."""
        return member_name(self._kind)

    def say(self, stores: Sequence[Store]) -> None:
        """Report that this process lives.

        Raises:
            NewerLayout: the layout in Redis is unknown here, so nothing may be read or written.
            RedisError: a server does not answer.
        """
        for store in stores:
            lowest, highest = self._layouts
            layout, _ = store.run("layout_member", [self.name, lowest, highest, milliseconds(self._gone_after)])
            if not layout.isdigit() or not lowest <= int(layout) <= highest:
                store.redis.hdel(store.key("members"), self.name)
                raise newer_layout(layout.decode(errors="replace"), self._layouts)

    def leave(self, stores: Sequence[Store]) -> None:
        """Remove this process from the registry, at an orderly end. Raises: RedisError."""
        for store in stores:
            store.redis.hdel(store.key("members"), self.name)


def member_name(kind: str) -> str:
    """The registry's name of this process. It changes after a fork."""
    return f"{kind} {socket.gethostname()}:{os.getpid()}"


def newer_layout(found: str, layouts: Layouts = KNOWN) -> NewerLayout:
    """The error for a layout that this release does not know."""
    return NewerLayout(
        [
            (
                f"what is in Redis has layout {found[:20]}, and this release knows layout {layouts.highest}: nothing is read or "
                "written here; install the release that the workers have"
            )
        ]
    )


def refused(error: BaseException) -> NewerLayout | None:
    """The error, if a script has refused the layout; `None` for any other error."""
    text = str(error)
    return newer_layout(text.removeprefix(REFUSED).strip()) if text.startswith(REFUSED) else None


def living(store: Store) -> list[str]:
    """The names of the processes that have reported within the last minute. Raises: RedisError."""
    redis: Any = store.redis
    now = redis.time()[0] * 1000
    last_reports = {name: value.rpartition(":")[2] for name, value in members(store).items()}
    return sorted(name for name, at in last_reports.items() if not at.isdigit() or now - int(at) <= GONE_AFTER * 1000)


def members(store: Store) -> dict[str, str]:
    """The registry as stored: name to `<lowest layout>:<highest>:<ms of the last report>`. Raises: RedisError."""
    found: Any = store.redis.hgetall(store.key("members"))
    return {name.decode(): value.decode(errors="replace") for name, value in found.items()}
