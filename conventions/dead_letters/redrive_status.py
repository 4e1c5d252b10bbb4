"""The status of redrives, and what each waits for, for people on the command line and in the console (R18)."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from conventions.broker.consumed_queues import Consumers, ask_workers
from conventions.core.errors import SelectionUnknown
from conventions.core.redis_answers import fault_of
from conventions.dead_letters import groups, redrive_rows
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.redrive_pace_and_stop import OPEN, Tally, in_canary, unanswered_limit
from conventions.dead_letters.redrive_sender import who_steps
from conventions.execution.application import Application, broker_outages
from conventions.pauses.pause_store import Pauses
from conventions.storage.tables import DeadLetterRow, RedriveRow

KNOWN_FOR = 5.0  # seconds for which the workers' answer is reused, and how many letters a redrive has left
FEW_RELEASES = 5  # that a doubt names
MANY_EVENTS = 1000  # unrecorded events that are worth a remark
NO_LEADER = "no recorder leads: start a worker, since each brings one"


@dataclass(frozen=True, slots=True)
class RedriveStatus:
    """The status of one redrive.

    Attributes:
        row: the redrive.
        counts: the counts of its letters.
        waiting: how many letters were not sent yet; of one that has ended, how many it has left.
        by_others: how many of its letters somebody else has sent, discarded, or edited so that they match no more, before it came to them.
        queues: the number of unanswered letters in each queue.
        tasks: of these letters.
        error: class and message of the last error; `None`: nothing failed.
        why: what it waits for; empty once it has ended.
        stop_reason: why a person has stopped it; `None`: nobody has, or said why.
    """

    row: RedriveRow
    counts: Tally
    waiting: int = 0
    by_others: int = 0
    queues: Mapping[str, int] = field(default_factory=dict)
    tasks: frozenset[str] = frozenset()
    error: tuple[str, str] | None = None
    why: str = ""
    stop_reason: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether more may be sent."""
        return self.row.state in OPEN

    def numbers(self) -> dict[str, Any]:
        """Its numbers, under the names that people and scripts read."""
        counts = self.counts
        return {
            "total": self.row.total,
            "waiting": self.waiting,
            "by_others": self.by_others,
            "sent": counts.sent,
            "unanswered": counts.unanswered,
            "retrying": counts.retrying,
            "succeeded": counts.succeeded,
            "dead": counts.dead,
            "sent_again": min(self.row.sent_again, counts.dead),  # of these, by another redrive
            "ended": counts.ended,
            "failed": counts.dead,  # the name from before retrying letters had their own count
        }


