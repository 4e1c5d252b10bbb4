"""`Pages`: what each process of a pool does just now, in memory that it shares with its worker's main process (protocol 11).

A job may keep all threads of its process from running, for longer than its lease: a call into C that does not let go of the
interpreter. So its process only writes down what it does, which costs less than a microsecond, and the main process renews the claim.
"""

import mmap
import os
import struct
import time
from typing import NamedTuple

from conventions.core.forks import call_in_child
from conventions.core.lease_timings import SETTLE_FOR

SIZE = 4096  # bytes of a page
TOKEN, CLAIM = 96, 640  # bytes that it has for these; jobs with longer names renew their claims themselves
# Job number, since when it settles, last progress, seconds without progress after which it hangs (0: never), process, lengths, names,
# and the job number again: who reads two that differ has come in the middle of a write.
RECORD = struct.Struct(f"@QdddiHH{TOKEN}s{CLAIM}sQ")
MOMENT = struct.Struct("@d")
SETTLES_AT, PROGRESS_AT = 8, 16


class Look(NamedTuple):
    """What the main process sees of a process. Moments are of the monotonic clock, which is one for all processes.

    Attributes:
        process: its number, as the system has it.
        claim: of the job that it runs, or ran last.
        token: of that claim.
        settles_since: when the job's own code had ended; 0 while it runs.
        progress_at: when it last reported progress, or began.
        stall_after: seconds without progress after which it hangs; 0: never.
    """

    process: int
    claim: str
    token: str
    settles_since: float
    progress_at: float
    stall_after: float

    def hangs(self) -> bool:
        """Whether the job's own code runs, and has made no progress for too long."""
        silent = time.monotonic() - self.progress_at
        return not self.settles_since and 0 < self.stall_after < silent

    def settles(self, since: float = 0.0) -> bool:
        """Whether it records how a job has ended that began after this moment, and has still time for that."""
        return self.settles_since > since and time.monotonic() - self.settles_since < SETTLE_FOR

    def is_renewed(self) -> bool:
        """Whether its claim is to live on. One that has ended is not extended by its name: see `claim_renew.lua`."""
        if not self.token:  # its process renews it
            return False
        return self.settles() if self.settles_since else not self.hangs()


class Page:
    """The page of this process, which nobody else writes.

    Attributes:
        names_job: whether it had room for the names of the job that runs.
    """

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory, self._start = memory, start
        self._process, self._number = os.getpid(), 0
        self.names_job = False

    def begin(self, claim: str, token: str, stall_after: float) -> None:
        """A job begins; `stall_after` is 0 for one that never hangs."""
        name, its_token = claim.encode("utf-8", "backslashreplace"), token.encode("utf-8", "backslashreplace")
        self.names_job = len(name) <= CLAIM and len(its_token) <= TOKEN
        if not self.names_job:
            name = its_token = b""
        self._number = number = self._number + 1
        RECORD.pack_into(
            self._memory, self._start,
            number, 0.0, time.monotonic(), stall_after, self._process, len(its_token), len(name), its_token, name, number,
        )  # fmt: skip

    def note_progress(self) -> None:
        """The job goes on."""
        MOMENT.pack_into(self._memory, self._start + PROGRESS_AT, time.monotonic())

    def settle(self) -> None:
        """The job's own code has ended; what follows is to record that."""
        MOMENT.pack_into(self._memory, self._start + SETTLES_AT, time.monotonic())


class Pages:
    """The pages of the processes of one pool. There are none where it has no processes, or they are not forked."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._made_by = 0
        self.mine: Page | None = None
        call_in_child(self._forget_mine)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._memory is not None

    def _forget_mine(self) -> None:
        self.mine = None  # it is the parent's

    def make(self, number: int) -> None:
        """Make so many, in the main process, before it forks."""
        self._memory, self._made_by = mmap.mmap(-1, number * SIZE), os.getpid()

    def take(self, number: int) -> None:
        """Write to this page from now on, in a process of the pool."""
        memory = self._memory
        if memory is not None and self._made_by == os.getppid() and 0 <= number < len(memory) // SIZE:
            self.mine = Page(memory, number * SIZE)

    def look(self) -> list[Look]:
        """What all processes do that have run a job; some of them may have ended since."""
        memory = self._memory
        if memory is None or self._made_by != os.getpid():
            return []
        looks = [_read(memory, start) for start in range(0, len(memory), SIZE)]
        return [one for one in looks if one is not None]

    def of(self, process: int | None) -> Look | None:
        """What a process does; `None` where it has no page, has run nothing, or writes in this very moment."""
        return next((one for one in self.look() if one.process == process), None)


def _read(memory: mmap.mmap, start: int) -> Look | None:
    number, settles, progress, stall, process, of_token, of_claim, token, claim, again = RECORD.unpack_from(
        memory, start
    )
    if not process or number != again:
        return None
    try:
        return Look(process, claim[:of_claim].decode(), token[:of_token].decode(), settles, progress, stall)
    except UnicodeDecodeError:  # half of one name, half of the next
        return None
