"""Workers whose clocks are hours ahead or behind: due times, leases and ages go by the server's clock alone."""

from contextlib import ExitStack

from conventions.app import ConventionsApp
from tests.crash.clocks import wrong_by
from tests.crash.crash_tasks import Append, AppendAtSecond, Hold
from tests.crash.evidence import Runs
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation, letters, messages, wait_until_empty

JOBS = range(40)


def test_workers_whose_clocks_are_four_hours_apart(installation: Installation, app: ConventionsApp) -> None:
    """One is killed: the other takes over in the usual time, nothing runs early, twice or is called too old."""
    QUICK.install(installation)
    options = ("--concurrency=2",)
    with ExitStack() as stack:
        ahead = stack.enter_context(installation.worker(*options, "--hostname=ahead@%h", **wrong_by(2)))
        Hold.delay(1000)
        wait_until(lambda: Runs(installation.folder).starts()[1000] == 1, 10, "the job runs")
        stack.enter_context(installation.worker(*options, "--hostname=behind@%h", **wrong_by(-2)))
        Append.apply_async((2000, 0.01), countdown=60)
        for number in JOBS:
            (AppendAtSecond if number % 2 else Append).apply_async((number, 0.02), countdown=1 if number % 4 else None)
        wait_until(lambda: {*Runs(installation.folder).effects()} >= {*JOBS}, 30, "all but what waits is done")
        # A job whose outcome is not recorded yet when its process is killed may run again.
        wait_until(lambda: len(messages(app)) == 2, 20, "all of them are recorded")
        assert Runs(installation.folder).starts()[2000] == 0, "it ran early"
        ahead.kill()
        wait_until(
            lambda: Runs(installation.folder).starts()[1000] == 2, QUICK.recovery + 10, "what it ran is run elsewhere"
        )
        (installation.folder / "go").touch()
        wait_until_empty(app, 90)
    assert Runs(installation.folder).effects() == dict.fromkeys((*JOBS, 1000, 2000), 1)
    assert not letters(app, state=None)
