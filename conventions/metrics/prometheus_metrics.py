"""Metrics for Prometheus, by its conventions: seconds and bytes, counters that end with `_total`, few labels, and none with a host's name."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from conventions.broker.queue_level import QueueLevel
from conventions.metrics.event_sums import OVERLONG, errors_in
from conventions.metrics.histogram import RUN, WAIT, Histogram
from conventions.metrics.read_counts import Counts
from conventions.metrics.series import Series
from conventions.metrics.series_bound import OTHERS, most_letters, most_of, stable_totals
from conventions.metrics.state_now import LevelReader, Levels, QueueNow
from conventions.records.journal import KINDS

Totals = Mapping[Series, Mapping[str, int]]

PARTS = (
    "queues", "retrying", "workers", "running", "journal", "beats", "schedules", "letters", "memory", "pauses",
)  # fmt: skip
"""The parts of `Levels` that are served."""
MOST_ERRORS = 1000  # pairs of a series and an error
OF_SERIES = ["task", "queue"]


class MetricsCollector(Collector):
    """Reads everything anew for each scrape.

    Args:
        counts: what was counted.
        levels: reads how things stand.
        known: the series that say 0 before anything was counted of them.
    """

    def __init__(self, counts: Counts, levels: LevelReader, known: Callable[[], Sequence[Series]]) -> None:
        self._counts, self._levels, self._known = counts, levels, known

    def describe(self) -> list[Metric]:
        """Nothing: a registry must not read the servers when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics. Raises: RedisError: the scrape fails, so that Prometheus says `up == 0`."""
        known, counted = self._known(), self._counts.totals()
        totals, left = stable_totals(known, counted)
        levels = self._levels.read()
        others = {"counts": left}
        yield from _of_attempts(totals)
        yield from _of_queues(levels, others)
        yield from _of_workers(levels, {one.task for one in (*known, *counted) if one.task}, others)
        yield from _of_records(levels, others)
        yield from _of_schedules(levels, others)
        yield from _of_memory(levels)
        yield from _of_pauses(levels, others)
        summed = GaugeMetricFamily(
            "conventions_others", "How many names are not told one by one, but together as `others`.", labels=["part"]
        )
        for part, count in others.items():
            summed.add_metric([part], count)
        yield summed
        absent = GaugeMetricFamily(
            "conventions_part_unreadable",
            "1: what belongs to this part could not be read, and is left out.",
            labels=["part"],
        )
        for part in PARTS:
            absent.add_metric([part], float(part in levels.absent))
        yield absent


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry with this collector alone."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def _of_attempts(totals: Totals) -> Iterator[Metric]:
    outcomes = CounterMetricFamily("conventions_attempts", "Attempts by outcome.", labels=[*OF_SERIES, "outcome"])
    errors = CounterMetricFamily(
        "conventions_attempt_errors", "Failed attempts by error.", labels=[*OF_SERIES, "error"]
    )
    overlong = CounterMetricFamily(
        "conventions_overlong_attempts", "Attempts that ran longer than CONVENTIONS_SPLIT_AFTER.", labels=OF_SERIES
    )
    shown = 0
    for series, counts in sorted(totals.items()):
        for kind in KINDS:
            outcomes.add_metric([*series, kind], counts.get(kind, 0))
        overlong.add_metric(series, counts.get(OVERLONG, 0))
        for error, count in sorted(errors_in(counts)):
            if (shown := shown + 1) <= MOST_ERRORS:
                errors.add_metric([*series, error], count)
    yield from (outcomes, errors, overlong)
    yield _histogram("conventions_attempt_run_seconds", "How long attempts ran.", RUN, totals)
    yield _histogram(
        "conventions_attempt_wait_seconds", "How long attempts lacked nothing but a free worker.", WAIT, totals
    )


def _histogram(name: str, text: str, measure: str, totals: Totals) -> Metric:
    family = HistogramMetricFamily(name, text, labels=OF_SERIES)
    for series, counts in sorted(totals.items()):
        found = Histogram.of(measure, counts)
        bounds = [*(f"{float(bound)}" for bound in found.bounds), "+Inf"]
        buckets: list[tuple[str, float]] = list(zip(bounds, map(float, accumulate(found.counts)), strict=True))
        family.add_metric(series, buckets, found.seconds)
    return family


def _of_queues(levels: Levels, others: dict[str, int]) -> Iterator[Metric]:
    if levels.queues is None:
        return
    messages = GaugeMetricFamily(
        "conventions_queue_messages", "Messages in a queue: ready, not due, or at a worker.", labels=["queue", "state"]
    )
    gauges = {
        "parked": GaugeMetricFamily("conventions_queue_parked_messages", "Messages whose key is in use; of those that are not due.", labels=["queue"]),
        "retrying": GaugeMetricFamily("conventions_queue_retrying_messages", "Messages that have failed and have not ended.", labels=["queue"]),
        "oldest": GaugeMetricFamily("conventions_queue_oldest_seconds", "Since when the oldest ready message is ready.", labels=["queue"]),
        "consumers": GaugeMetricFamily("conventions_queue_consumers", "Living workers that consume the queue.", labels=["queue"]),
    }  # fmt: skip
    named, rest = most_of(levels.queues, lambda name: _weight(levels, name))
    others["queues"] = len(rest)
    shown = [levels.queues[name] for name in named]
    if rest:
        shown.append(_together(levels, [levels.queues[name] for name in rest]))
    for queue in shown:
        name, level = queue.name, queue.level
        for state, count in (("ready", level.ready), ("delayed", level.delayed), ("in_flight", level.in_flight)):
            if count is not None:
                messages.add_metric([name, state], count)
        oldest = 0.0 if level.oldest is None and level.ready == 0 else level.oldest
        said = {"parked": level.parked, "retrying": queue.retrying, "oldest": oldest, "consumers": queue.consumers}
        for what, value in said.items():
            if value is not None:
                gauges[what].add_metric([name], value)
    yield messages
    yield from gauges.values()


def _weight(levels: Levels, queue: str) -> tuple[bool, int, int]:
    """What people have paused is told first: it would be missed most. Then what has the most messages."""
    level, retrying = (levels.queues or {})[queue].level, (levels.queues or {})[queue].retrying
    messages = (level.ready or 0) + (level.delayed or 0) + (level.in_flight or 0)
    return levels.pause_of("queue", queue) is not None, messages, retrying or 0


def _together(levels: Levels, queues: Sequence[QueueNow]) -> QueueNow:
    """Several queues as one: sums, and the oldest message. Its consumers are those of the queue with the fewest, of those that need one."""
    found = [one.level for one in queues]
    level = QueueLevel(
        ready=_sum(one.ready for one in found),
        delayed=_sum(one.delayed for one in found),
        parked=_sum(one.parked for one in found),
        in_flight=_sum(one.in_flight for one in found),
        oldest=max((one.oldest for one in found if one.oldest is not None), default=None),
    )
    needing = [
        one for one in queues if sum(_weight(levels, one.name)[1:]) and levels.pause_of("queue", one.name) is None
    ]
    consumers = [one.consumers for one in needing or queues if one.consumers is not None]
    return QueueNow(OTHERS, level, _sum(one.retrying for one in queues), min(consumers, default=None))


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; `None`: nothing is."""
    known = [one for one in values if one is not None]
    return sum(known) if known else None


