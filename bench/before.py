"""`python -m bench.before COMMIT`: what celery-conventions costs now, by turns with what it was at a commit of this repository."""

import argparse
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.by_turns import PLAN, QUICK, QUICK_MEANS, SHOWN, medians, ratio, say
from bench.measure import compare
from bench.plan_options import add_plan_options, plan_of
from bench.processes import ROOT, Site
from bench.server import Server
from bench.systems import SYSTEMS

FULL = replace(PLAN, rounds=10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table: each figure now, as a ratio to that of the commit."""
    asked = argparse.ArgumentParser(prog="bench.before", description=__doc__)
    asked.add_argument("commit", metavar="COMMIT", help="its bench has this system, with the same verbs")
    add_plan_options(asked, FULL, QUICK, QUICK_MEANS)
    asked.add_argument("--system", default="conventions", choices=[system.name for system in SYSTEMS if system.journal])
    options = asked.parse_args(arguments)
    system = next(one for one in SYSTEMS if one.name == options.system)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Server(Path(folder), None) as server:
        then = Path(folder) / "checkout"
        try:
            _unpack(options.commit, then)
        except subprocess.CalledProcessError as error:
            asked.error(f"COMMIT: {error.stderr.decode().strip()}")
        sites = []
        for title, root in (("then", then), ("now", ROOT)):
            (place := Path(folder) / title).mkdir()
            row = replace(system, name=title, title=title, program=system.program or system.name, root=root)
            sites.append(Site(row, server.url, place))
        results = compare(sites, server, plan_of(options, FULL, QUICK), say)
    failed = [f"{one.site.system.title}: {one.error}" for one in results if one.error]
    before, after = results
    cells = [ratio(before, after, field) for field in SHOWN]
    rows = (("now", *SHOWN.values()), ("---", *("---:" for _ in SHOWN)), (f"to {options.commit}", *cells))
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))
    for one in results:
        sys.stdout.write(f"{one.site.system.title}: {', '.join(medians(one))}\n")
    sys.stdout.write("".join(f"{line}\n" for line in failed))
    return bool(failed)


def _unpack(commit: str, folder: Path) -> None:
    made = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")


if __name__ == "__main__":
    sys.exit(main())
