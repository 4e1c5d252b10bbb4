"""`python -m bench.without`: what each optimisation of celery-conventions gains, by turns with all of them."""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.measure import Plan, Result, Sample, compare
from bench.optimisations import ELSEWHERE, OPTIMISATIONS
from bench.processes import Site
from bench.server import Server
from bench.systems import SYSTEMS

PLAN = Plan(rounds=5, seconds=3, jobs=15_000, idle_seconds=2, sleeping_jobs=500)
SHOWN = {
    "enqueue_cpu": "sender CPU",
    "enqueue_rate": "enqueue, jobs/s",
    "drain_cpu": "worker CPU",
    "drain_server_cpu": "server CPU",
    "drain_rate": "drain, jobs/s",
    "drain_5ms": "jobs of 5 ms/s",
    "latency_p50": "idle p50",
    "ready": "start",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table: each figure without an optimisation, as a ratio to that with all of them."""
    asked = argparse.ArgumentParser(prog="bench.without", description=__doc__)
    asked.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(OPTIMISATIONS)}; default: all but {', '.join(ELSEWHERE)}",
    )
    asked.add_argument("--rounds", type=int, default=PLAN.rounds)
    asked.add_argument("--jobs", type=int, default=PLAN.jobs)
    options = asked.parse_args(arguments)
    names = options.names or [name for name in OPTIMISATIONS if name not in ELSEWHERE]
    if unknown := sorted({*names} - {*OPTIMISATIONS}):
        asked.error(f"no such optimisation: {', '.join(unknown)}")
    full = next(system for system in SYSTEMS if system.name == "conventions")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Server(Path(folder), None) as server:
        sites = []
        for name in ("", *names):
            (place := Path(folder) / (name or "all")).mkdir()
            system = replace(full, name=name or "all", title=name or "all of them", program=full.name, without=name)
            sites.append(Site(system, server.url, place))
        plan = replace(PLAN, rounds=options.rounds, jobs=options.jobs)
        results = compare(sites, server, plan, _say)
    sys.stdout.write(table(results))
    return 0


def table(results: Sequence[Result]) -> str:
    """Markdown: a row for each optimisation; the first of the results has all of them."""
    base, *others = results
    lines = [f"| without | in its place | {' | '.join(SHOWN.values())} |", f"|---|---|{'---:|' * len(SHOWN)}"]
    for one in others:
        cells = [_ratio(base, one, field) for field in SHOWN]
        name = one.site.system.name
        lines.append(f"| {name} | {one.error or OPTIMISATIONS[name].instead} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratio(base: Result, one: Result, field: str) -> str:
    pairs = [
        (_of(mine, field), _of(other, field))
        for mine, other in zip(base.samples, one.samples, strict=False)
        if mine is not None and other is not None
    ]
    ratios = sorted(other / mine for mine, other in pairs if mine and other)
    if not ratios:
        return "none"
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _of(sample: Sample, field: str) -> float:
    found: float | None = getattr(sample, field)
    return found or 0.0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
