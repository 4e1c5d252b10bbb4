"""Which processes of a pool are ended when its worker stops."""

import subprocess
from types import SimpleNamespace

from billiard.pool import ApplyResult

from conventions.worker.shutdown import end_processes
from tests.support import wait_until


def test_a_job_whose_process_has_died_holds_up_no_idle_one() -> None:
    """The pool was stopped before it heard of that, and nobody tells it any more."""
    idle, busy = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sleep", "60"])
    try:
        jobs: dict[int, ApplyResult] = {}
        ApplyResult(jobs, None)._write_to = busy
        end_processes(SimpleNamespace(_pool=SimpleNamespace(_cache=jobs, _pool=[idle], did_start_ok=None)))
        assert idle.poll() is None, "the other one may need it"
        busy.kill()
        wait_until(lambda: idle.poll() is not None, 30, "it is ended")
    finally:
        for one in (idle, busy):
            one.kill()
            one.wait()
