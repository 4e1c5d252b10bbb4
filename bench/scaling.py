"""`python -m bench.scaling`: what a job costs by how many wait, and by how many processes there are; tables and charts.

The worker is warm, and stands still while jobs are sent in bulk, so that nothing but doing them is counted. The charts are
Mermaid's, which GitHub draws.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import records
from bench.measure import start_anew, wait_for_recorder, wait_for_records, wait_until_calm
from bench.processes import Sender, Site, Worker
from bench.server import Server
from bench.systems import SYSTEMS

SYSTEM = "conventions"
LENGTHS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2, 3, 4)
USUAL_LENGTH, USUAL_PROCESSES = 30_000, 2
WARM = 500  # jobs, after which a worker knows how long they take
COUNTED = 30_000  # jobs that are measured of those that wait, at the most
BURSTS = 20  # where few wait, at the most


class Point(NamedTuple):
    """What is measured at one length, or with so many processes.

    Attributes:
        x: the length, or the number of processes.
        rate: jobs a second.
        worker: microseconds of CPU of a job, in all processes of the worker.
        server: the same, of the server.
        recorder: the same, of the worker's recorder until all was recorded; `None` where it was not after some seconds, or where
            another one took its place.
    """

    x: int
    rate: float
    worker: float
    server: float
    recorder: float | None


def measured(site: Site, server: Server, length: int, processes: int) -> tuple[float, float, float, float | None]:
    """The rate and the CPU times of a `Point`. Raises: SystemFailed."""
    start_anew(site, server)
    bursts, counted = max(1, min(BURSTS, COUNTED // length)), min(length, COUNTED)
    seconds = server_cpu = 0.0
    with Sender(site) as sender, Worker(site, "--concurrency", str(processes)) as worker:
        sender.send(first=1, count=WARM, how="bulk")
        wait_for_records(site, worker, WARM + 1)
        wait_for_recorder(site, server)
        wait_until_calm(worker, server)
        cpu, recorder = worker.cpu(), worker.recorder_cpu()
        for number in range(WARM + 1, WARM + 1 + bursts * length, length):
            there = records.count(site.records)
            with worker.standing_still():
                sender.send(first=number, count=length, how="bulk")
                before = server.counters()
            wait_for_records(site, worker, there + counted)
            server_cpu += (server.counters() - before).cpu
            done = sorted(one.done for one in records.read(site.records) if one.number >= number)[:counted]
            seconds += done[-1] - done[0]
        cpu = worker.cpu() - cpu
        wait_for_recorder(site, server)
        recorder = worker.recorder_cpu() - recorder
        is_whole = counted == length and not server.redis.xlen(site.system.journal) and recorder >= 0
    jobs = bursts * counted
    per_job = recorder / jobs * 1e6 if is_whole else None
    return (jobs - bursts) / seconds, cpu / jobs * 1e6, server_cpu / jobs * 1e6, per_job


def tables(title: str, points: Sequence[Point]) -> str:
    """A table, and its CPU columns as a chart."""
    x = [f"{point.x:,}" for point in points]
    most = max(point.worker + point.server for point in points)
    return "\n".join(
        [
            f"| {title} | jobs/s | worker CPU, µs/job | server CPU, µs/job | recorder CPU, µs/job |",
            "|---:|---:|---:|---:|---:|",
            *(f"| {one} | {point.rate:,.0f} | {point.worker:.0f} | {point.server:.0f} | {_shown(point.recorder)} |" for one, point in zip(x, points, strict=True)),
            "",
            "```mermaid",
            "xychart-beta",
            f'  title "µs of CPU of a job, by {title}: worker, and server (bars)"',
            f"  x-axis [{', '.join(chr(34) + str(one) + chr(34) for one in x)}]",
            f'  y-axis "µs" 0 --> {most:.0f}',
            f"  bar [{', '.join(f'{point.server:.0f}' for point in points)}]",
            f"  line [{', '.join(f'{point.worker:.0f}' for point in points)}]",
            "```",
            "",
        ]
    )  # fmt: skip


def _shown(number: float | None) -> str:
    return "none" if number is None else f"{number:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print. Returns 0."""
    parser = argparse.ArgumentParser(
        prog="bench.scaling", description="What a job costs, by queue length and processes."
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, metavar="N", help="how many jobs wait")
    parser.add_argument("--processes", type=int, nargs="+", default=PROCESSES, metavar="N", help="of the worker")
    parser.add_argument("--server", metavar="PROGRAM", help="as of bench")
    options = parser.parse_args(arguments)
    (system,) = (one for one in SYSTEMS if one.name == SYSTEM)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        for part in ("server", SYSTEM):
            (folder / part).mkdir()
        with Server(folder / "server", options.server) as server:
            site = Site(system, server.url, folder / SYSTEM)
            site.prepare()
            usual = min(USUAL_LENGTH, max(options.lengths))
            lengths = [Point(one, *measured(site, server, one, USUAL_PROCESSES)) for one in options.lengths]
            numbers = [Point(one, *measured(site, server, usual, one)) for one in options.processes]
    sys.stdout.write(tables("jobs that wait", lengths) + "\n" + tables("processes", numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
