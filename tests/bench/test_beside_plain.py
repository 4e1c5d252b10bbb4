"""`python -m bench.traces` and `bench.signed`: what spans and signatures cost, by turns with a process that has none."""

import subprocess
import sys

import pytest

from bench.processes import ROOT
from tests.bench.printed_rows import cells_of, check_ratios
from tests.support import patient


@pytest.mark.parametrize(
    ("module", "subject", "word"),
    [("traces", "spans", "traced"), ("signed", "messages", "signed"), ("sealed", "messages", "sealed")],
)
def test_a_run_compares_with_and_without(module: str, subject: str, word: str) -> None:
    """Few jobs; the row has each ratio."""
    command = [sys.executable, "-m", f"bench.{module}", "--quick"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    head, _, row, *each = ended.stdout.splitlines()
    cells = cells_of(head, row)
    assert cells.pop(subject) == word
    check_ratios(cells)
    assert [line.partition(":")[0] for line in each] == ["without", word]


def test_a_profile() -> None:
    """Of a worker that opens what is sealed."""
    command = [sys.executable, "-m", "bench.sealed", "--jobs", "200", "--profile", "worker"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ended.stdout.startswith("200 jobs; cProfile")
