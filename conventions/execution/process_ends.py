"""How a process of the pool has ended, as far as that is known: by a signal, for want of memory, with a status."""

import os
import re
from pathlib import Path

from conventions.library_internals.billiard import HOW_IT_ENDED

UNKNOWN = "nobody knows why its process ended; look at the log of its worker"
COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
    Path("/proc/vmstat"),
)
KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def memory_kills() -> int | None:
    """How many processes the system has killed for want of memory, in this container or on this machine; `None`: it does not say."""
    for path in COUNTERS:
        try:
            found = KILLS.search(path.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


class Ends:
    """Says how processes have ended, since it was made."""

    def __init__(self) -> None:
        self._kills = memory_kills()

    def of(self, error: BaseException) -> str:
        """What is known of the end that the pool tells by this error."""
        found = HOW_IT_ENDED.search(str(error))
        if found is None:
            return UNKNOWN
        if found["status"]:
            return f"its process ended with status {found['status']}"
        how = f"its process was killed by signal {found['signal']}"
        if found["signal"].startswith("9 ") and self._memory_ran_out():
            how += ", and meanwhile the system has killed a process because no memory was left"
        return how

    def _memory_ran_out(self) -> bool:
        before, self._kills = self._kills, memory_kills()
        return before is not None and self._kills is not None and self._kills > before


def has_ended(child: int | None) -> bool:
    """Whether this child has ended, whether or not somebody has asked for its status; `None`, or this process: it has not."""
    if child is None or child == os.getpid():
        return False
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
    except OverflowError:  # the number of a green thread
        return False
