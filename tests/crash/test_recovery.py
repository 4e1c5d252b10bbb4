"""How soon what a killed worker held is run elsewhere, with the platform's own intervals and a long queue."""

import time
from collections.abc import Callable
from itertools import batched

import pytest

from conventions import ImmediateTask, Priority
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Publication
from tests.crash.crash_tasks import Hold, Idle, Trivial
from tests.crash.evidence import Runs
from tests.stored_messages import stored
from tests.support import wait_until
from tests.workers import Installation

QUEUED = 100_000
RECOVERY = 45  # seconds, promised at any length of the queue


def fill(app: ConventionsApp, task: type[ImmediateTask], count: int, priority: Priority) -> None:
    """Put so many messages of a task into its queue, as a thousand web processes would, but sooner."""
    first = task.apply_async(priority=priority).id
    fields = {name: value.decode() for name, value in stored(app.store, first).items()}
    ids = (f"{first}-{number}" for number in range(count - 1))
    for some in batched(ids, 500, strict=False):
        app.broker.publish(
            [
                Publication(one, fields["queue"], fields["payload"].replace(first, one), int(fields["priority"]))
                for one in some
            ]
        )
    assert app.broker.sizes(fields["queue"]).ready >= count


def recovery(installation: Installation, fill_queue: Callable[[], None]) -> float:
    """Seconds from the kill of a worker in the middle of a job to the start of that job in another worker."""
    queues = ("-Q", "immediate", "--concurrency=2")
    Hold.delay(1)
    fill_queue()
    with installation.worker(*queues) as first:
        wait_until(lambda: Runs(installation.folder).starts()[1] == 1, 10, "the job runs")
        with installation.worker(*queues) as second:
            first.kill()
            killed = time.monotonic()
            pids = Runs(installation.folder).processes_of(first.process.pid)
            found = wait_until(
                lambda: Runs(installation.folder).recoveries([1], pids, killed), RECOVERY + 30, "the job runs again"
            )
            (installation.folder / "go").touch()
            wait_until(lambda: Runs(installation.folder).effects()[1] == 1, 10, "the job ends")
            assert second.process.poll() is None
    return found[1]


@pytest.mark.timeout(150)
def test_behind_100_000_messages_in_its_queue(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """The other worker is busy with those of its own queue all the time."""
    seconds = recovery(installation, lambda: fill(app, Trivial, QUEUED, Priority.LOW))
    left = app.broker.sizes("immediate").ready
    show(f"recovery with {QUEUED} messages of lower priority in the queue, {left} left at the end: {seconds:.1f} s")
    assert left > 0  # else this shows nothing
    assert seconds < RECOVERY


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_behind_messages_of_its_own_priority(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """It came before them, so it goes to the front."""
    seconds = recovery(installation, lambda: fill(app, Trivial, QUEUED, Priority.NORMAL))
    show(f"recovery with {QUEUED} messages of the same priority in the queue: {seconds:.1f} s")
    assert app.broker.sizes("immediate").ready > 0
    assert seconds < RECOVERY


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_beside_a_queue_that_nobody_consumes(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """The sweep does not read what is ready."""
    seconds = recovery(installation, lambda: fill(app, Idle, QUEUED, Priority.NORMAL))
    show(f"recovery with {QUEUED} messages in a queue that nobody consumes: {seconds:.1f} s")
    assert seconds < RECOVERY
