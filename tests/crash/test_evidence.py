"""What the verdict of a chaos run takes for a job in progress: one repeat of it is within what is promised."""

from pathlib import Path

import pytest

from tests.crash.evidence import Runs, unrecorded

WAITS = "WARNING/ForkPoolWorker-1] outcome not recorded yet: id=m1: Connection refused\n"
ENDED = "INFO/ForkPoolWorker-1] Task tasks.Append[m1] succeeded in 0.03s: None\n"


@pytest.mark.parametrize(
    ("log", "expected"), [("", set()), (WAITS, {"m1"}), (WAITS + ENDED, set()), (ENDED + WAITS + WAITS, {"m1"})]
)
def test_a_log_says_whose_outcome_waits(log: str, expected: set[str]) -> None:
    """What was said last of a message counts."""
    assert unrecorded(log) == expected


def test_a_job_whose_outcome_waits_for_the_server_is_in_progress(tmp_path: Path) -> None:
    """However long ago it wrote its last line; one that ended as long ago and was recorded is not."""
    lines = ["started 1 m1 1 11 11 10 5.0", "effect 1 m1 1 11 11 10 5.1", "ended 1 m1 1 11 11 10 5.2"]
    (tmp_path / "runs.log").write_text("\n".join(lines))
    runs = Runs(tmp_path)
    assert runs.in_progress({11}, 60.0) == set()
    assert runs.in_progress({11}, 60.0, {"m1"}) == {1}
    assert runs.in_progress({11}, 5.3) == {1}


def test_each_thread_of_a_process_has_a_job_of_its_own(tmp_path: Path) -> None:
    """The worker of a pool of threads is one process, in which several jobs are in progress."""
    lines = ["started 1 m1 1 10 21 9 5.0", "started 2 m2 1 10 22 9 5.1", "ended 2 m2 1 10 22 9 5.2"]
    (tmp_path / "runs.log").write_text("\n".join([*lines, "started 3 m3 1 10 22 9 5.3"]))
    runs = Runs(tmp_path)
    assert runs.processes_of(10) == {10}
    assert runs.in_progress({10}, 60.0) == {1, 3}
