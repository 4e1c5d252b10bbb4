"""The table and the JSON of a run."""

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.measure import CONCURRENCY, IDLE_RATE, Plan, Result, Sample
from bench.systems import BASE

PACKAGES = ("celery-conventions", "celery", "kombu", "redis", "hiredis")


class Row(NamedTuple):
    """One measure in the table.

    Args:
        field: that of `Sample`.
        title: the head of the row.
        form: how its numbers are written.
        base_field: what its ratio is to, of the base, where that is not the same field.
    """

    field: str
    title: str
    form: str
    base_field: str | None = None


ROWS = (
    Row("enqueue_rate", "enqueue, jobs/s", ",.0f"),
    Row("enqueue_round_trips", "enqueue, round trips/job", ".2f"),
    Row("enqueue_commands", "enqueue, server commands/job", ".2f"),
    Row("enqueue_cpu", "enqueue, sender CPU s/1,000", ".3f"),
    Row("enqueue_server_cpu", "enqueue, server CPU s/1,000", ".3f"),
    Row("bulk_rate", "bulk enqueue, jobs/s", ",.0f", "enqueue_rate"),
    Row("bulk_round_trips", "bulk enqueue, round trips/job", ".4f", "enqueue_round_trips"),
    Row("bulk_cpu", "bulk enqueue, sender CPU s/1,000", ".3f", "enqueue_cpu"),
    Row("bulk_server_cpu", "bulk enqueue, server CPU s/1,000", ".3f", "enqueue_server_cpu"),
    Row("drain_rate", "drain, jobs/s", ",.0f"),
    Row("drain_round_trips", "drain, round trips/job", ".2f"),
    Row("drain_commands", "drain, server commands/job", ".2f"),
    Row("drain_cpu", "drain, worker CPU s/1,000", ".3f"),
    Row("drain_server_cpu", "drain, server CPU s/1,000", ".3f"),
    Row("latency_p50", "idle latency p50, ms", ".2f"),
    Row("latency_p95", "idle latency p95, ms", ".2f"),
    Row("ready", "start to first job, s", ".2f"),
)


def document(results: Sequence[Result], plan: Plan, server_version: str) -> dict[str, Any]:
    """A run as JSON: `date machine versions plan base systems`; see docs/performance.md for the fields."""
    base = next((result for result in results if result.site.system.name == BASE), None)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), "valkey": server_version}
        | {name: version(name) for name in PACKAGES},
        "plan": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "idle_seconds": plan.idle_seconds,
            "idle_rate": IDLE_RATE,
            "concurrency": CONCURRENCY,
        },
        "base": BASE,
        "systems": {result.site.system.name: _system(result, base) for result in results},
    }


def _system(result: Result, base: Result | None) -> dict[str, Any]:
    samples = [sample for sample in result.samples if sample is not None]
    return {
        "title": result.site.system.title,
        "notes": list(result.site.system.notes),
        "error": result.error,
        "jobs": result.jobs,
        "rounds": len(samples),
        "median": _over(samples, statistics.median),
        "min": _over(samples, min),
        "max": _over(samples, max),
        "ratio": _ratios(result, base) if base else {},
    }


def _over(samples: list[Sample], what: Callable[[list[float]], float]) -> dict[str, float]:
    measured = {row.field: [getattr(sample, row.field) for sample in samples] for row in ROWS}
    return {field: what(values) for field, values in measured.items() if values and None not in values}


def _ratios(result: Result, base: Result) -> dict[str, float]:
    # Round by round: a machine that slows down slows both.
    pairs = [(one, two) for one, two in zip(result.samples, base.samples, strict=False) if one and two]
    ratios = {}
    for row in ROWS:
        each = [(getattr(one, row.field), getattr(two, row.base_field or row.field)) for one, two in pairs]
        if each and all(one is not None and two for one, two in each):
            ratios[row.field] = statistics.median(one / two for one, two in each)
    return ratios


def markdown(run: dict[str, Any]) -> str:
    """The table of a run, its notes, the machine and the versions."""
    systems = run["systems"].values()
    lines = [
        f"| | {' | '.join(system['title'] for system in systems)} |",
        f"|---|{'---:|' * len(systems)}",
        *(f"| {row.title} | {' | '.join(_cell(system, row) for system in systems)} |" for row in ROWS),
        "",
        f"Median of {run['plan']['rounds']} rounds (smallest to largest), then the median of the ratios to {run['base']};",
        "those of bulk enqueue are to its enqueue, one by one.",
        "",
    ]
    for system in systems:
        lines += [f"- {system['title']}: {note}." for note in system["notes"]]
        if system["error"]:
            lines.append(f"- {system['title']} failed, in {_rounds(system)}: {system['error']}")
    machine, versions = run["machine"], ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    lines += [
        f"- Worker: {run['plan']['concurrency']} processes; latency at {run['plan']['idle_rate']} jobs/s.",
        f"- {machine['processors']} x {machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}.",
        f"- {versions}.",
        f"- {run['date']}",
    ]
    return "\n".join(lines) + "\n"


def _cell(system: dict[str, Any], row: Row) -> str:
    if row.field not in system["median"]:
        return "none" if system["median"] else "failed"
    median, low, high = (format(system[what][row.field], row.form) for what in ("median", "min", "max"))
    ratio = system["ratio"].get(row.field)
    if ratio is None:
        return f"{median} ({low} to {high})"
    return f"{median} ({low} to {high}) {format(ratio, '.2f' if ratio >= 0.05 else '.2g')}x"


def _rounds(system: dict[str, Any]) -> str:
    return f"some rounds ({system['rounds']} counted)" if system["rounds"] else "every round"


def _machine() -> dict[str, Any]:
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
