"""What `bench.without` and `bench.before` print of systems that were measured by turns: each figure as a ratio to the first one's."""

import argparse
import statistics
import sys
from dataclasses import replace

from bench.measure import Plan, Result, Sample

JOBS = 15_000
PLAN = Plan(rounds=5, seconds=3, jobs=JOBS, idle_seconds=2, sleeping_jobs=500)
QUICK = Plan(rounds=1, seconds=3, jobs=200, idle_seconds=0.2)
SHOWN = {
    "enqueue_cpu": "sender CPU",
    "enqueue_rate": "enqueue, jobs/s",
    "drain_cpu": "worker CPU",
    "drain_recorder_cpu": "its recorder's",
    "drain_server_cpu": "server CPU",
    "drain_all_cpu": "both",
    "drain_rate": "drain, jobs/s",
    "drain_5ms": "jobs of 5 ms/s",
    "latency_p50": "idle p50",
    "ready": "start",
}


def add_options(parser: argparse.ArgumentParser, rounds: int = PLAN.rounds) -> None:
    """The options that say how much is measured; `rounds`: the default."""
    parser.add_argument("--rounds", type=int, help=f"default {rounds}, or {QUICK.rounds} with --quick")
    parser.add_argument("--jobs", type=int, help=f"jobs of a round; default {JOBS:,}, or {QUICK.jobs} with --quick")
    parser.add_argument("--quick", action="store_true", help="half a minute, to see that it works; no jobs of 5 ms")
    parser.set_defaults(default_rounds=rounds)


def plan_of(options: argparse.Namespace) -> Plan:
    """What they ask for."""
    plan = QUICK if options.quick else replace(PLAN, rounds=options.default_rounds)
    return replace(plan, rounds=options.rounds or plan.rounds, jobs=options.jobs or plan.jobs)


def ratio(base: Result, one: Result, field: str) -> str:
    """Median, smallest and largest of the ratios, round by round: a machine that slows down slows both."""
    pairs = [
        (_of(mine, field), _of(other, field))
        for mine, other in zip(base.samples, one.samples, strict=False)
        if mine is not None and other is not None
    ]
    ratios = sorted(other / mine for mine, other in pairs if mine and other)
    if not ratios:
        return "none"
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def medians(one: Result) -> list[str]:
    """Each figure with its title; CPU in seconds for 1,000 jobs."""
    samples = [sample for sample in one.samples if sample is not None]
    return [
        f"{title} {statistics.median(_of(sample, field) for sample in samples):.3g}"
        for field, title in SHOWN.items()
        if samples
    ]


def _of(sample: Sample, field: str) -> float:
    found: float | None = getattr(sample, field)
    return found or 0.0


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
