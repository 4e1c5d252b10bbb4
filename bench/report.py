"""The tables and the JSON of a run."""

import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from bench.measure import CONCURRENCY, IDLE_RATE, Plan, Result, Sample
from bench.systems import BASE, NODE

PACKAGES = ("celery-conventions", "celery", "kombu", "redis", "hiredis")


class Column(NamedTuple):
    """One measure in a table.

    Args:
        field: that of `Sample`.
        title: the head of the column.
        form: how its numbers are written.
        base_field: what its ratio is to, of the base, where that is not the same field.
    """

    field: str
    title: str
    form: str
    base_field: str | None = None


TABLES: dict[str, tuple[Column, ...]] = {
    "enqueue": (
        Column("enqueue_rate", "jobs/s", ",.0f"),
        Column("enqueue_round_trips", "round trips/job", ".2f"),
        Column("enqueue_commands", "server commands/job", ".2f"),
        Column("enqueue_cpu", "sender CPU s/1,000", ".3f"),
        Column("enqueue_server_cpu", "server CPU s/1,000", ".3f"),
        Column("queued_memory", "MB/million queued", ",.0f"),
    ),
    "bulk enqueue": (
        Column("bulk_rate", "jobs/s", ",.0f", "enqueue_rate"),
        Column("bulk_round_trips", "round trips/job", ".4f", "enqueue_round_trips"),
        Column("bulk_cpu", "sender CPU s/1,000", ".3f", "enqueue_cpu"),
        Column("bulk_server_cpu", "server CPU s/1,000", ".3f", "enqueue_server_cpu"),
    ),
    "drain": (
        Column("drain_rate", "jobs/s", ",.0f"),
        Column("drain_round_trips", "round trips/job", ".2f"),
        Column("drain_commands", "server commands/job", ".2f"),
        Column("drain_cpu", "worker CPU s/1,000", ".3f"),
        Column("drain_recorder_cpu", "its recorder's s/1,000", ".3f"),
        Column("drain_server_cpu", "server CPU s/1,000", ".3f"),
        Column("drain_5ms", "jobs of 5 ms/s", ",.0f"),
        Column("batch_rate", "batch items/s", ",.0f"),
    ),
    "idle latency and start": (
        Column("latency_p50", "p50, ms", ".2f"),
        Column("latency_p95", "p95, ms", ".2f"),
        Column("latency_p99", "p99, ms", ".2f"),
        Column("ready", "start to first job, s", ".2f"),
    ),
}
COLUMNS = tuple(column for columns in TABLES.values() for column in columns)


def document(results: Sequence[Result], plan: Plan, servers: Mapping[str, str]) -> dict[str, Any]:
    """A run as JSON: `date machine versions plan base systems`; see docs/performance.md for the fields."""
    by_name = {result.site.system.name: result for result in results}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), **servers}
        | {name: version(name) for name in PACKAGES}
        | _node(results),
        "plan": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "idle_seconds": plan.idle_seconds,
            "idle_rate": IDLE_RATE,
            "concurrency": CONCURRENCY,
            "sleeping_jobs": plan.sleeping_jobs,
            "batch_items": plan.batch_items,
        },
        "base": BASE,
        "systems": {
            result.site.system.name: _system(result, by_name.get(result.site.system.base)) for result in results
        },
    }


def _node(results: Sequence[Result]) -> dict[str, str]:
    if not any(result.site.system.command[0] == NODE for result in results):
        return {}
    with suppress(OSError):
        asked = subprocess.run([NODE, "--version"], text=True, capture_output=True, check=False)
        return {NODE: asked.stdout.strip().removeprefix("v")}
    return {}


def _system(result: Result, base: Result | None) -> dict[str, Any]:
    samples = [sample for sample in result.samples if sample is not None]
    return {
        "title": result.site.system.title,
        "base": result.site.system.base,
        "notes": list(result.site.system.notes),
        "pins": list(result.site.system.pins),
        "error": result.error,
        "jobs": result.jobs,
        "rounds": len(samples),
        "crash": result.crash._asdict() if result.crash else None,
        "median": _over(samples, statistics.median),
        "min": _over(samples, min),
        "max": _over(samples, max),
        "ratio": _ratios(result, base) if base else {},
    }


def _over(samples: list[Sample], what: Callable[[list[float]], float]) -> dict[str, float]:
    measured = {column.field: [getattr(sample, column.field) for sample in samples] for column in COLUMNS}
    return {field: what(values) for field, values in measured.items() if values and None not in values}


def _ratios(result: Result, base: Result) -> dict[str, float]:
    # Round by round: a machine that slows down slows both.
    pairs = [(one, two) for one, two in zip(result.samples, base.samples, strict=False) if one and two]
    ratios = {}
    for column in COLUMNS:
        each = [(getattr(one, column.field), getattr(two, column.base_field or column.field)) for one, two in pairs]
        if each and all(one is not None and two for one, two in each):
            ratios[column.field] = statistics.median(one / two for one, two in each)
    return ratios


def markdown(run: dict[str, Any]) -> str:
    """The tables of a run, its notes, the machine and the versions."""
    systems = run["systems"].values()
    lines = [line for title, columns in TABLES.items() for line in _table(title, columns, systems)]
    lines += _crashes(systems)
    lines += [
        f"Median of {run['plan']['rounds']} rounds (smallest to largest), then the median of the ratios to {run['base']};",
        "those of bulk enqueue are to its enqueue, one by one.",
        "",
    ]
    for system in systems:
        lines += [f"- {system['title']}: {note}." for note in system["notes"]]
        if system["error"]:
            lines.append(f"- {system['title']} failed, in {_rounds(system)}: {system['error']}")
    machine, versions = run["machine"], ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    if not any(system["crash"] for system in systems):
        lines.append("- Skipped: the crash of a worker, which `--crash` measures in a full run.")
    lines += [
        f"- Worker: {run['plan']['concurrency']} processes, or threads; latency at {run['plan']['idle_rate']} jobs/s.",
        f"- {machine['processors']} x {machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}.",
        f"- {versions}.",
        *(f"- {system['title']}: {', '.join(system['pins'])}." for system in systems if system["pins"]),
        f"- {run['date']}",
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, columns: Sequence[Column], systems: Iterable[dict[str, Any]]) -> list[str]:
    return [
        f"| {title} | {' | '.join(column.title for column in columns)} |",
        f"|---|{'---:|' * len(columns)}",
        *(f"| {one['title']} | {' | '.join(_cell(one, column) for column in columns)} |" for one in systems),
        "",
    ]


def _crashes(systems: Iterable[dict[str, Any]]) -> list[str]:
    crashed = [(system["title"], system["crash"]) for system in systems if system["crash"]]
    lines = [f"| {title} | {one['lost']} / {one['repeated']} / {one['seconds']:.1f} |" for title, one in crashed]
    return ["| crash | lost / repeated / s until the last one |", "|---|---:|", *lines, ""] if lines else []


def _cell(system: dict[str, Any], column: Column) -> str:
    if column.field not in system["median"]:
        return "none" if system["median"] else "failed"
    median, low, high = (format(system[what][column.field], column.form) for what in ("median", "min", "max"))
    cell = median if low == high else f"{median} ({low} to {high})"
    ratio = system["ratio"].get(column.field)
    return cell if ratio is None else f"{cell} {format(ratio, '.2f' if ratio >= 0.05 else '.2g')}x"


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
