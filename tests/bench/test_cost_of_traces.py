"""`python -m bench.traces`: what spans cost, by turns with a process that makes none."""

import subprocess
import sys

from bench.processes import ROOT
from tests.support import patient


def test_a_run_compares_with_and_without() -> None:
    """Few jobs; the row has each ratio."""
    command = [sys.executable, "-m", "bench.traces", "--rounds", "1", "--jobs", "200"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    head, _, row, *each = ended.stdout.splitlines()
    assert head.startswith("| spans | sender CPU |")
    assert all(float(cell.split()[0]) > 0 for cell in row.strip("| ").split(" | ")[1:])
    assert [line.partition(":")[0] for line in each] == ["without", "traced"]
