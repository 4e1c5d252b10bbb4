"""What a process of the pool does with a group of short jobs (protocol 12).

Their claims are taken together; each is run like any job, and recorded as it ends. Those that have not begun are given back
when one takes long after all.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celery.exceptions import Reject
from redis.exceptions import RedisError

from conventions.broker.batch_membership import Member
from conventions.execution.batch_follow_up import follow_up
from conventions.execution.settle import recorded, taken_over
from conventions.fast_lane.claims import LaneClaims
from conventions.fast_lane.group_member import GroupMember, Handed
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.outcome_stream import OutcomeStream
from conventions.fast_lane.trace import Ended, is_observed, trace
from conventions.fast_lane.watch import lane_watch
from conventions.idempotency.claims import Settlement
from conventions.idempotency.process_pages import SETTLE_FOR
from conventions.library_internals.billiard import ExceptionInfo
from conventions.library_internals.celery import current_application

logger = logging.getLogger(__name__)


def run_group(parts: Sequence[Sequence[Handed]], hostname: str) -> list[tuple[Any, ...] | None]:
    """Run these messages, in order; the claims of each part are taken together.

    Returns how each ended, as `Ended` takes it; `None` for one that was given back before it began.
    """
    app = current_application()  # as Celery's own tracer finds it
    group = GroupRun(app, [[GroupMember(one) for one in part] for part in parts], hostname)
    with lane_watch().over(group):
        return [one and tuple(one) for one in group.run()]  # which takes half as long to pickle


class GroupRun:
    """Messages that run in one process, one after the other.

    Attributes:
        begun_at: when, on the monotonic clock.
        running: the one that runs now.
        running_since: since when.
        waiting: those that have not begun.
    """

    def __init__(self, app: Any, parts: Sequence[Sequence[GroupMember]], hostname: str) -> None:
        self._app = app
        self._mates = [mate for part in parts for mate in part]
        self._outcomes = OutcomeStream(app.claims)
        self.waiting = LaneClaims(app, parts, self._outcomes, hostname)
        self._ended: dict[GroupMember, Ended] = {}
        self._observed: dict[Any, bool] = {}  # by task
        self.begun_at: float | None = None
        self.running: GroupMember | None = None
        self.running_since = 0.0

    def run(self) -> list[Ended | None]:
        """See `run_group`."""
        try:
            while (mate := self._begin_next()) is not None:
                self.waiting.look_ahead()
                self._run_one(mate)
        finally:
            self.waiting.close()
            try:
                self._read_answers()
            except Exception:  # nobody knows what is recorded: those come again, and find it
                logger.exception("what a group has recorded is not known")
                self._ended = {
                    mate: Ended("raised", ExceptionInfo()) if one.how == "done" else one
                    for mate, one in self._ended.items()
                }
        return [self._ended.get(mate) for mate in self._mates]

    def _begin_next(self) -> GroupMember | None:
        """With the outcome of the one before, the next begins: from now on nobody may give it back as one that has not."""
        if self.begun_at is not None and time.monotonic() - self.begun_at > RETURN_AFTER:  # also where it stood still
            self._outcomes.flush()
            with suppress(RedisError):
                self.give_back_waiting()
        mate = self.waiting.next_at_once()
        if mate is None:
            self._outcomes.flush()  # the server may have to be waited for
            mate = self.waiting.next()
        if mate is None or mate.counted or mate.job is None:
            self._outcomes.begin(None)
        else:
            mate.counted = True
            self._outcomes.begin(mate.job.claim)
        if self.begun_at is None:
            self.begun_at = time.monotonic()  # however long the server took to answer
        return mate

    def _run_one(self, mate: GroupMember) -> None:
        before = self._outcomes.count
        self.running, self.running_since = mate, time.monotonic()
        try:
            observed = self._observed.get(mate.task)
            if observed is None:
                observed = self._observed[mate.task] = is_observed(mate.task)
            self._outcomes.at_once = observed  # what others do after the job may take long
            self._outcomes.next_up = self.waiting.next_start() if observed else None
            ended = trace(mate.task, mate.id, mate.args, mate.kwargs, mate.request, observed=observed)
        except Exception:  # noqa: BLE001  # what the tracer lets through must not end the others
            ended = Ended("raised", ExceptionInfo())
        finally:
            self.running = None
        how, value, runtime = ended
        if how == "succeeded" and self._outcomes.count > before:
            how = "done"
        if runtime is None:  # Celery measures successes
            runtime = time.monotonic() - self.running_since
        self._ended[mate] = Ended(how, value, runtime)
        mate.forget()

    def _read_answers(self) -> None:
        if (page := self._app.pages.mine) is not None:
            page.settle()  # what follows is waited for, too
        until = time.monotonic() + SETTLE_FOR  # of all of them together
        by_token = {mate.token: mate for mate in self._mates if mate.token}
        joined: dict[str, Member] = {}
        for settlement, is_recorded in self._outcomes.answers():
            mate = by_token[settlement.request.token]
            if mate not in self._ended:  # something ends this process
                continue
            if not is_recorded:
                self._ended[mate] = self._settle_again(self._ended[mate], settlement, until)
            if settlement.join is not None and self._ended[mate].how == "done":
                joined[settlement.join.member.batch_id] = settlement.join.member
        for member in joined.values():
            follow_up(self._app, member)

    def _settle_again(self, ended: Ended, settlement: Settlement, until: float) -> Ended:
        """An outcome that takes more than the short script does, or that the server may not have taken."""
        try:
            if recorded(self._app, settlement, max(0.0, until - time.monotonic())) == "refused":
                raise taken_over()  # Celery wants the exception with where it was raised
        except Reject:
            return Ended("failed", ExceptionInfo(internal=True), ended.runtime)
        return ended

    # Called by the thread that watches.

    def give_back_waiting(self) -> int:
        """Return those that have not begun to their queues. Returns how many. Raises: RedisError."""
        return self.waiting.give_back()

    def settle_recorded(self) -> None:
        """Record by the whole script what has ended: nothing of it may look as if it ran. Raises: RedisError."""
        self._outcomes.settle_again()
