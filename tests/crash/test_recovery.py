"""How soon what a killed worker held is run elsewhere: with the usual lease and a long queue, and with a short lease."""

import time
from collections import Counter
from collections.abc import Callable

import pytest

from conventions import ImmediateTask, Priority
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Publication
from conventions.core.chunking import batched
from tests.crash.chaos import pause
from tests.crash.crash_tasks import Hold, Idle, Trivial
from tests.crash.evidence import Runs
from tests.crash.set_ups import on_each_set_up
from tests.crash.tempo import BRISK, USUAL, Tempo
from tests.stored_messages import stored
from tests.support import patient, wait_until
from tests.workers import Installation, wait_until_empty

QUEUED = 100_000
SOME = 30_000  # more than a worker does until it recovers, with a short lease
RECOVERY = 45  # seconds, promised at any length of the queue
SHORT_LEASE, SHORT_RECOVERY = 6, 10  # seconds


def fill(app: ConventionsApp, task: type[ImmediateTask], count: int, priority: Priority) -> None:
    """Put so many messages of a task into its queue, as a thousand web processes would, but sooner."""
    first = task.apply_async(priority=priority).id
    fields = {name: value.decode() for name, value in stored(app.store, first).items()}
    ids = (f"{first}-{number}" for number in range(count - 1))
    for some in batched(ids, 500):
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


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((USUAL, QUEUED, RECOVERY), marks=pytest.mark.soak, id="usual lease"),
        pytest.param((Tempo(SHORT_LEASE), SOME, SHORT_RECOVERY), id="short lease"),
    ],
)
def test_behind_a_long_queue(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None], case: tuple[Tempo, int, float]
) -> None:
    """The other worker is busy with those of its own queue all the time."""
    tempo, queued, promised = case
    tempo.install(installation)
    seconds = recovery(installation, lambda: fill(app, Trivial, queued, Priority.LOW))
    left = app.broker.sizes("immediate").ready
    show(f"recovery with {queued} messages of lower priority in the queue, {left} left at the end: {seconds:.1f} s")
    assert left > 0  # else this shows nothing
    assert seconds < promised + patient(1) - 1


@pytest.mark.soak
def test_behind_messages_of_its_own_priority(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """It came before them, so it goes to the front."""
    seconds = recovery(installation, lambda: fill(app, Trivial, QUEUED, Priority.NORMAL))
    show(f"recovery with {QUEUED} messages of the same priority in the queue: {seconds:.1f} s")
    assert app.broker.sizes("immediate").ready > 0
    assert seconds < RECOVERY + patient(1) - 1


@pytest.mark.soak
def test_beside_a_queue_that_nobody_consumes(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """The sweep does not read what is ready."""
    seconds = recovery(installation, lambda: fill(app, Idle, QUEUED, Priority.NORMAL))
    show(f"recovery with {QUEUED} messages in a queue that nobody consumes: {seconds:.1f} s")
    assert seconds < RECOVERY + patient(1) - 1


@pytest.mark.everyday
@on_each_set_up
def test_with_a_short_lease(installation: Installation, app: ConventionsApp, show: Callable[[str], None]) -> None:
    """All intervals of recovery follow from `CONVENTIONS_LEASE`, and nothing else is set."""
    installation.settings["lease"] = SHORT_LEASE
    queues, jobs = ("-Q", "immediate", "--concurrency=2"), (1, 2)
    with installation.worker(*queues) as first:
        for number in jobs:
            Hold.delay(number)
        wait_until(lambda: Runs(installation.folder).starts().keys() == {*jobs}, 10, "the jobs run")
        pids = Runs(installation.folder).processes_of(first.process.pid)
        with installation.worker(*queues, "--hostname=second@%h"):
            lead = app.store.key("recorder")
            wait_until(
                lambda: 0 < app.store.redis.pttl(lead) <= SHORT_LEASE / 3 * 1000, 10, "a recorder leads, for less"
            )
            first.kill()
            killed = time.monotonic()
            found = wait_until(
                lambda: len(again := Runs(installation.folder).recoveries(jobs, pids, killed)) == len(jobs) and again,
                SHORT_RECOVERY, "the jobs run again",
            )  # fmt: skip
            (installation.folder / "go").touch()
            wait_until(lambda: Runs(installation.folder).effects() == Counter(jobs), 10, "the jobs end, once")
    assert max(found.values()) < SHORT_RECOVERY + patient(1) - 1, "a promise, and what a busy machine may add"
    show(f"with a lease of {SHORT_LEASE} s: run again after {', '.join(f'{one:.1f} s' for one in found.values())}")


def test_workers_with_different_leases(installation: Installation, app: ConventionsApp) -> None:
    """As while a deploy changes it: what each of them holds is its own for as long as its own lease says."""
    numbers, queues = (1, 2), ("-Q", "immediate", "--concurrency=1")
    with (
        installation.worker(*queues, CONVENTIONS_LEASE=str(USUAL.lease)),
        installation.worker(*queues, CONVENTIONS_LEASE=str(BRISK.lease)),
    ):
        for number in numbers:
            Hold.delay(number)
        wait_until(lambda: Runs(installation.folder).starts().keys() == {*numbers}, 10, "each of them has one")
        pause(2 * BRISK.recovery)
        (installation.folder / "go").touch()
        wait_until_empty(app)
    assert Runs(installation.folder).starts() == Runs(installation.folder).effects() == Counter(numbers)
