"""`python -m bench.orders --database URL`: orders, each sold in a transaction with a job for it, in several ways by turns; prints a table.

The database must be empty. Each turn has a new schema of tables, an empty Redis, and a worker of its own.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import create_engine, text

from bench import records
from bench.optimisations import WITHOUT
from bench.orders.shop import DATABASE, URL
from bench.processes import ROOT
from bench.server import Server

ORDERS, ROUNDS, ONE_BY_ONE = 5_000, 3, 100
EVERY = 0.05  # seconds between two orders that are sold one by one
PATIENCE = 120.0


class Compared(NamedTuple):
    """One row.

    Args:
        title: its head.
        program: in this folder.
        needs: a package without which it is left out.
        without: the optimisation that it does without.
        has_relay: whether the messages wait in an outbox.
    """

    title: str
    program: str
    needs: str = ""
    without: str = ""
    has_relay: bool = False


WAYS = (
    Compared("Celery, `delay` after the commit", "celery_after"),
    Compared("ours, `delay` after the commit", "ours_after"),
    Compared("ours, `enqueue_in`", "ours_in", has_relay=True),
    Compared("the same, rows sent one by one", "ours_in", without="rows_together", has_relay=True),
    Compared("Procrastinate, `defer` in the transaction", "procrastinate_in", needs="procrastinate"),
)


class Turn(NamedTuple):
    """What one turn has shown.

    Args:
        sold: orders a second, while no worker runs.
        relayed: rows a second that the relay sends, with nothing else to do; 0 where there is none.
        done: jobs a second, from the first to the last of those that waited.
        half: seconds from an order to the end of its job, 5 ms of which it waits: the median.
        most: the same, of 95 % of them.
    """

    sold: float
    relayed: float
    done: float
    half: float
    most: float


def measure(way: Compared, server: Server, database: str, folder: Path, many: tuple[int, int]) -> Turn:
    """One turn, with so many orders, and so many further ones by themselves. Raises: subprocess.CalledProcessError, AssertionError."""
    orders, single = many
    server.flush()
    _empty(database)
    path = folder / f"records-{time.monotonic_ns()}"
    environment = os.environ | {
        URL: server.url,
        DATABASE: database,
        WITHOUT: way.without,
        records.PATH: str(path),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", f"bench.orders.{way.program}"]

    def run(*verb: str) -> str:
        return subprocess.run(
            [*command, *verb], env=environment, cwd=folder, check=True, text=True, stdout=subprocess.PIPE
        ).stdout

    run("prepare")
    seconds = float(run("sell", "0", str(orders), "0"))
    relayed = orders / float(run("relay")) if way.has_relay else 0.0
    worker = subprocess.Popen(
        [*command, "work"], env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(path, orders)
        done = sorted(one.done for one in records.read(path))
        run("sell", str(orders), str(single), str(EVERY))
        _wait(path, orders + single)
    finally:
        worker.terminate()
        worker.wait()
    late = sorted(one.done - one.sent for one in records.read(path) if one.number >= orders)
    rate = (orders - 1) / (done[-1] - done[0])
    return Turn(orders / seconds, relayed, rate, statistics.median(late), late[int(len(late) * 0.95)])


def _wait(path: Path, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while len(records.read(path)) < count:
        assert time.monotonic() < until, f"{records.count(path)} of {count} jobs were done"  # noqa: S101  # a defect of a way
        time.sleep(0.02)


def _empty(database: str) -> None:
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def table(found: dict[Compared, list[Turn]]) -> str:
    """Markdown; the ratios are of the medians, to the first row."""
    lines = [
        "| way | orders/s | ratio | rows relayed/s | jobs/s | ratio | p50 ms | p95 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    base = _median(next(iter(found.values())))
    for way, turns in found.items():
        if not turns:
            lines.append(f"| {way.title} | not installed: `--with {way.needs}` | | | | | | |")
            continue
        mine = _median(turns)
        figures = f"{mine.sold:,.0f} | {mine.sold / base.sold:.2f} | {_shown(mine.relayed)} | {mine.done:,.0f} | {mine.done / base.done:.2f}"
        lines.append(f"| {way.title} | {figures} | {mine.half * 1000:.1f} | {mine.most * 1000:.1f} |")
    return "\n".join(lines) + "\n"


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate else ""


def _median(turns: Sequence[Turn]) -> Turn:
    return Turn(*(statistics.median(values) for values in zip(*turns, strict=True)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print. Returns 0."""
    parser = argparse.ArgumentParser(prog="bench.orders", description=__doc__)
    parser.add_argument("--database", required=True, help="postgresql://…, empty; all of its tables are dropped")
    parser.add_argument("--orders", type=int, default=ORDERS, help="of each turn")
    parser.add_argument("--single", type=int, default=ONE_BY_ONE, help="further ones, sold one by one")
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted({way.program for way in WAYS}),
        help="this way; may be given several times",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    wanted = [way for way in WAYS if not options.only or way.program in options.only]
    found: dict[Compared, list[Turn]] = {way: [] for way in wanted}
    with tempfile.TemporaryDirectory(prefix="orders-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with Server(folder / "server") as server:
            for number in range(options.rounds):
                for way in wanted:
                    if way.needs and importlib.util.find_spec(way.needs) is None:
                        continue
                    turn = measure(way, server, options.database, folder, (options.orders, options.single))
                    sys.stderr.write(f"round {number + 1}, {way.title}: {turn}\n")
                    found[way].append(turn)
    sys.stdout.write(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
