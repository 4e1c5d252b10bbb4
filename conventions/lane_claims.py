"""`LaneClaims`: takes the claims of a group part by part, the next part while the one before runs (protocol 12)."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from redis.exceptions import RedisError

from conventions.beginning import PREPARED, Prepared, loaded
from conventions.broker import Held
from conventions.claim_answers import Granted
from conventions.idempotency import ClaimRequest
from conventions.job import Job, this_call
from conventions.lane_mate import Mate
from conventions.script_call import ScriptCall
from conventions.settling import Settling

logger = logging.getLogger(__name__)


class LaneClaims:
    """The messages of a group that have not begun.

    Args:
        app: the application.
        parts: in the order in which they run.
        settling: records how they end.
    """

    def __init__(self, app: Any, parts: Sequence[Sequence[Mate]], settling: Settling) -> None:
        self._app, self._settling = app, settling
        self._parts = deque(parts)  # not asked for
        self._asked: tuple[Sequence[Mate], ScriptCall] | None = None
        self._ready: deque[Mate] = deque()
        self._part = 0  # how many the last part had
        self._last: ClaimRequest | None = None  # that was granted
        self._start = this_call()
        self._lock = threading.Lock()
        self._given_back = False

    def __len__(self) -> int:
        """How many have not begun."""
        return len(self._ready) + sum(map(len, self._parts)) + (len(self._asked[0]) if self._asked else 0)

    def next(self) -> Mate | None:
        """The next one to run; waits for the server where its claim is under way."""
        self.look_ahead()
        if not self._ready and self._asked is not None:
            self._read()
        return self.next_at_once()

    def next_at_once(self) -> Mate | None:
        """The same, but `None` where the server would have to be waited for."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def look_ahead(self) -> None:
        """Ask for the claims of the next part as soon as half of the last one has begun."""
        with self._lock:
            if self._asked is not None or not self._parts or len(self._ready) > self._part // 2:
                return
            part = self._parts.popleft()
        self._part = len(part)
        try:
            for mate in part:
                mate.job = Job.read(mate.task, mate.kwargs, mate.request.get, self._start)
                mate.job.settling = self._settling
            requests = [mate.job.claim for mate in part if mate.job is not None]
            call = self._app.claims.ask(requests, together=True, after=self._last)
        except Exception:  # what is wrong with one of them is found again when it runs by itself
            logger.exception("a group cannot be prepared: each job asks for itself")
            self._add(part)
        else:
            with self._lock:
                self._asked = part, call

    def _read(self) -> None:
        assert self._asked is not None  # noqa: S101  # who calls has looked
        part, call = self._asked
        try:
            with closing(call):
                # Their arguments are checked while the server works.
                found = [loaded(mate.task, mate.kwargs) for mate in part]
                answers = self._app.claims.answers(call)
        except RedisError:  # each asks for itself, and says so where that fails, too
            for mate in part:
                mate.job = None
        except Exception:  # the same as above
            logger.exception("a group cannot be prepared: each job asks for itself")
        else:
            for mate, (values, fault), answer in zip(part, found, answers, strict=True):
                assert mate.job is not None  # noqa: S101  # it was asked for
                mate.request[PREPARED] = Prepared(mate.job, values, fault, answer)
                mate.counted = not isinstance(answer, Granted) or self._last is None
                if isinstance(answer, Granted):
                    self._last = mate.job.claim
        with self._lock:
            self._asked = None
        self._add(part)

    def _add(self, part: Sequence[Mate]) -> None:
        with self._lock:
            if not self._given_back:
                self._ready.extend(part)

    def close(self) -> None:
        """Ask for no more."""
        if self._asked is not None:
            self._asked[1].close()

    def give_back(self) -> int:
        """Return all to their queues, from another thread. Returns how many. Raises: RedisError."""
        with self._lock:
            self._given_back = True
            waiting = [
                *self._ready,
                *(self._asked[0] if self._asked else ()),
                *(one for part in self._parts for one in part),
            ]
            self._ready.clear()
            self._parts.clear()
        held: list[Held] = [mate.held for mate in waiting]
        return int(self._app.broker.give_back(held)) if held else 0