class Watch:
    """Reads the status of redrives. It asks the workers for their queues only once in a while, since that takes long.

    Args:
        app: the application.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._consumed: Consumers | None = None
        self._left: dict[str, tuple[float, int]] = {}  # by redrive: until when it is known, and how many

    def look(self, rows: Iterable[RedriveRow], session: Session) -> list[RedriveStatus]:
        """The status of redrives from SQL, without what they wait for."""
        rows = list(rows)
        counts = redrive_rows.tallies(session, [row.id for row in rows])
        stopped = redrive_rows.stop_reasons(session, [row.id for row in rows if row.state == "cancelled"])
        found = [replace(_status_of(session, row, counts[row.id]), stop_reason=stopped.get(row.id)) for row in rows]
        return [self._without_others(session, one) if one.waiting and not one.is_open else one for one in found]

    def _without_others(self, session: Session, one: RedriveStatus) -> RedriveStatus:
        """Of one that has ended: what it has left is waiting for somebody only where it is dead still."""
        until, left = self._left.get(one.row.id, (0.0, 0))
        if time.monotonic() >= until:
            try:
                left = redrive_rows.left(session, one.row)
            except SelectionUnknown:
                return one
            self._left[one.row.id] = time.monotonic() + KNOWN_FOR, left
        left = min(left, one.waiting)
        return replace(one, waiting=left, by_others=one.waiting - left)

    def explain(self, found: Sequence[RedriveStatus]) -> list[RedriveStatus]:
        """Add what each redrive waits for. This asks Redis, the broker and the workers, so do not call it in a transaction."""
        if not any(one.is_open for one in found):
            return list(found)
        hindered = self._hindrance()
        return [_with_why(one, hindered or self._why(one)) if one.is_open else one for one in found]

    def _hindrance(self) -> str:
        """What stops all redrives."""
        try:
            if who_steps(self._app) is not None:
                return ""
            leader: Any = self._app.store.redis.get(self._app.store.key("recorder"))
        except RedisError as error:
            return f"Redis cannot be reached: {type(error).__name__}"
        if leader is None:
            return NO_LEADER
        name = leader.decode(errors="replace")
        return f"the recorder that leads, {name}, carries out no redrives yet: it begins within seconds, or is an older version"

    def _why(self, one: RedriveStatus) -> str:
        row, counts = one.row, one.counts
        if row.fault:
            return row.fault
        if row.state == "waiting":
            return "the recorder takes it up within a second"
        if not one.waiting:
            return f"all are sent; {self._answers(one)}" if counts.running else ""
        trying = in_canary(row, counts)
        if trying and counts.sent:
            return f"the canary: {self._answers(one)}"
        if not trying and counts.unanswered >= unanswered_limit(row, counts):
            return self._answers(one)
        return "" if trying else f"sends {row.rate:g} a second at the most"

    def _answers(self, one: RedriveStatus) -> str:
        """Which answers a redrive waits for, and why they take time."""
        parts = [f"waits for {letters_text(one.counts.unanswered)} without an answer"] if one.counts.unanswered else []
        if one.counts.retrying:
            parts.append(f"{letters_text(one.counts.retrying)} failed and will be tried again")
        parts += [self._queue(queue) for queue in sorted(one.queues)]
        try:
            events, paused = self._app.journal.length(), Pauses(self._app.store).read().names("task")
        except RedisError:
            events, paused = 0, frozenset()
        parts += [f"the task {task} is paused" for task in sorted(paused.intersection(one.tasks))]
        return "; ".join([*parts, f"{events:,} events are not recorded yet"] if events > MANY_EVENTS else parts)

    def _queue(self, queue: str) -> str:
        length, asked = self._length(queue), self.consumers()
        waits = f"queue {queue}" if length is None else f"queue {queue} has {length:,} waiting"
        if asked is not None and queue in asked.paused:
            waits += ", and is paused"
        elif asked is not None and queue not in asked.queues:
            waits += ", and no worker consumes it"
        return waits

    def _length(self, queue: str) -> int | None:
        try:
            return self._app.port.waiting(queue)
        except Exception:  # noqa: BLE001  # the length stays unknown, whatever the error
            return None

    def consumers(self) -> Consumers | None:
        """Which queues the workers consume, and which are paused. `None`: the broker cannot be asked."""
        with self._lock:
            if time.monotonic() - self._asked_at > KNOWN_FOR:
                try:
                    self._consumed = ask_workers(self._app.store, self._app.control)
                except broker_outages(self._app):
                    self._consumed = None
                self._asked_at = time.monotonic()
            return self._consumed


def doubts(
    app: Application, session: Session, which: Filter, releases: Callable[[], Mapping[str, Collection[str]]]
) -> list[str]:
    """Reasons not to send these letters now: an unknown task, a queue without a worker, one with two releases, no leading recorder.

    Args:
        app: the application.
        session: of SQL.
        which: the letters.
        releases: tells by which releases each queue is consumed, as `WorkerReports.releases`; it may raise RedisError.
    """
    kinds = dead_letters.kinds(session, which)
    unknown = sorted({str(task) for task, _ in kinds if task not in app.tasks})
    found = [f"task {task} is not registered here: its letters cannot be sent" for task in unknown]
    try:
        app.port.check()
        consumers = ask_workers(app.store, app.control)
        if app.store.redis.get(app.store.key("recorder")) is None:
            found.append(NO_LEADER)
        consumed, paused = releases(), Pauses(app.store).read().names("task")
    except broker_outages(app) as error:
        return [*found, fault_of(error, "the broker")]
    queues = {str(one) for _, one in kinds}
    found += [f"the queue {queue} is paused: what is sent waits there" for queue in sorted(queues & consumers.paused)]
    found += [
        f"the task {task} is paused: what is sent waits" for task in sorted({str(task) for task, _ in kinds} & paused)
    ]
    found += [f"no worker consumes the queue {queue}" for queue in sorted(queues - consumers.known)]
    return found + _of_releases([consumed.get(queue, ()) for queue in queues])


def doubts_of_edit(session: Session, which: Filter, releases: Callable[[], Mapping[str, Collection[str]]]) -> list[str]:
    """Reasons not to give these letters other arguments in one way: those that run them, or those by which they died, are of several releases.

    Args:
        session: of SQL.
        which: the letters.
        releases: as for `doubts`.
    """
    try:
        consumed = releases()
    except RedisError as error:
        found = [f"by which releases they would run is not known: {fault_of(error, 'Redis')}"]
    else:
        queues = {str(queue) for _, queue in dead_letters.kinds(session, which)}
        found = _of_releases([consumed.get(queue, ()) for queue in queues])
    died = sorted(groups.releases(session, which))
    if len(died) > 1:
        found.append(f"these letters died by different releases, {_named(died)}: their arguments may differ")
    return found


def _of_releases(consumed: Iterable[Collection[str]]) -> list[str]:
    """A doubt where one queue is consumed by several releases. Two queues of one release each leave none."""
    found = sorted({release for one in consumed if len(one) > 1 for release in one})
    if not found:
        return []
    either = "either" if len(found) == 2 else "any of them"
    return [f"workers of these queues run different releases, {_named(found)}: a letter may meet {either}"]


def _named(releases: Sequence[str]) -> str:
    shown, left = releases[:FEW_RELEASES], len(releases) - FEW_RELEASES
    return f"{', '.join(shown)} and {left} more" if left > 0 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def where_unanswered(session: Session, id: str) -> dict[tuple[str, str], int]:  # noqa: A002  # the word of the glossary
    """The number of unanswered letters by queue and task."""
    row = DeadLetterRow
    groups = (row.queue, row.task)
    query = select(*groups, func.count()).where(row.redrive_id == id, row.state == "redriving", row.answer.is_(None))
    return {(str(queue), str(task)): count for queue, task, count in session.execute(query.group_by(*groups))}


def _status_of(session: Session, row: RedriveRow, counts: Tally) -> RedriveStatus:
    is_open = row.state in OPEN
    if not is_open and counts.sent < row.sent:
        # Old letters are deleted. So the row's own counts are better.
        rest = row.sent - row.succeeded - row.failed
        counts = Tally(succeeded=row.succeeded, dead=row.failed, ended=max(rest, 0))
    waiting = max(row.total - counts.sent, 0)
    places = where_unanswered(session, row.id) if is_open and counts.unanswered else {}
    queues: Counter[str] = Counter()
    for (queue, _), number in places.items():
        queues[queue] += number
    tasks = frozenset(task for _, task in places)
    error = redrive_rows.last_error(session, row) if counts.failing else None
    return RedriveStatus(row, counts, waiting, queues=queues, tasks=tasks, error=error)


def _with_why(one: RedriveStatus, why: str) -> RedriveStatus:
    return replace(one, why=why)


def letters_text(count: int) -> str:
    """So many letters, in words."""
    return f"{count:,} {'letter' if count == 1 else 'letters'}"
