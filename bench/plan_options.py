"""The options of a command that say how much it measures: `--quick`, `--rounds` and `--jobs`."""

import argparse
from dataclasses import replace

from bench.measure import Plan


def add_plan_options(parser: argparse.ArgumentParser, full: Plan, quick: Plan, quick_means: str) -> None:
    """Add them.

    Args:
        parser: of the command.
        full: what is measured by default.
        quick: what is measured with `--quick`.
        quick_means: the help of that.
    """
    jobs = f"{full.jobs:,}" if full.jobs else "some seconds' worth"
    parser.add_argument("--quick", action="store_true", help=quick_means)
    parser.add_argument("--rounds", type=_positive, help=f"default {full.rounds}, or {quick.rounds} with --quick")
    parser.add_argument("--jobs", type=_positive, help=f"of a round; default {jobs}, or {quick.jobs:,} with --quick")


def plan_of(options: argparse.Namespace, full: Plan, quick: Plan) -> Plan:
    """What the options ask for; `full` and `quick` as `add_plan_options` got them."""
    plan = quick if options.quick else full
    return replace(plan, rounds=options.rounds or plan.rounds, jobs=options.jobs or plan.jobs)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
