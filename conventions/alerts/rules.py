"""The rules: what is wrong, judged from one look. Pure functions; each says what to do, and where to look.

The first three are those of the convention document (R14). A part that could not be read judges nothing, but for `unreadable`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote

from conventions.alerts.finding import Finding, Severity
from conventions.alerts.what_rules_see import Look
from conventions.core.alert_thresholds import Thresholds
from conventions.core.durations import duration
from conventions.metrics.rates_and_times import Figures, together
from conventions.metrics.read_counts import CauseNow
from conventions.metrics.series import Series
from conventions.metrics.stalled_and_stopped import NewLetters
from conventions.metrics.state_now import QueueNow
from conventions.metrics.worker_reports import WorkerNow
from conventions.schedules.beat_liveness import beats_fault

Rule: TypeAlias = Callable[[Look, Thresholds], Iterator[Finding]]

SETTLING = 10.0  # seconds in which a worker that has just started need not consume anything


def _queues(look: Look) -> Sequence[QueueNow]:
    return list((look.levels.queues or {}).values())


def _figures_of_queues(figures: Mapping[Series, Figures] | None) -> dict[str, Figures]:
    by_queue: dict[str, list[Figures]] = defaultdict(list)
    for series, one in (figures or {}).items():
        by_queue[series.queue].append(one)
    return {queue: together(several) for queue, several in by_queue.items()}


def _short(task: str) -> str:
    return task.rpartition(".")[2] or "unknown tasks"


def _of_task(page: str, task: str) -> str:
    """A page, for one task."""
    return f"{page}{'&' if '?' in page else '?'}task={quote(task)}" if task else page


def _wait(count: int) -> str:
    return "1 message waits" if count == 1 else f"{count:,} messages wait"


def _unless_paused(look: Look, queue: str, do: str) -> str:
    """What to do about a queue that is too long; where people have paused it, to resume it."""
    pause = look.levels.pause_of("queue", queue)
    return do if pause is None else f"{pause.actor} has paused it: `resume queue {queue}` lets it run"


def _unless_drained(look: Look, do: str) -> str:
    """What to do about a queue without a worker; where people have paused a worker that lives, it may be the one that is missing."""
    alive = {one.name for one in _alive(look.levels.workers)}
    drained = [
        (target.name, pause.actor)
        for target, pause in (look.levels.pauses or {}).items()
        if target.kind == "worker" and target.name in alive
    ]
    if not drained:
        return do
    name, actor = drained[0]
    return f"{actor} has paused the worker {name}: `resume worker {name}` if it is the one of this queue; or {do}"


def _unless_settled(look: Look, series: Series, thresholds: Thresholds) -> str:
    """What to do about jobs that died; where none of them is dead any more, nothing."""
    letters, journal = look.levels.letters, look.levels.journal
    if letters is None or journal is None or journal.events or letters.get(series, 0):
        return "look at the causes, correct them, and redrive the letters"
    return f"no letter of it is open, so others have seen to it: it is over in {thresholds.window} min, unless more die"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _cause_of(look: Look, task: str, kind: str, minutes: int) -> tuple[float | None, str]:
    """By what most attempts of a task ended so within the last minutes, and since when; nothing where no cause of them is known.

    Since when: the first failure of this cause after which it was never quiet for so many minutes.
    """
    of_task = {one.fingerprint: one for one in look.levels.causes or () if one.task == task}
    within: Counter[str] = Counter()
    for minute in range(look.minute - minutes + 1, look.minute + 1):
        for failed, times in look.failed.get(minute, {}).items():
            if failed.kind == kind and failed.fingerprint in of_task:
                within[failed.fingerprint] += times
    if not within:
        return None, ""
    cause = of_task[max(within, key=lambda one: (within[one], of_task[one].last))]
    return _since(look, cause, minutes), f"{cause.error}: {cause.message}"


def _since(look: Look, cause: CauseNow, quiet: int) -> float:
    """When a cause began, after the last time that it was quiet for so many minutes. Of an earlier minute only the minute is known."""
    begins = look.minute
    for minute in sorted(look.failed, reverse=True):
        if any(one.fingerprint == cause.fingerprint for one in look.failed[minute]):
            if begins - minute > quiet:
                break
            begins = minute
    return max(cause.since, begins * 60.0)


def backlog(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """So many messages of a queue are ready."""
    for queue in _queues(look):
        limit, ready = thresholds.backlog_of(queue.name), queue.level.ready
        if ready is not None and ready >= limit:
            yield Finding(
                "backlog", queue.name, "warning", f"{queue.name}: {_wait(ready)}",
                _unless_paused(look, queue.name, "add workers for the queue, or find out what holds them up"), "/queues", ready, limit,
            )  # fmt: skip


def failure_rate(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """So large a share of a task's jobs ended as dead letters."""
    for series, figures in (look.recent or {}).items():
        rate, limit = figures.failure_rate, thresholds.failure_rate_of(series.queue)
        if rate is not None and figures.ended >= thresholds.sample and rate >= limit:
            yield Finding(
                "failure rate", series.task, "critical",
                f"{_short(series.task)}: {_percent(rate)} of {figures.ended:,} jobs died within {thresholds.window} min",
                _unless_settled(look, series, thresholds), _of_task("/dead-letters", series.task), rate, limit, *_cause_of(look, series.task, "dead", thresholds.window),
            )  # fmt: skip


