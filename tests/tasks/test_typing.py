"""`tests/typing/api.py` under mypy."""

import subprocess
import sys

from tests.workers import ROOT


def test_the_interface_is_typed() -> None:
    """Declarations and calls as the documentation shows them are correct to mypy, and wrong ones are found."""
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--explicit-package-bases", "tests/typing/api.py"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
