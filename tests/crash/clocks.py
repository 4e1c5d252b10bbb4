"""Clocks that are wrong: processes of workers and beat that believe another time than the server's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


def wrong_by(hours: float) -> dict[str, str]:
    """Variables for a process whose clock is wrong; its monotonic clock, which measures spans, is right.

    Skips the test where libfaketime is not installed.
    """
    found = LIBRARY if LIBRARY.exists() else next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        pytest.skip("libfaketime is not installed: apt-get install libfaketime")
    variables = {
        "LD_PRELOAD": str(found),
        "FAKETIME": f"{hours:+g}h",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    said = subprocess.check_output(
        [sys.executable, "-c", "import time; print(time.time())"], env=os.environ | variables
    )
    assert abs(float(said) - time.time() - hours * 3600) < 60, "the clock of a process is not wrong: this shows nothing"
    return variables
