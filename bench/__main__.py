"""`python -m bench`: compare the systems on this machine, and print tables."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.crash import crash_each
from bench.measure import Plan, compare
from bench.plan_options import add_plan_options, plan_of
from bench.processes import Site
from bench.profiling import show
from bench.rabbitmq import RabbitMQ
from bench.report import document, markdown
from bench.server import Server
from bench.systems import SYSTEMS, System

FULL = Plan(rounds=4, seconds=3, jobs=None, idle_seconds=8, sleeping_jobs=1000, batch_items=200_000)
QUICK = Plan(rounds=1, seconds=0, jobs=1000, idle_seconds=2, sleeping_jobs=100, batch_items=20_000)
PROFILED = "conventions"
PROFILED_JOBS = 3000


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="bench", description="Compare job systems, interleaved, on one server.")
    names = [system.name for system in SYSTEMS]
    add_plan_options(parser, FULL, QUICK, "under two minutes, with much more noise")
    parser.add_argument("--crash", action="store_true", help="kill a worker of each system, too: a minute for each")
    parser.add_argument("--only", action="append", choices=names, help="this system; may be given several times")
    parser.add_argument(
        "--server", metavar="PROGRAM", help="a Valkey or Redis of this machine; default: that of the wheel"
    )
    parser.add_argument(
        "--rabbitmq",
        metavar="URL",
        help="a RabbitMQ of this machine, for the systems that have one; its virtual host is for this run alone",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there, too")
    parser.add_argument(
        "--profile", choices=("worker", "enqueue"), help=f"profile one system, {PROFILED} unless --only names another"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison, or a profile. Returns 0, also when a system failed, which the table says."""
    asked = parser()
    options = asked.parse_args(arguments)
    if options.crash and options.quick:
        asked.error("--crash takes a minute for each system: leave out --quick")
    rabbitmq = _rabbitmq(asked, options)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "server").mkdir()
        with Server(folder / "server", options.server, rabbitmq) as server:
            if options.profile:
                return _profile(options, server, folder, rabbitmq)
            wanted = options.only or [one.name for one in SYSTEMS if rabbitmq or not one.rabbitmq]
            sites = [_site(one, server, folder, rabbitmq) for one in SYSTEMS if one.name in wanted]
            plan = plan_of(options, FULL, QUICK)
            results = compare(sites, server, plan, _progress)
            if options.crash:
                crash_each(results, server, _progress)
            run = document(results, plan, server.versions)
    sys.stdout.write(markdown(run))
    if options.json:
        options.json.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return 0


def _rabbitmq(asked: argparse.ArgumentParser, options: argparse.Namespace) -> RabbitMQ | None:
    if options.rabbitmq is not None:
        try:
            return RabbitMQ.at(options.rabbitmq)
        except ValueError as error:
            asked.error(f"--rabbitmq: {error}")
    for system in SYSTEMS:
        if system.rabbitmq and system.name in (options.only or []):
            asked.error(f"{system.name} needs --rabbitmq URL")
    return None


def _profile(options: argparse.Namespace, server: Server, folder: Path, rabbitmq: RabbitMQ | None) -> int:
    name = (options.only or [PROFILED])[0]
    site = _site(next(one for one in SYSTEMS if one.name == name), server, folder, rabbitmq)
    show(site, server, options.profile, options.jobs or PROFILED_JOBS)
    return 0


def _site(system: System, server: Server, folder: Path, rabbitmq: RabbitMQ | None) -> Site:
    (folder / system.name).mkdir()
    return Site(system, server.url, folder / system.name, rabbitmq if system.rabbitmq else None)


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
