"""What `bench.traces`, `bench.signed` and `bench.sealed` do: measure celery-conventions with something on, by turns with it off, or profile it."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.by_turns import JOBS, PLAN, QUICK, QUICK_MEANS, SHOWN, medians, ratio, say
from bench.measure import compare
from bench.plan_options import add_plan_options, plan_of
from bench.processes import Site
from bench.profiling import show
from bench.server import Server
from bench.systems import SYSTEMS


def measure(arguments: Sequence[str] | None, *, prog: str, description: str | None, subject: str, word: str) -> int:
    """Measure, and print a table: each figure with it, as a ratio to that without; or a profile.

    Args:
        arguments: of the command line.
        prog: its name.
        description: for its help.
        subject: what is measured, the head of the table.
        word: what celery-conventions is with it; `bench/systems/<word>_conventions.py` is its program.

    Returns:
        The exit status.
    """
    asked = argparse.ArgumentParser(prog=prog, description=description)
    add_plan_options(asked, PLAN, QUICK, QUICK_MEANS)
    asked.add_argument(
        "--profile", choices=("worker", "enqueue"), help=f"profile it {word} alone, as `python -m bench` does"
    )
    options = asked.parse_args(arguments)
    ours = next(system for system in SYSTEMS if system.name == "conventions")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Server(Path(folder), None) as server:
        sites = []
        for name, program in (("without", ours.name), (word, f"{word}_conventions")):
            (place := Path(folder) / name).mkdir()
            sites.append(Site(replace(ours, name=name, title=name, program=program), server.url, place))
        if options.profile:
            return not show(sites[1], server, options.profile, options.jobs or JOBS)
        results = compare(sites, server, plan_of(options, PLAN, QUICK), say)
    cells = [ratio(results[0], results[1], field) for field in SHOWN]
    rows = ((subject, *SHOWN.values()), ("---", *("---:" for _ in SHOWN)), (word, *cells))
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))
    for one in results:
        sys.stdout.write(f"{one.site.system.title}: {one.error or ', '.join(medians(one))}\n")
    return any(one.error for one in results)
