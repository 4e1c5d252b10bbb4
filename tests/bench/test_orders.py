"""`python -m bench.orders`: each way sells real orders, and every job is done."""

import subprocess
import sys

from bench.orders.__main__ import WAYS
from bench.processes import ROOT
from tests.support import patient
from tests.test_docs import table

PERFORMANCE = ROOT / "docs" / "performance.md"


def test_every_way_of_the_document_is_measured(postgres_url: str) -> None:
    """Of a few orders, with and without an outbox; the document has the figures of many. A peer that is not installed says how to have it."""
    some = ("celery_after", "ours_in", "procrastinate_in")
    few = ["--orders", "40", "--single", "5", "--rounds", "1", *(word for one in some for word in ("--only", one))]
    command = [sys.executable, "-m", "bench.orders", "--database", postgres_url, *few]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")][1:]
    measured = [way for way in WAYS if way.program in some]
    assert [row[0] for row in rows] == [way.title for way in measured]
    assert [row[0] for row in table(PERFORMANCE, "way")] == [way.title for way in WAYS]
    for row, way in zip(rows, measured, strict=True):
        if not way.needs:
            assert all(float(cell.replace(",", "")) > 0 for cell in row[1:] if cell), row
            assert bool(row[3]) == way.has_relay