def _of_workers(levels: Levels, tasks: set[str], others: dict[str, int]) -> Iterator[Metric]:
    if levels.workers is not None:
        alive = [one.report for one in levels.workers if not one.silent]
        workers = GaugeMetricFamily("conventions_workers", "Workers by whether they report.", labels=["state"])
        workers.add_metric(["alive"], len(alive))
        workers.add_metric(["silent"], len(levels.workers) - len(alive))
        yield workers
        processes = sum(one.processes for one in alive)
        yield GaugeMetricFamily("conventions_worker_processes", "Jobs that living workers can run at once.", processes)
        busy = sum((one.busy for one in levels.workers), Counter[str]())
        running = GaugeMetricFamily(
            "conventions_running_jobs",
            "Jobs that ran when their workers last reported, every two seconds.",
            labels=["task"],
        )
        named, rest = most_of(tasks | busy.keys(), lambda task: busy[task])
        others["running"] = len(rest)
        for task in named:
            running.add_metric([task], busy[task])
        if rest:
            running.add_metric([OTHERS], sum(busy[task] for task in rest))
        yield running


def _of_records(levels: Levels, others: dict[str, int]) -> Iterator[Metric]:
    if (journal := levels.journal) is not None:
        yield GaugeMetricFamily("conventions_journal_events", "Events that wait to be recorded in SQL.", journal.events)
        yield GaugeMetricFamily(
            "conventions_journal_oldest_seconds", "For how long the oldest of them has waited.", journal.seconds
        )
        yield GaugeMetricFamily("conventions_uncounted_oldest_seconds", "For how long the oldest event that these metrics lack has waited.", journal.uncounted_seconds)  # fmt: skip
        yield GaugeMetricFamily(
            "conventions_journal_rejected_events", "Entries of the journal that are put aside.", journal.rejected
        )
    if levels.letters is not None:
        letters = GaugeMetricFamily(
            "conventions_dead_letters", "Dead letters that nobody has redriven or discarded.", labels=OF_SERIES
        )
        shown, others["letters"] = most_letters(levels.letters)
        for series, count in shown.items():
            letters.add_metric(series, count)
        yield letters


