"""`python -m bench.without`: what each optimisation of celery-conventions gains, by turns with all of them."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.by_turns import PLAN, QUICK, QUICK_MEANS, SHOWN, ratio, say
from bench.measure import Result, compare
from bench.optimisations import ELSEWHERE, OPTIMISATIONS
from bench.plan_options import add_plan_options, plan_of
from bench.processes import Site
from bench.server import Server
from bench.systems import SYSTEMS


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table: each figure without an optimisation, as a ratio to that with all of them."""
    asked = argparse.ArgumentParser(prog="bench.without", description=__doc__)
    asked.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(OPTIMISATIONS)}; default: all but {', '.join(ELSEWHERE)}",
    )
    add_plan_options(asked, PLAN, QUICK, QUICK_MEANS)
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
        results = compare(sites, server, plan_of(options, PLAN, QUICK), say)
    sys.stdout.write(table(results))
    return 0


def table(results: Sequence[Result]) -> str:
    """Markdown: a row for each optimisation; the first of the results has all of them."""
    base, *others = results
    lines = [f"| without | in its place | {' | '.join(SHOWN.values())} |", f"|---|---|{'---:|' * len(SHOWN)}"]
    for one in others:
        cells = [ratio(base, one, field) for field in SHOWN]
        name = one.site.system.name
        lines.append(f"| {name} | {one.error or OPTIMISATIONS[name].instead} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
