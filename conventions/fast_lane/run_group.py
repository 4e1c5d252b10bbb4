"""How a process of the pool runs a group of short jobs (protocol 12).

It asks for their claims together. It runs each job like any other job, and records each outcome as the job ends. If one job
takes long after all, the jobs behind it go back to their queues.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celery.exceptions import Reject
from redis.exceptions import RedisError

from conventions.broker.batch_membership import Member
from conventions.core.lease_timings import SETTLE_FOR
from conventions.execution.application import Application
from conventions.execution.batch_follow_up import follow_up
from conventions.execution.run import RUN_BY
from conventions.execution.settle import recorded, taken_over
from conventions.fast_lane.call_job import Ended, is_observed, trace
from conventions.fast_lane.group_member import GroupMember, Handed, Prepared
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.group_watch import lane_watch
from conventions.fast_lane.lane_claims import LaneClaims
from conventions.fast_lane.outcome_stream import OutcomeStream
from conventions.fast_lane.traced_task import TracedTask
from conventions.idempotency.claim_answers import Granted
from conventions.idempotency.claims import Settlement
from conventions.library_internals.billiard import ExceptionInfo
from conventions.library_internals.celery import current_application

logger = logging.getLogger(__name__)


_serving: list[
    Application
] = []  # of this worker: a job may have made a plain one, which is Celery's current application then


def serve(app: Application) -> None:
    """Run the groups of this application, in this process and in those that it forks."""
    _serving[:] = [app]


def run_group(parts: Sequence[Sequence[Handed]], hostname: str) -> list[tuple[Any, ...] | None]:
    """Run these messages, in order. The claims of each part are asked for in one call.

    Returns how each ended, as the fields of `Ended`; `None` for a message that was given back before it began.
    """
    current = current_application()  # found as Celery's own tracer finds it
    app = current if hasattr(type(current), "claims") else _serving[0]
    group = GroupRun(app, [[GroupMember(one) for one in part] for part in parts], hostname)
    with lane_watch().over(group):
        return [one and tuple(one) for one in group.run()]  # a tuple takes half as long to pickle


class GroupRun:
    """Runs the members of one group, one after the other, in this process.

    Attributes:
        begun_at: when the first member began, on the monotonic clock.
        running: the member that runs now.
        running_since: when it began, on the monotonic clock.
        waiting: the members that have not begun.
    """

    def __init__(self, app: Application, parts: Sequence[Sequence[GroupMember]], hostname: str) -> None:
        self._app = app
        self._members = [member for part in parts for member in part]
        self._outcomes = OutcomeStream(app.claims)
        self.waiting = LaneClaims(app, parts, self._outcomes, hostname)
        self._ended: dict[GroupMember, Ended] = {}
        self._observed: dict[TracedTask, bool] = {}
        self.begun_at: float | None = None
        self.running: GroupMember | None = None
        self.running_since = 0.0

    def run(self) -> list[Ended | None]:
        """Run all members. Returns how each ended; `None` for one that was given back."""
        try:
            while (member := self._begin_next()) is not None:
                self.waiting.look_ahead()
                self._run_one(member)
        finally:
            self.waiting.close()
            try:
                self._read_answers()
            except Exception:  # nobody knows what is recorded: these messages come again, and their claims tell
                logger.exception("what a group has recorded is not known")
                self._ended = {
                    member: Ended("raised", ExceptionInfo()) if one.how == "done" else one
                    for member, one in self._ended.items()
                }
        return [self._ended.get(member) for member in self._members]

    def _begin_next(self) -> GroupMember | None:
        """The next member, or `None`. Its start is sent with the last outcome. From now on nobody may give it back."""
        if (
            self.begun_at is not None and time.monotonic() - self.begun_at > RETURN_AFTER
        ):  # also if the process stood still
            self._outcomes.flush()
            with suppress(RedisError):
                self.give_back_waiting()
        member = self.waiting.next_at_once()
        if member is None:
            self._outcomes.flush()  # the next line may wait for the server
            member = self.waiting.next()
        if member is None or member.counted or member.job is None:
            self._outcomes.begin(None)
        else:
            member.counted = True
            self._outcomes.begin(member.job.claim)
        if self.begun_at is None:
            self.begun_at = time.monotonic()  # the wait for the first claims does not count
        return member

    def _run_one(self, member: GroupMember) -> None:
        before = self._outcomes.count
        self.running, self.running_since = member, time.monotonic()
        try:
            observed = self._observed.get(member.task)
            if observed is None:
                observed = self._observed[member.task] = is_observed(member.task)
            self._outcomes.at_once = observed  # signal receivers and hooks may take long after the job
            self._outcomes.next_up = self.waiting.next_start() if observed else None
            ended = trace(member.task, member.id, member.args, member.kwargs, member.request, observed=observed)
        except Exception:  # noqa: BLE001  # an error of one job must not end the others
            ended = Ended("raised", ExceptionInfo())
        finally:
            self.running = None
        how, value, runtime, _ = ended
        if how == "succeeded" and self._outcomes.count > before:
            how = "done"
        if runtime is None:  # Celery measures only successes
            runtime = time.monotonic() - self.running_since
        has_run = member.job is not None and member.job.started_at is not None
        if how in ("failed", "raised") and not has_run:
            self._release(member)
        self._ended[member] = Ended(how, value, runtime, has_run)
        member.forget()

    def _release(self, member: GroupMember) -> None:
        """A hook has failed before the job began, which has its claim already. Its message comes again, and must not wait for its lease."""
        prepared = member.request.known.get(RUN_BY)
        if member.job is not None and isinstance(prepared, Prepared) and isinstance(prepared.answer, Granted):
            with suppress(RedisError):  # then it waits
                self._app.claims.release(member.job.claim.claim, member.token)

    def _read_answers(self) -> None:
        if (page := self._app.pages.mine) is not None:
            page.settle()  # the worker also waits while outcomes are recorded
        until = time.monotonic() + SETTLE_FOR  # for all members together
        by_token = {member.token: member for member in self._members if member.token}
        joined: dict[str, Member] = {}
        for settlement, is_recorded in self._outcomes.answers():
            member = by_token[settlement.request.token]
            if member not in self._ended:  # an exception ends this process
                continue
            if not is_recorded:
                self._ended[member] = self._settle_again(self._ended[member], settlement, until)
            if settlement.join is not None and self._ended[member].how == "done":
                joined[settlement.join.member.batch_id] = settlement.join.member
        for batch_member in joined.values():
            follow_up(self._app, batch_member)

    def _settle_again(self, ended: Ended, settlement: Settlement, until: float) -> Ended:
        """Settle an outcome that the short script cannot record, or that the server may not have."""
        try:
            if recorded(self._app, settlement, max(0.0, until - time.monotonic())) == "refused":
                raise taken_over()  # Celery needs the exception with its traceback
        except Reject:
            return ended._replace(how="failed", value=ExceptionInfo(internal=True))
        return ended

    # Called by the thread of `LaneWatch`.

    def give_back_waiting(self) -> int:
        """Return the members that have not begun to their queues. Returns how many. Raises: RedisError."""
        return self.waiting.give_back()

    def settle_recorded(self) -> None:
        """Settle what has ended with the whole script, so that no ended job looks as if it still runs. Raises: RedisError."""
        self._outcomes.settle_again()
