"""`Overview`: what is wrong, the last hour by the minute, and how queues, failures, jobs, workers and schedules stand now."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NamedTuple, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.alerts.alert_store import AlertStore, Refusal
from conventions.alerts.episode import Episode, with_what_goes_on
from conventions.alerts.finding import Finding
from conventions.alerts.rules import all_findings, goes_on
from conventions.alerts.told_findings import shown_of
from conventions.alerts.what_rules_see import Look, look_at
from conventions.core.bounded_call import StillWaits
from conventions.core.deadline import Deadline
from conventions.execution.application import Application
from conventions.metrics.event_sums import added
from conventions.metrics.queue_length_history import Depths
from conventions.metrics.rates_and_times import Figures
from conventions.metrics.read_counts import CauseNow, Counts
from conventions.metrics.state_now import REDIS_WITHIN, SQL, SQL_WITHIN, Levels, QueueNow, RunningNow, fault_in_words
from conventions.metrics.worker_reports import WorkerNow
from conventions.now.last_actions import ActionNow, last_actions
from conventions.now.queue_flow import Flow, Minutes, first_minute, flows_of
from conventions.pauses.pause import Pause
from conventions.pauses.pause_store import Target
from conventions.records.journal import ODD
from conventions.schedules.schedule_summary import ScheduleSummary
from conventions.storage.database import utc_now
from conventions.storage.redis_store import Store

T = TypeVar("T")

MINUTES = 60
ACTIONS, MARKED = 10, 200  # actions that are shown, and that may be marks


@dataclass(frozen=True, slots=True)
class MinuteNow:
    """One minute.

    Attributes:
        minute: since the epoch.
        figures: of all tasks together.
        marks: what happened then, such as a deploy.
    """

    minute: int
    figures: Figures
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """An application at one moment.

    Attributes:
        findings: what is wrong, what is critical first.
        minutes: the last hour, the present minute last; empty if it could not be read.
        flows: how fast they fill and empty, by queue; one of which nothing is known is missing.
        judge: who judges alerts; empty: nobody; `None`: it could not be read.
        refusals: receivers of alerts that took nothing when they were last asked.
        actions: the last ones, newest first, each one once, on however many things; `None`: they could not be read.
        absent: what could not be read, and why.
    """

    levels: Levels
    findings: Sequence[Finding]
    minutes: Sequence[MinuteNow] = ()
    flows: Mapping[str, Flow] = field(default_factory=dict)
    judge: str | None = None
    refusals: Sequence[Refusal] = ()
    actions: Sequence[ActionNow] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """All of it in a few words."""
        count = len(self.findings)
        return "All is well" if not count else "1 thing is wrong" if count == 1 else f"{count:,} things are wrong"

    @property
    def queues(self) -> Sequence[QueueNow]:
        """The queues: those with messages first, the longest first."""
        found = list((self.levels.queues or {}).values())
        return sorted(found, key=lambda one: (-(one.level.ready or 0), -(one.level.delayed or 0), one.name))

    @property
    def running(self) -> Sequence[RunningNow]:
        """What runs, the longest first."""
        return self.levels.running or ()

    @property
    def causes(self) -> Sequence[CauseNow]:
        """The causes of failures, those that are retried most first."""
        return self.levels.causes or ()

    def sent_again(self, cause: CauseNow) -> int | None:
        """How many of its dead letters have been sent again since, and are not dead now. `None`: unknown."""
        return None if self.levels.sent_again is None else self.levels.sent_again.get(cause.fingerprint, 0)

    @property
    def workers(self) -> Sequence[WorkerNow]:
        """The workers by name."""
        return self.levels.workers or ()

    @property
    def pauses(self) -> Sequence[tuple[Target, Pause]]:
        """What people have paused, by kind and name."""
        return sorted((self.levels.pauses or {}).items(), key=lambda one: one[0])

    def waits_for(self, target: Target) -> int | None:
        """How many messages wait because it is paused: those of a task are held back, and not due. `None`: nobody can tell."""
        if target.kind == "task":
            return (self.levels.held or {}).get(target.name)
        queue = (self.levels.queues or {}).get(target.name) if target.kind == "queue" else None
        return None if queue is None else queue.level.ready

    @property
    def schedules_to_look_at(self) -> Sequence[ScheduleSummary]:
        """Those that are paused, overdue, or cannot be sent."""
        return [
            one
            for one in self.levels.schedules or ()
            if one.state.pause is not None or one.overdue is not None or one.state.fault
        ]


def overview_of(app: Application) -> Overview:
    """Look at an application whose tasks are loaded. Never raises what a server that is away raises."""
    thresholds = app.settings.thresholds
    look = look_at(app, thresholds)
    absent = dict(look.levels.absent)
    actions = _part(app.store, absent, "actions", lambda: SQL.call("actions", lambda: _actions(app), SQL_WITHIN))
    found = None
    if look.recent is None:
        absent["minutes"] = absent.get("counts", "")
    else:
        found = _part(app.store, absent, "minutes", lambda: _minutes(app, look, actions or ()))
    minutes, flows = found if found is not None else ((), {})
    # Redis does not answer where no worker could be read: nobody waits for it once more.
    alerts = None if look.levels.workers is None else _part(app.store, absent, "judge", lambda: _alerts(app))
    episodes = {} if alerts is None else alerts.episodes
    wrong = with_what_goes_on(episodes, all_findings(look, thresholds), goes_on(look, thresholds))
    wrong = [
        replace(one, since=one.since_not_after(episodes[one.key].began)) if one.key in episodes else one
        for one in wrong
    ]
    return Overview(
        look.levels,
        shown_of(wrong, episodes),
        minutes,
        flows,
        judge=None if alerts is None else alerts.judge,
        refusals=() if alerts is None else alerts.refusals,
        actions=None if actions is None else actions[:ACTIONS],
        absent=absent,
    )


class _Alerts(NamedTuple):
    """Who judges, the episodes that have not ended, and who is not told of them."""

    judge: str
    episodes: Mapping[str, Episode]
    refusals: Sequence[Refusal]


def _alerts(app: Application) -> _Alerts:
    store = AlertStore(app.store)
    return _Alerts(store.leader() or "", store.episodes(), store.refusals())


def _part(store: Store, absent: dict[str, str], name: str, read: Callable[[], T]) -> T | None:
    try:
        with Deadline(REDIS_WITHIN, once=False):
            return read()
    except (RedisError, SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        absent[name] = fault_in_words(error, store)
        return None


def _actions(app: Application) -> list[ActionNow]:
    if not app.database.is_there:
        return []
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        return last_actions(session, MARKED, utc_now() - timedelta(minutes=MINUTES))


def _minutes(app: Application, look: Look, actions: Sequence[ActionNow]) -> tuple[list[MinuteNow], dict[str, Flow]]:
    counts = Counts(app.store)
    last = counts.this_minute()
    first = last - MINUTES + 1
    found, depths = counts.minutes(first, last), Depths(app.store)
    marks = _marks(look.levels.releases or {}, actions)
    minutes = [
        MinuteNow(minute, Figures(added(list(found.get(minute, {}).values()))), tuple(marks.get(minute, ())))
        for minute in range(first, last + 1)
    ]
    begins = first_minute(last)
    passed = look.levels.at.timestamp() - 60 * last
    known = Minutes(found, depths.read(begins, last), depths.moved(begins, last), last, passed)
    return minutes, flows_of(known, look.levels, actions)


def _marks(releases: Mapping[str, float], actions: Sequence[ActionNow]) -> dict[int, list[str]]:
    """What happened in which minute. The first release that was ever seen is no deploy."""
    marks: dict[int, list[str]] = {}
    for name, at in sorted(releases.items(), key=lambda one: one[1])[1:]:
        marks.setdefault(int(at // 60), []).append(f"release {name}")
    for one in reversed(actions):  # the earlier first, also within a minute
        marks.setdefault(int(one.at.timestamp() // 60), []).append(one.mark)
    return marks
