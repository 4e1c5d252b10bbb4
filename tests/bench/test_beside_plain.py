"""`python -m bench.traces` and `bench.signed`: what spans and signatures cost, by turns with a process that has none."""

import subprocess
import sys

import pytest

from bench.by_turns import SHOWN
from bench.processes import ROOT
from tests.support import patient


def test_a_run_compares_with_and_without() -> None:
    """Few jobs; the row has each ratio. The other two are the same with another program, which is profiled below."""
    command = [sys.executable, "-m", "bench.signed", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    head, _, row, *each = ended.stdout.splitlines()
    assert head.startswith("| messages | sender CPU |")
    cells = row.strip("| ").split(" | ")
    assert cells.pop(1 + [*SHOWN].index("drain_5ms")) == "none"  # a quick run leaves it out
    assert all(float(cell.split()[0]) > 0 for cell in cells[1:])
    assert [line.partition(":")[0] for line in each] == ["without", "signed"]


@pytest.mark.parametrize("module", ["traces", "sealed"])
def test_a_profile(module: str) -> None:
    """Of a worker that makes spans, and of one that opens what is sealed."""
    command = [sys.executable, "-m", f"bench.{module}", "--jobs", "200", "--profile", "worker"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ended.stdout.startswith("200 jobs; cProfile")
