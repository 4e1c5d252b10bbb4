"""`python -m bench.without`: the optimisations that it does without are there, and each can be left out."""

import subprocess
import sys

import pytest

from bench.optimisations import OPTIMISATIONS
from bench.processes import ROOT
from tests.bench.printed_rows import cells_of, check_ratios
from tests.support import patient


@pytest.mark.parametrize("name", OPTIMISATIONS)
def test_the_plain_way_takes_its_place(name: str) -> None:
    """In a process of its own, since it stays there."""
    program = f"""
import importlib, os
from functools import reduce
from bench.optimisations import OPTIMISATIONS, leave_out

def now(place):
    module, _, path = place.partition(":")
    return reduce(getattr, path.split("."), importlib.import_module(module))

one = OPTIMISATIONS[{name!r}]
before = {{place: now(place) for place in one.plain}}
leave_out({name!r})
assert all(now(place) is not was for place, was in before.items())
assert all(os.environ[key] == value for key, value in one.variables.items())
assert one.plain or one.variables
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_run_compares_with_all_of_them() -> None:
    """One optimisation, few jobs; the document has the table of all."""
    command = [sys.executable, "-m", "bench.without", "claim_new", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr
    head, _, row = ended.stdout.splitlines()
    cells = cells_of(head, row)
    assert cells.pop("without") == "claim_new"
    assert cells.pop("in its place") == OPTIMISATIONS["claim_new"].instead
    check_ratios(cells)


def test_an_unknown_name_is_refused() -> None:
    """With those that there are."""
    command = [sys.executable, "-m", "bench.without", "everything"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(30), check=False)
    assert ended.returncode == 2
    assert "no such optimisation: everything" in ended.stderr
