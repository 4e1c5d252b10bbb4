"""`LaneClaims`: takes the claims of a group part by part, the next part while the one before runs (protocol 12)."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from redis.exceptions import RedisError

from conventions.execution.attempt import this_call
from conventions.execution.begin import loaded
from conventions.execution.settle import Outcomes
from conventions.fast_lane.claims_together import AskedTogether
from conventions.fast_lane.group_member import GroupMember, Prepared
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import ClaimRequest

logger = logging.getLogger(__name__)


class LaneClaims:
    """The messages of a group that have not begun.

    Args:
        app: the application.
        parts: in the order in which they run.
        outcomes: where their successes are recorded.
        hostname: of the worker.
    """

    def __init__(self, app: Any, parts: Sequence[Sequence[GroupMember]], outcomes: Outcomes, hostname: str) -> None:
        self._app, self._outcomes, self._hostname = app, outcomes, hostname
        self._parts = deque(parts)  # not asked for
        self._asked: Sequence[GroupMember] = ()
        self._call: AskedTogether | None = None  # that asks for those
        self._ready: deque[GroupMember] = deque()
        self._part_size = 0  # of the last one that was asked for
        self._last: ClaimRequest | None = None  # that was granted
        self._start = this_call()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many have not begun."""
        return len(self._ready) + sum(map(len, self._parts)) + len(self._asked)

    def next(self) -> GroupMember | None:
        """The next one to run; waits for the server where its claim is under way."""
        self.look_ahead()
        if not self._ready and self._call is not None:
            self._read(self._call)
        return self.next_at_once()

    def next_at_once(self) -> GroupMember | None:
        """The same, but `None` where the server would have to be waited for."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def next_start(self) -> ClaimRequest | None:
        """The claim of the next one, whose start is to be counted; `None` where that is not known yet, or there is none."""
        with self._lock:
            mate = self._ready[0] if self._ready else None
        return None if mate is None or mate.counted or mate.job is None else mate.job.claim

    def look_ahead(self) -> None:
        """Ask for the claims of the next part as soon as half of the last one has begun."""
        with self._lock:
            if self._asked or not self._parts or len(self._ready) > self._part_size // 2:
                return
            self._asked = part = self._parts.popleft()
        self._part_size = len(part)
        for mate in part:
            self._prepare(mate)
        try:
            requests = [mate.job.claim for mate in part if mate.job is not None]
            self._call = AskedTogether(self._app.claims, requests, self._last)
        except Exception:  # what is wrong is found again when each runs by itself
            logger.exception("a group cannot be prepared: each job asks for itself")
            self._make_ready()

    def _prepare(self, mate: GroupMember) -> None:
        try:
            mate.read(self._app, self._hostname, self._start)
        except Exception:
            logger.exception("a message of a group cannot be read")

    def _read(self, call: AskedTogether) -> None:
        self._call, part = None, self._asked
        try:
            with closing(call):
                if not part:  # they were given back meanwhile
                    return
                # Their arguments are checked while the server works.
                claimed = [(mate, mate.job) for mate in part if mate.job is not None]
                found = [loaded(mate.task, mate.kwargs) for mate, _ in claimed]
                answers = call.answers()
        except RedisError as error:  # each asks for itself, and says so where that fails, too
            logger.info("a group's claims were not answered: %s", error)
        except Exception:  # the same as above
            logger.exception("a group cannot be prepared: each job asks for itself")
        else:
            for (mate, job), (values, fault), answer in zip(claimed, found, answers, strict=True):
                mate.run_by(Prepared(job, values, fault, answer, self._outcomes))
                mate.counted = not isinstance(answer, Granted) or self._last is None
                if isinstance(answer, Granted):
                    self._last = job.claim
        self._make_ready()

    def _make_ready(self) -> None:
        with self._lock:
            self._ready.extend(self._asked)  # none where they were given back meanwhile
            self._asked = ()

    def close(self) -> None:
        """Ask for no more."""
        if self._call is not None:
            self._call.close()

    def give_back(self) -> int:
        """Return all to their queues, from another thread. Returns how many. Raises: RedisError."""
        with self._lock:
            waiting = [*self._ready, *self._asked, *(mate for part in self._parts for mate in part)]
            self._ready.clear()
            self._asked = ()
            self._parts.clear()
        held = [mate.held for mate in waiting]
        return int(self._app.broker.give_back(held)) if held else 0
