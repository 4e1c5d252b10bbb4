"""The overview as JSON, for scripts and for the page; times are ISO 8601 in the zone of the settings."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from conventions.metrics.read_counts import CauseNow
from conventions.metrics.state_now import QueueNow, RunningNow
from conventions.metrics.worker_reports import WorkerNow
from conventions.now.overview import MinuteNow, Overview
from conventions.pauses.pause import Pause
from conventions.pauses.pause_store import Target
from conventions.schedules.beat_liveness import Beat
from conventions.schedules.schedule_summary import ScheduleSummary


def overview_json(overview: Overview, zone: ZoneInfo) -> dict[str, Any]:
    """Everything that the overview says."""

    def at(seconds: float | None) -> str | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).astimezone(zone).isoformat()

    levels = overview.levels
    return {
        "at": levels.at.astimezone(zone).isoformat(),
        "well": overview.is_well,
        "findings": [asdict(one) | {"since": at(one.since)} for one in overview.findings],
        "minutes": [_minute(one) | {"at": at(one.minute * 60)} for one in overview.minutes],
        "letters": None if levels.letters is None else sum(levels.letters.values()),
        "queues": None if levels.queues is None else [_queue(overview, one) for one in overview.queues],
        "causes": None
        if levels.causes is None
        else [_cause(overview, one) | {"since": at(one.since), "last": at(one.last)} for one in overview.causes],
        "running": None if levels.running is None else [_running(one) for one in overview.running],
        "workers": None if levels.workers is None else [_worker(one) for one in overview.workers],
        "judge": overview.judge,
        "refusals": [one._asdict() | {"since": at(one.since)} for one in overview.refusals],
        "beats": None if levels.beats is None else [_beat(one) for one in levels.beats],
        "pauses": None
        if levels.pauses is None
        else [_pause(target, one, zone) | {"waiting": overview.waits_for(target)} for target, one in overview.pauses],
        "schedules": None if levels.schedules is None else [_schedule(one) for one in overview.schedules_to_look_at],
        "journal": None if levels.journal is None else asdict(levels.journal),
        "actions": None
        if overview.actions is None
        else [asdict(one) | {"at": one.at.astimezone(zone).isoformat()} for one in overview.actions],
        "absent": dict(overview.absent),
    }


def _minute(one: MinuteNow) -> dict[str, Any]:
    figures = one.figures
    return {
        **{kind: figures.of(kind) for kind in ("succeeded", "retried", "dead")},
        "wait_p50": figures.wait.quantile(0.5),
        "wait_p95": figures.wait.quantile(0.95),
        "marks": list(one.marks),
    }


def _queue(overview: Overview, one: QueueNow) -> dict[str, Any]:
    of_level = {"name": one.name, **one.level._asdict()}
    return {**of_level, "retrying": one.retrying, "consumers": one.consumers, **_flow(overview, one.name)}


def _cause(overview: Overview, one: CauseNow) -> dict[str, Any]:
    return asdict(one) | {"sent_again": overview.sent_again(one)}


def _worker(one: WorkerNow) -> dict[str, Any]:
    return {
        "name": one.name,
        "release": one.report.release,
        "pool": one.report.pool,
        "processes": one.report.processes,
        "busy": dict(one.busy),
        "queues": one.report.queues,
        "stops": one.report.stops,
        "silent": one.silent,
        "age": round(one.age, 1),
    }


def _pause(target: Target, one: Pause, zone: ZoneInfo) -> dict[str, Any]:
    until = None if one.until is None else one.until.astimezone(zone).isoformat()
    since = one.since.astimezone(zone).isoformat()
    return {**target._asdict(), "reason": one.reason, "by": one.actor, "since": since, "until": until}


def _beat(one: Beat) -> dict[str, Any]:
    return {"name": one.name, "state": one.state, "tick_age": round(one.tick_age, 1)}


def _schedule(one: ScheduleSummary) -> dict[str, Any]:
    name, paused = one.listed.name, one.state.pause is not None
    return {"name": name, "paused": paused, "overdue": one.overdue, "fault": one.state.fault}


def _flow(overview: Overview, queue: str) -> Mapping[str, float | None]:
    flow = overview.flows.get(queue)
    if flow is None:
        return {"comes": None, "goes": None, "empty_in": None}
    return {"comes": _rate(flow.comes), "goes": _rate(flow.goes), "empty_in": flow.empty_in}


def _rate(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)


def _running(one: RunningNow) -> dict[str, Any]:
    progress = one.progress
    return {
        "id": one.id,
        "task": one.task,
        "queue": one.queue,
        "worker": one.worker,
        "seconds": round(one.seconds, 1),
        "done": None if progress is None else progress.done,
        "total": None if progress is None else progress.total,
        "percent": None if progress is None else progress.percent,
        "note": "" if progress is None else progress.note,
        "stalled": progress is not None and progress.stalled,
    }