def _of_schedules(levels: Levels, others: dict[str, int]) -> Iterator[Metric]:
    if levels.beats is not None and (leading := [one.tick_age for one in levels.beats if one.leads]):
        yield GaugeMetricFamily(
            "conventions_beat_last_look_seconds", "Since when no leading beat has looked at the schedule.", min(leading)
        )
    if levels.schedules is None:
        return
    overdue = GaugeMetricFamily(
        "conventions_schedule_overdue_seconds",
        "For how long a slot is due that beat has not sent.",
        labels=["schedule"],
    )
    paused = GaugeMetricFamily("conventions_schedule_paused", "1: paused by a person.", labels=["schedule"])
    late = {one.listed.name: one.overdue or 0.0 for one in levels.schedules}
    held = {one.listed.name for one in levels.schedules if one.state.pause is not None}
    named, rest = most_of(late, lambda name: (late[name], name in held))
    others["schedules"] = len(rest)
    for name in named:
        overdue.add_metric([name], late[name])
        paused.add_metric([name], float(name in held))
    if rest:
        overdue.add_metric([OTHERS], max(late[name] for name in rest))
    yield from (overdue, paused)


def _of_memory(levels: Levels) -> Iterator[Metric]:
    if levels.memory is None:
        return
    used = GaugeMetricFamily("conventions_redis_memory_bytes", "Memory that a Redis uses.", labels=["server"])
    limit = GaugeMetricFamily("conventions_redis_memory_limit_bytes", "Its limit; 0: none.", labels=["server"])
    evicts = GaugeMetricFamily(
        "conventions_redis_evicts", "1: it throws jobs away when its memory is full.", labels=["server"]
    )
    for name, memory in levels.memory.items():
        used.add_metric([name], memory.used)
        limit.add_metric([name], memory.limit)
        evicts.add_metric([name], float(memory.evicts))
    yield from (used, limit, evicts)


def _of_pauses(levels: Levels, others: dict[str, int]) -> Iterator[Metric]:
    if levels.pauses is None:
        return
    queues = GaugeMetricFamily("conventions_queue_paused", "1: people have paused the queue.", labels=["queue"])
    paused = {target.name for target in levels.pauses if target.kind == "queue"}
    known = levels.queues or {}
    named, _ = most_of({*known, *paused}, lambda name: _weight(levels, name) if name in known else (True, 0, 0))
    for name in named:
        queues.add_metric([name], float(name in paused))
    tasks = GaugeMetricFamily("conventions_task_paused", "1: people have paused the task.", labels=["task"])
    named, rest = most_of((target.name for target in levels.pauses if target.kind == "task"), lambda _: 0)
    others["pauses"] = len(rest)
    for name in named:
        tasks.add_metric([name], 1)
    workers = sum(target.kind == "worker" for target in levels.pauses)
    yield from (queues, tasks)
    yield GaugeMetricFamily("conventions_paused_workers", "Workers that people have paused.", workers)
