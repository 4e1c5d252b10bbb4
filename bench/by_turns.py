"""How much is measured of systems by turns, and what is printed: each figure as a ratio to the first one's."""

import statistics
import sys

from bench.measure import Plan, Result, Sample

JOBS = 15_000
PLAN = Plan(rounds=5, seconds=3, jobs=JOBS, idle_seconds=2, sleeping_jobs=500)
QUICK = Plan(rounds=1, seconds=3, jobs=200, idle_seconds=0.2)
QUICK_MEANS = "a quarter of a minute, to see that it works; no jobs of 5 ms"
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
