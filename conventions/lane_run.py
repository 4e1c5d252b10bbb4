"""What a process of the pool does with a group of short jobs (protocol 12).

Their claims are taken in one round trip; each is run like any job, and recorded as it ends. Those that
have not begun are given back when one takes long after all.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import current_app
from celery.app.task import Context
from celery.exceptions import Reject
from redis.exceptions import RedisError

from conventions.beginning import PREPARED, Prepared, loaded
from conventions.broker import Held
from conventions.claim_answers import Granted
from conventions.following import follow_up
from conventions.idempotency import ClaimRequest, Settlement
from conventions.job import Job
from conventions.lane_trace import Ended, is_observed, trace
from conventions.membership import Member
from conventions.outcomes import recorded, taken_over
from conventions.settling import Settling

logger = logging.getLogger(__name__)

RETURN_AFTER = 1.0  # seconds after which what waits in a group goes back
CELERYS = frozenset([*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"])

type Handed = tuple[str, str, dict[str, Any], dict[str, Any]]
"""A message as the main process hands it over: task, id, request with its arguments, and what else was in its body."""


class Mate:
    """One message of a group."""

    __slots__ = ("args", "counted", "id", "job", "kwargs", "request", "task")

    def __init__(self, app: Any, task: str, id: str, request: dict[str, Any], embed: dict[str, Any]) -> None:  # noqa: A002
        self.task, self.id, self.request = app.tasks[task], id, request
        self.args, self.kwargs = request["args"], request["kwargs"]
        request.update(embed, is_eager=False)
        # As `Context` would find them, but for a set that it makes anew for each message.
        request["headers"] = {name: value for name, value in request.items() if name not in CELERYS} or None
        self.job: Job | None = None
        self.counted = True  # its start was counted, or is by whoever runs it

    @property
    def held(self) -> Held | None:
        """The message and its claim; `None` where that was not asked for."""
        if self.job is None or self.job.held is None:
            return None
        return replace(self.job.held, claim=self.job.claim.claim, token=self.job.token)


def run_group(handed: Sequence[Handed]) -> list[Ended | None]:
    """Run these messages, in order. Returns how each ended; `None` for one that was given back before it began."""
    app = current_app._get_current_object()  # noqa: SLF001  # as Celery's own tracer finds it
    group = GroupRun(app, [Mate(app, *one) for one in handed])
    with app.lane_watch.over(group):
        return group.run()


class GroupRun:
    """Messages that run in one process, one after the other.

    Attributes:
        begun_at: when, on the monotonic clock.
        running: the one that runs now.
        running_since: since when.
    """

    def __init__(self, app: Any, mates: list[Mate]) -> None:
        self._app = app
        self._mates = mates
        self._waiting = deque(mates)
        self._lock = threading.Lock()
        self._settling = Settling(app.claims, self._take_next_claim)
        self._next: Mate | None = None
        self._ended: dict[Mate, Ended] = {}
        self._observed: dict[Any, bool] = {}  # by task
        self.begun_at = time.monotonic()
        self.running: Mate | None = None
        self.running_since = self.begun_at

    def run(self) -> list[Ended | None]:
        """See `run_group`."""
        try:
            self._prepare()
        except Exception:  # what is wrong with one of them is found again when it runs by itself
            logger.exception("a group cannot be prepared: each job asks for itself")
        self.begun_at = time.monotonic()  # however long the server took to answer
        try:
            while (mate := self._next or self._take_next()) is not None:
                self._next = None
                if not mate.counted and mate.job is not None:
                    mate.counted = True
                    self._settling.begin(mate.job.claim)
                self._run_one(mate)
        finally:
            try:
                self._read_answers()
            except Exception:  # nobody knows what is recorded: those come again, and find it
                logger.exception("what a group has recorded is not known")
                self._ended = {
                    mate: Ended("raised", ExceptionInfo()) if one.how == "done" else one
                    for mate, one in self._ended.items()
                }
        return [self._ended.get(mate) for mate in self._mates]

    def _prepare(self) -> None:
        """Ask for all claims, and check the arguments while the server works."""
        jobs = []
        for mate in self._mates:
            job = Job.read(mate.task, mate.kwargs, mate.request.get)
            job.settling = self._settling
            jobs.append(job)
        with closing(self._app.claims.ask([job.claim for job in jobs], together=True)) as asked:
            found = [loaded(mate.task, mate.kwargs) for mate in self._mates]
            try:
                answers = self._app.claims.answers(asked)
            except RedisError:  # each asks for itself, and says so where that fails, too
                return
        granted = 0
        for mate, job, (values, fault), answer in zip(self._mates, jobs, found, answers, strict=True):
            mate.job = job
            mate.request[PREPARED] = Prepared(job, values, fault, answer)
            granted += isinstance(answer, Granted)
            mate.counted = granted == 1 or not isinstance(answer, Granted)

    def _take_next(self) -> Mate | None:
        if time.monotonic() - self.begun_at > RETURN_AFTER:  # also where this process stood still
            with suppress(RedisError):
                self.give_back_waiting()
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _take_next_claim(self) -> ClaimRequest | None:
        """Begin the next one together with the outcome of the one before."""
        self._next = mate = self._take_next()
        if mate is None or mate.counted or mate.job is None:
            return None
        mate.counted = True
        return mate.job.claim

    def _run_one(self, mate: Mate) -> None:
        before = self._settling.count
        self.running, self.running_since = mate, time.monotonic()
        observed = self._observed.get(mate.task)
        if observed is None:
            observed = self._observed[mate.task] = is_observed(mate.task)
        try:
            ended = trace(mate.task, mate.id, mate.args, mate.kwargs, mate.request, observed=observed)
        except Exception:  # noqa: BLE001  # what the tracer lets through must not end the others
            ended = Ended("raised", ExceptionInfo())
        finally:
            self.running = None
        if ended.how == "succeeded" and self._settling.count > before:
            ended = ended._replace(how="done")
        if ended.runtime is None:  # Celery measures successes
            ended = ended._replace(runtime=time.monotonic() - self.running_since)
        self._ended[mate] = ended

    def _read_answers(self) -> None:
        by_token = {mate.job.token: mate for mate in self._mates if mate.job is not None}
        joined: dict[str, Member] = {}
        for settlement, is_recorded in self._settling.answers():
            mate = by_token[settlement.request.token]
            if mate not in self._ended:  # something ends this process
                continue
            if not is_recorded:
                self._ended[mate] = self._settle_again(self._ended[mate], settlement)
            if settlement.join is not None and self._ended[mate].how == "done":
                joined[settlement.join.member.batch_id] = settlement.join.member
        for member in joined.values():
            follow_up(self._app, member)

    def _settle_again(self, ended: Ended, settlement: Settlement) -> Ended:
        """An outcome that takes more than the short script does, or that the server may not have taken."""
        try:
            if recorded(self._app, settlement) == "refused":
                raise taken_over()  # Celery wants the exception with where it was raised
        except Reject:
            return Ended("failed", ExceptionInfo(internal=True), ended.runtime)
        return ended

    # Called by the thread that watches.

    def give_back_waiting(self) -> int:
        """Return those that have not begun to their queues. Returns how many. Raises: RedisError."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque(mate for mate in self._waiting if mate.held is None)
        returned = 0
        for is_counted in (False, True):  # a start that was counted, as of the first, is taken back
            some = [mate.held for mate in waiting if mate.held is not None and mate.counted is is_counted]
            returned += self._app.broker.give_back(some, counted=not is_counted) if some else 0
        return returned

    def settle_recorded(self) -> None:
        """Record by the whole script what has ended: nothing of it may look as if it ran. Raises: RedisError."""
        self._settling.settle_again()
