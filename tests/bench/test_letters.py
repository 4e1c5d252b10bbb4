"""`python -m bench.letters`: each question has an answer and a time, on a real PostgreSQL."""

import subprocess
import sys

from bench.processes import ROOT
from tests.support import patient
from tests.test_docs import table

PERFORMANCE = ROOT / "docs" / "performance.md"


def test_every_question_of_the_document_is_asked(postgres_url: str) -> None:
    """Of a few letters; the document has the times of a million."""
    command = [sys.executable, "-m", "bench.letters", "--database", postgres_url, "--letters", "3000"]
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=patient(100), check=False)
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")][1:]
    assert [question.partition(" all ")[0] for question, _ in rows] == [
        question.partition(" all ")[0] for question, _ in table(PERFORMANCE, "question")
    ]
    assert "Memory of this process grew by" in ended.stdout
