"""`python -m bench.before`: what a commit of this repository costs, by turns with this checkout."""

import subprocess
import sys

import pytest

from bench.processes import ROOT
from tests.bench.printed_rows import cells_of, check_ratios
from tests.support import patient


def _before(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.before", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone: there is no commit to compare with")
def test_a_run_compares_with_a_commit() -> None:
    """Few jobs; the row has each ratio, and the lines below it what was measured."""
    ended = _before("HEAD", "--quick")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    head, _, row, *each = ended.stdout.splitlines()
    cells = cells_of(head, row)
    assert cells.pop("now") == "to HEAD"
    check_ratios(cells)
    assert [line.partition(":")[0] for line in each] == ["then", "now"]


def test_an_unknown_commit_is_refused() -> None:
    """With what git says."""
    ended = _before("no-such-commit")
    assert ended.returncode == 2
    assert "COMMIT: " in ended.stderr
