"""`python -m bench.scaling`: a tiny run, whose tables are those of the document."""

import subprocess
import sys

from bench.processes import ROOT
from tests.support import patient
from tests.test_docs import table

PERFORMANCE = ROOT / "docs" / "performance.md"


def test_each_length_and_number_of_processes_has_its_figures() -> None:
    """More than 0 each, of as many jobs as a clock of 10 ms needs; one that is longer than what is counted would need more time."""
    command = [sys.executable, "-m", "bench.scaling", "--lengths", "300", "--processes", "1"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")]
    titles = [row[0] for row in rows if "jobs/s" in row]
    assert titles == ["jobs that wait", "processes"]
    assert [row[0] for row in rows if "jobs/s" not in row] == ["300", "1"]
    assert all(float(cell.replace(",", "")) > 0 for row in rows if "jobs/s" not in row for cell in row[1:])
    assert ended.stdout.count("xychart-beta") == 2
    for title in titles:
        assert table(PERFORMANCE, title), f"the document has no table of {title}"
