"""The release before this one, from the history of this clone."""

import subprocess

import pytest

from tests.workers import ROOT

BEFORE = "2fd1569"  # the last commit that knows of no layouts; replace it by the last release, once there is one


def files_before(*paths: str) -> bytes:
    """A tar archive of its files, or of those below some paths. Skips the test where the history does not go back so far."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "cat-file", "-e", f"{BEFORE}^{{commit}}"], capture_output=True, check=False).returncode:
        pytest.skip(f"this clone has no commit {BEFORE}: git fetch --unshallow")
    return subprocess.run([*git, "archive", BEFORE, *paths], capture_output=True, check=True).stdout