def mean_delay(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """Jobs of a queue waited so long, on average, before they began."""
    for queue, figures in _figures_of_queues(look.recent).items():
        mean, limit = figures.wait.mean, thresholds.mean_delay_of(queue)
        if mean is not None and mean >= limit:
            yield Finding(
                "mean delay", queue, "warning", f"{queue}: jobs waited {duration(mean)} on average",
                _unless_paused(look, queue, "add workers for the queue, or send less"), "/queues", mean, limit,
            )  # fmt: skip


def retrying(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """So large a share of a task's attempts failed and is tried again: the early sign of an outage."""
    for series, figures in (look.recent or {}).items():
        attempts = figures.ended + figures.of("retried")
        rate, limit = figures.retry_rate, thresholds.retry_rate_of(series.queue)
        if rate is None or attempts < thresholds.sample or rate < limit:
            continue
        waits = _retrying(look, series.task)
        if waits == 0:  # all of them have ended since
            continue
        failed = f"{_percent(rate)} of {attempts:,} attempts failed and are tried again"
        says = failed if waits is None else _are_retrying(waits)
        cause = _cause_of(look, series.task, "retried", thresholds.window)
        yield _retrying_finding(series.task, says, (rate, limit), cause)


def _retrying(look: Look, task: str) -> int | None:
    """How many messages of a task have failed and have not ended. `None`: unknown."""
    causes = look.levels.causes
    return None if causes is None else sum(one.retrying for one in causes if one.task == task)


def goes_on(look: Look, thresholds: Thresholds) -> list[Finding]:
    """What begins no alert, and lets one that fires not be over: messages that wait for their next try, when no attempt fails for minutes.

    So many of a task as a share needs, and so large a share of them and of the jobs that ended within the window: a task that always has
    some of its many jobs waiting ends its alert.
    """
    waiting, most = Counter[Series](), dict[Series, CauseNow]()
    for cause in look.levels.causes or ():
        series = Series(cause.task, cause.queue)
        waiting[series] += cause.retrying
        if cause.retrying > (most[series].retrying if series in most else 0):
            most[series] = cause
    found = []
    for series, cause in most.items():
        count, limit = waiting[series], thresholds.retry_rate_of(series.queue)
        share = count / (count + (look.recent or {}).get(series, Figures({})).ended)
        if look.recent is not None and count >= thresholds.sample and share >= limit:
            detail = f"{cause.error}: {cause.message}"
            found.append(_retrying_finding(series.task, _are_retrying(count), (share, limit), (None, detail)))
    return list(_worst_of_each(found))


def _are_retrying(count: int) -> str:
    return "1 message is retrying" if count == 1 else f"{count:,} messages are retrying"


def _retrying_finding(task: str, says: str, share: tuple[float, float], cause: tuple[float | None, str]) -> Finding:
    """Of a share and its limit, and of since when it is and by what."""
    return Finding(
        "retrying", task, "warning", f"{_short(task)}: {says}",
        "look at what it calls: a service that is down, a password that was changed", _of_task("/jobs?state=retrying", task), *share, *cause,
    )  # fmt: skip


def oldest(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """A message has been ready for too long."""
    for queue in _queues(look):
        limit, age = thresholds.oldest_of(queue.name), queue.level.oldest
        if age is not None and age >= limit:
            yield Finding(
                "oldest", queue.name, "warning", f"{queue.name}: the oldest message has waited {duration(age)}",
                _unless_paused(look, queue.name, "look whether a worker consumes the queue, and what its processes do"), "/queues", age, limit,
            )  # fmt: skip


def _still_dead(look: Look, series: Series, died: int) -> int:
    """How many of those that died are dead still, as far as SQL tells it: nothing is to be done about the others."""
    letters, journal = look.levels.new_letters, look.levels.journal
    if letters is None or journal is None:
        return died
    dead, settled = letters.get(series, NewLetters(0, 0))
    return max(0, min(died - settled, dead + journal.events))  # what is on its way to SQL may be one more each


def new_letters(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """So many jobs of a task became dead letters."""
    limit, by_task = thresholds.new_letters, Counter[str]()
    for series, figures in (look.letters or {}).items():
        by_task[series.task] += _still_dead(look, series, figures.of("dead"))
    for task, dead in by_task.items():
        if dead >= limit:
            yield Finding(
                "dead letters", task, "warning", f"{_short(task)}: {dead:,} dead letters within {thresholds.letters_window} min",
                "look at the causes, correct them, and redrive the letters", _of_task("/dead-letters", task), dead, limit,
                *_cause_of(look, task, "dead", thresholds.letters_window),
            )  # fmt: skip


def interrupted(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """So many starts of a task had no outcome: a process that runs out of memory is killed, and its job poisons the next one."""
    limit, by_task = thresholds.interrupted, Counter[str]()
    for series, figures in (look.recent or {}).items():
        by_task[series.task] += figures.of("interrupted")
    for task, starts in by_task.items():
        if starts >= limit:
            yield Finding(
                "interrupted", task, "warning",
                f"{_short(task)}: {starts:,} starts were interrupted within {thresholds.window} min: processes or workers were killed, or stopped",
                "`audit list --outcome interrupted` has each reason: signal 9 may be the memory of the machine; a stop needs a longer grace period",
                _of_task("/audit?outcome=interrupted", task), starts, limit,
            )  # fmt: skip


def no_consumer(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001  # one signature for all rules
    """Messages wait in a queue that no living worker consumes; also those that are not due: nobody makes them ready. Of a paused one, all know."""
    for queue in _queues(look):
        count = (queue.level.ready or 0) + (queue.level.delayed or 0)
        if count and queue.consumers == 0 and look.levels.pause_of("queue", queue.name) is None:
            yield Finding(
                "no consumer", queue.name, "critical", f"{queue.name}: {_wait(count)}, and no worker consumes the queue",
                _unless_drained(look, "start a worker with this queue, or `control add_consumer`"), "/queues", count, 1,
            )  # fmt: skip


def _alive(workers: Sequence[WorkerNow] | None) -> list[WorkerNow]:
    return [one for one in workers or () if not one.silent]


def _heard(look: Look, age: float) -> float:
    """When somebody was heard the last time, in seconds since the epoch."""
    return look.levels.at.timestamp() - age


def no_worker(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """Nobody consumes anything, whatever waits: no worker lives, as far as all of them report."""
    workers = look.levels.workers
    if workers is None or look.levels.unheard is not False or _alive(workers):
        return
    silent = (
        "" if not workers else ": the last one is silent" if len(workers) == 1 else f": all {len(workers)} are silent"
    )
    yield Finding(
        "no worker", "", "critical", f"no worker runs{silent}",
        "start one with `celery worker`: what is sent waits for it until then", "/#workers",
        since=max((_heard(look, one.age) for one in workers), default=None),
    )  # fmt: skip


def worker_silent(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """A worker has died, or stands still: one that ends in order says so."""
    severity: Severity = "warning" if _alive(look.levels.workers) else "critical"
    for worker in look.levels.workers or ():
        if worker.silent:
            yield Finding(
                "worker silent", worker.name, severity, f"{worker.name} says nothing for {duration(worker.age)}",
                "look at its log and its machine; its jobs run elsewhere, if another worker lives", "/#workers", worker.age,
                since=_heard(look, worker.age),
            )  # fmt: skip


def not_consuming(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """A worker lives and takes nothing, and nobody told it to end, or paused what it takes."""
    for worker in _alive(look.levels.workers):
        has_begun = look.levels.at.timestamp() - worker.report.started > SETTLING
        if not worker.report.queues and not worker.report.paused and not worker.report.stops and has_begun:
            yield Finding(
                "not consuming", worker.name, "critical", f"{worker.name} lives and consumes no queue",
                "look at its log: it has no connection, or its consumers were cancelled", "/#workers",
            )  # fmt: skip


def busy_with_one(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """All processes have run one task for long, while others wait."""
    alive, running = _alive(look.levels.workers), look.levels.running
    processes = sum(one.report.processes for one in alive)
    busy = (
        len(running or ())
        if all(one.is_whole for one in alive)
        else sum(sum(one.report.busy.values()) for one in alive)
    )
    if not running or processes < 2 or busy < processes:
        return
    tasks = {one.task for one in running}.union(*(one.report.busy for one in alive if not one.is_whole))
    least = min(one.seconds for one in running)
    waiting = sum(queue.level.ready or 0 for queue in _queues(look))
    if len(tasks) == 1 and least >= thresholds.busy_for and waiting:
        (task,) = tasks
        yield Finding(
            "busy with one task", task, "warning",
            f"all {processes} processes run {_short(task)} for {duration(least)} and longer; {_wait(waiting)}",
            "give the task a queue and a worker of its own, or end what hangs", "/", least, thresholds.busy_for,
        )  # fmt: skip


def beat_silent(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """There is a schedule, and no beat leads."""
    if look.levels.schedules and look.levels.beats is not None and (fault := beats_fault(look.levels.beats)):
        age = min((one.tick_age for one in look.levels.beats), default=None)
        says = "no beat sends what the schedule plans"
        since = None if age is None else _heard(look, age)
        yield Finding("beat silent", "", "critical", says, fault, "/schedules", age, since=since)


def schedule_overdue(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """A slot is due, and beat has not sent it; or it cannot send it."""
    for one in look.levels.schedules or ():
        late, name, fault = one.overdue, one.listed.name, one.state.fault
        if fault or (late is not None and late >= thresholds.overdue):
            says = "it cannot be sent" if fault else f"a slot is due for {duration(late or 0)}"
            yield Finding(
                "schedule overdue", name, "critical", f"schedule {name}: {says}",
                "look at the log of the leading beat", f"/schedules/{name}", late, thresholds.overdue,
                detail=fault or "",
            )  # fmt: skip


def schedule_failing(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """The last run of a schedule failed."""
    for name, error in sorted((look.levels.failing or {}).items()):
        yield Finding(
            "schedule failing", name, "warning", f"schedule {name}: its last run failed{f' with {error}' if error else ''}",
            "look at the error, correct it, and run the schedule by hand, or redrive its letter", f"/schedules/{name}",
        )  # fmt: skip


def batch_stalled(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """A batch runs, and nothing is heard of it."""
    for one in look.levels.stalled or ():
        silent = max(0.0, look.levels.at.timestamp() - one.since)
        of = "" if one.total is None else f" of {one.total:,}"
        yield Finding(
            "batch stalled", one.id, "warning", f"batch {one.id[:8]} of {_short(one.task)}: {one.done:,}{of} items, and nothing for {duration(silent)}",
            "look whether a worker consumes the queue of its chunks, and whether it is paused", f"/batches/{one.id}", silent, since=one.since,
        )  # fmt: skip


def redrive_stopped(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """A redrive stopped by itself, within the last hour."""
    for one in look.levels.redrives or ():
        yield Finding(
            "redrive stopped", one.id, "warning", f"redrive {one.id[:8]} has stopped: {one.note}",
            "look why its letters fail again, correct it, and redrive the rest", f"/dead-letters/redrives/{one.id}", since=one.since,
        )  # fmt: skip


def recording_late(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """Events wait for long to be recorded in SQL, or to be counted; or some are put aside."""
    journal = look.levels.journal
    if journal is None:
        return
    if journal.seconds >= thresholds.journal_lag:
        yield Finding(
            "recording late", "", "warning", f"{journal.events:,} events are not in SQL, the oldest for {duration(journal.seconds)}",
            "start a worker, since each brings a recorder; look whether the database answers", "/", journal.seconds, thresholds.journal_lag,
        )  # fmt: skip
    if journal.uncounted_seconds >= thresholds.count_lag:
        yield Finding(
            "counting late", "", "warning", f"these figures lack what happened in the last {duration(journal.uncounted_seconds)}",
            "start a worker: the recorder beside it counts", "/", journal.uncounted_seconds, thresholds.count_lag,
        )  # fmt: skip
    if journal.rejected:
        yield Finding(
            "rejected events", "", "warning", f"{journal.rejected:,} entries of the journal are put aside: SQL refuses them, or they are not signed", "`celery check` says where they are kept", "/",
            journal.rejected, 1,
        )  # fmt: skip


def memory(look: Look, thresholds: Thresholds) -> Iterator[Finding]:
    """A Redis is nearly full, or throws jobs away when it is."""
    for name, one in (look.levels.memory or {}).items():
        share = one.used / one.limit if one.limit else 0.0
        if one.limit and share >= thresholds.memory:
            yield Finding(
                "memory", name, "critical", f"{name}: {_percent(share)} of the memory of its Redis are used",
                "raise maxmemory, or let workers catch up: a full one takes no messages", "/", share, thresholds.memory,
            )  # fmt: skip
        if one.evicts:
            yield Finding(
                "evicts", name, "critical", f"{name}: its Redis throws jobs away when its memory is full",
                "set maxmemory-policy to noeviction", "/",
            )  # fmt: skip


def unreadable(look: Look, thresholds: Thresholds) -> Iterator[Finding]:  # noqa: ARG001
    """A part could not be read, so nobody knows how it stands. One server that is away leaves out several."""
    parts: dict[str, list[str]] = defaultdict(list)
    for part, why in look.levels.absent.items():
        parts[why].append(part)
    for why, names in parts.items():
        yield Finding(
            "unreadable", ", ".join(names), "critical", f"nobody can tell of {', '.join(names)}: {why}",
            "look at the server that does not answer", "/",
        )  # fmt: skip


RULES: tuple[Rule, ...] = (
    unreadable, no_worker, no_consumer, worker_silent, not_consuming, beat_silent, schedule_overdue, memory, failure_rate, retrying, busy_with_one,
    backlog, oldest, mean_delay, new_letters, interrupted, recording_late, schedule_failing, batch_stalled, redrive_stopped,
)  # fmt: skip


RULE_NAMES = (
    "backlog", "batch stalled", "busy with one task", "beat silent", "counting late", "dead letters", "evicts", "failure rate", "interrupted", "mean delay", "memory",
    "no consumer", "no worker", "not consuming", "oldest", "recording late", "redrive stopped", "rejected events", "retrying", "schedule failing", "schedule overdue", "unreadable",
    "worker silent",
)  # fmt: skip
"""The names of all findings."""


def _worst_of_each(found: Iterable[Finding]) -> Iterable[Finding]:
    """One finding for each key: of a task in several queues, that of the queue that is furthest beyond its threshold."""
    worst: dict[str, Finding] = {}
    for one in found:
        known = worst.get(one.key)
        if known is None or one.beyond > known.beyond:
            worst[one.key] = one
    return worst.values()


def all_findings(look: Look, thresholds: Thresholds) -> list[Finding]:
    """All that is wrong, what is critical first; also what another finding says better."""
    found = _worst_of_each(one for rule in RULES for one in rule(look, thresholds))
    return sorted(found, key=lambda one: one.severity != "critical")
