"""`LaneClaims`: asks for the claims of a group, one part at a time. It asks for the next part while the last one runs (protocol 12)."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import closing

from redis.exceptions import RedisError

from conventions.execution.application import Application
from conventions.execution.attempt import this_call
from conventions.execution.begin import loaded
from conventions.execution.settle import Outcomes
from conventions.fast_lane.claims_together import AskedTogether
from conventions.fast_lane.group_member import GroupMember, Prepared
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import ClaimRequest
from conventions.sealing.sealed_body import UNOPENED

logger = logging.getLogger(__name__)


class LaneClaims:
    """The members of a group that have not begun, and their claims.

    Args:
        app: the application.
        parts: the members, in the order in which they run. The claims of one part are asked for in one call.
        outcomes: records the jobs that succeed.
        hostname: the name of the worker.
    """

    def __init__(
        self, app: Application, parts: Sequence[Sequence[GroupMember]], outcomes: Outcomes, hostname: str
    ) -> None:
        self._app, self._outcomes, self._hostname = app, outcomes, hostname
        self._parts = deque(parts)  # their claims are not asked for yet
        self._asked: Sequence[GroupMember] = ()  # their claims are asked for, and not answered yet
        self._call: AskedTogether | None = None  # the call that asks for them
        self._ready: deque[GroupMember] = deque()  # may run
        self._part_size = 0  # size of the last part that was asked for
        self._last: ClaimRequest | None = None  # the last claim that was granted
        self._start = this_call()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many members have not begun."""
        return len(self._ready) + sum(map(len, self._parts)) + len(self._asked)

    def next(self) -> GroupMember | None:
        """The next member to run. Waits for the server if its claim is not answered yet."""
        self.look_ahead()
        if not self._ready and self._call is not None:
            self._read(self._call)
        return self.next_at_once()

    def next_at_once(self) -> GroupMember | None:
        """The next member to run; `None` if there is none, or if this would have to wait for the server."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def next_start(self) -> ClaimRequest | None:
        """The claim of the next member, if its start is not counted yet. `None` if there is no next member, or it has no answer yet."""
        with self._lock:
            member = self._ready[0] if self._ready else None
        return None if member is None or member.counted or member.job is None else member.job.claim

    def look_ahead(self) -> None:
        """Ask for the claims of the next part as soon as half of the last one has begun."""
        with self._lock:
            if self._asked or not self._parts or len(self._ready) > self._part_size // 2:
                return
            self._asked = part = self._parts.popleft()
        self._part_size = len(part)
        for member in part:
            self._prepare(member)
        try:
            requests = [member.job.claim for member in part if member.job is not None]
            self._call = AskedTogether(self._app.claims, requests, self._last)
        except Exception:  # each job asks for its own claim, and meets the same error
            logger.exception("a group cannot be prepared: each job asks for itself")
            self._make_ready()

    def _prepare(self, member: GroupMember) -> None:
        try:
            member.read(self._app, self._hostname, self._start)
        except Exception:
            logger.exception("a message of a group cannot be read")

    def _read(self, call: AskedTogether) -> None:
        self._call, part = None, self._asked
        try:
            with closing(call):
                if not part:  # another thread has given them back
                    return
                # Check the arguments while the server works.
                claimed = [(member, member.job) for member in part if member.job is not None]
                found = [
                    loaded(member.task, member.kwargs, member.request.known.get(UNOPENED)) for member, _ in claimed
                ]
                answers = call.answers()
        except RedisError as error:  # each job asks for its own claim, and logs it if that fails, too
            logger.info("a group's claims were not answered: %s", error)
        except Exception:  # each job asks for its own claim, and meets the same error
            logger.exception("a group cannot be prepared: each job asks for itself")
        else:
            for (member, job), (values, fault), answer in zip(claimed, found, answers, strict=True):
                member.run_by(Prepared(job, values, fault, answer, self._outcomes))
                member.counted = not isinstance(answer, Granted) or self._last is None
                if isinstance(answer, Granted):
                    self._last = job.claim
        self._make_ready()

    def _make_ready(self) -> None:
        with self._lock:
            self._ready.extend(self._asked)  # empty if another thread has given them back
            self._asked = ()

    def close(self) -> None:
        """Stop asking for claims."""
        if self._call is not None:
            self._call.close()

    def give_back(self) -> int:
        """Return all of them to their queues. Called by another thread. Returns how many. Raises: RedisError."""
        with self._lock:
            waiting = [*self._ready, *self._asked, *(member for part in self._parts for member in part)]
            self._ready.clear()
            self._asked = ()
            self._parts.clear()
        held = [member.held for member in waiting]
        return int(self._app.broker.give_back(held)) if held else 0
