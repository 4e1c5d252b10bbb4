"""The fast lane, when a job of a group is not short after all, or its process is ended: its neighbours run once each."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.lane_fixtures import (  # noqa: F401  # fixtures
    QUEUE,
    Crew,
    Lane,
    crew,
    install,
    lane,
    sizes,
    some,
)
from tests.integration.lane_tasks import Limited, Quick
from tests.support import wait_until
from tests.workers import wait_for_letter

NEIGHBOURS = 24
BEFORE = 5  # of them, before the one that a test is about
WAITS = 8  # one of them, behind it
PREFETCH = 4  # messages that a worker holds for each process
RETURNED = "that waited behind it are back"

prefork = pytest.mark.parametrize("crew", ["prefork"], indirect=True, scope="module")


@dataclass(frozen=True)
class Group:
    """A job that is not as short as others, and those among which it was sent."""

    lane: Lane
    odd: str
    neighbours: list[str]

    def let_go(self) -> None:
        """Let the odd one end."""
        (self.lane.folder / "go").touch()

    def wait_for_names(self, number: int) -> None:
        """Wait until so many jobs have begun, while the odd one goes on."""
        try:
            wait_until(lambda: len(self.lane.names) >= number, 30)
        except AssertionError as error:
            raise AssertionError(f"{len(self.lane.names)} of {number} have begun") from error

    def has_only(self, *without: int) -> None:
        """Check that nothing ran twice, and all ran but these neighbours."""
        assert self.lane.names == sorted(
            ["odd", *(f"neighbour {one}" for one in range(NEIGHBOURS) if one not in without)]
        )

    def check_neighbours(self) -> None:
        """Each has run once, in its first attempt, and no start was counted, which would have made it a dead letter."""
        self.lane.wait_until_done()
        self.has_only()
        recorded = self.lane.kinds()
        assert [recorded[one] for one in self.neighbours] == [["succeeded"]] * NEIGHBOURS


def grouped(
    lane: Lane, how: str, task: type[Quick] = Quick, *, number: int = 1, behind: int = 1, **options: Any
) -> Group:
    """Send `odd` among jobs that are short, until others wait behind it in its group: a machine with other work makes groups small.

    Args:
        lane: the worker and its application.
        how: what it does.
        task: of all of them.
        number: 2: there is another one of its kind.
        behind: how many wait behind it, at least.
        options: its own, of `apply_async`.
    """
    lane.warm_up(task)
    for attempt in range(10):
        turn = Lane(lane.app, lane.worker, lane.folder / f"turn {attempt}")
        turn.folder.mkdir()
        ids = []
        with turn.paused():
            for neighbour in range(NEIGHBOURS):
                if neighbour == BEFORE:
                    odd = task.apply_async(kwargs={"folder": turn.folder, "name": "odd", "how": how}, **options).id
                if neighbour == 3 * BEFORE and number == 2:
                    task.delay(turn.folder, "odd too", how)
                ids.append(task.delay(turn.folder, f"neighbour {neighbour}").id)
        turn.wait_for("odd")
        if number == 2:
            turn.wait_for("odd too")
        found = Group(turn, odd, ids)
        if (turn.noted("odd").behind or 0) >= behind:
            return found
        found.let_go()
        turn.wait_until_done()
        lane.warm_up(task)
    raise AssertionError(f"it never had {behind} behind it")


def revoke(lane: Lane, message_id: str) -> None:
    """End a job by Celery's remote control, with its process if it runs, and wait until that is recorded."""
    lane.app.control.revoke(message_id, terminate=True, signal="SIGKILL")
    wait_until(lambda: lane.kinds()[message_id] == ["revoked"], 20, "it is recorded as revoked")


@pytest.mark.parametrize("crew", ["prefork", "threads"], indirect=True, scope="module")
def test_a_job_that_takes_long(lane: Lane) -> None:
    """Those behind it are back in the queue after a second, and run beside it while it goes on."""
    before = lane.worker.output.count(RETURNED)
    group = grouped(lane, "held")
    group.wait_for_names(NEIGHBOURS + 1)
    assert group.lane.kinds()[group.odd] == []
    assert max(one.at for one in group.lane.notes) - group.lane.noted("odd").at < 40  # of the 50 that it holds
    group.let_go()
    group.check_neighbours()
    assert group.lane.kinds()[group.odd] == ["succeeded"]
    assert lane.worker.output.count(RETURNED) > before


def test_jobs_that_take_long_everywhere(lane: Lane, crew: Crew) -> None:
    """When a worker has nothing left to run the others in, another one does: no more wait here than without groups."""
    installation, _, _ = crew
    places = 1 if "(solo)" in lane.worker.output else 2
    group = grouped(lane, "held", number=places)
    sent = places + NEIGHBOURS + len(Quick.enqueue_many(some(group.lane.folder, 200)))
    with installation.worker("-Q", QUEUE, "-c", "1", "-n", "other@%h"):
        group.wait_for_names(sent - 2 * PREFETCH * places)  # and as many in a read that is under way
        assert group.lane.kinds()[group.odd] == []
        group.let_go()
        group.lane.wait_until_done()
    assert len(set(group.lane.names)) == len(group.lane.names) == sent


@prefork
@pytest.mark.parametrize("own", [True, False])
def test_a_soft_time_limit(lane: Lane, own: bool) -> None:
    """Of the message or of the class: the job that is beyond it hears of it, and no other one."""
    group = grouped(lane, "held", soft_time_limit=1) if own else grouped(lane, "held", Limited)
    letter = wait_for_letter(lane.app, group.odd, 12)
    assert (letter.error, letter.attempts) == ("SoftTimeLimitExceeded", 1)
    name = (Quick if own else Limited).name
    assert f"Soft time limit (1s) exceeded for {name}[{group.odd}]" in lane.worker.output
    group.check_neighbours()


@prefork
def test_a_hard_time_limit(lane: Lane) -> None:
    """The job is a dead letter in time; its process is killed, and its neighbours run."""
    group = grouped(lane, "deaf", Limited)
    letter = wait_for_letter(lane.app, group.odd, 12)
    assert (letter.error, letter.attempts) == ("TimeLimitExceeded", 1)
    group.check_neighbours()


@prefork
def test_a_hard_time_limit_of_its_own(lane: Lane) -> None:
    """The pool knows one limit for a group, so a message with another one does not go with them."""
    with lane.paused():
        for neighbour in range(BEFORE):
            Quick.delay(lane.folder, f"neighbour {neighbour}")
        arguments = {"folder": lane.folder, "name": "odd", "how": "deaf"}
        odd = Quick.apply_async(kwargs=arguments, soft_time_limit=1, time_limit=2).id
        for neighbour in range(BEFORE):
            Quick.delay(lane.folder, f"later {neighbour}")
    letter = wait_for_letter(lane.app, odd, 12)
    assert (letter.error, letter.attempts) == ("TimeLimitExceeded", 1)
    lane.wait_until_done()
    assert len(lane.names) == len(set(lane.names)) == 2 * BEFORE + 1
    alone = lane.noted("odd").group
    assert alone is None or sizes(lane.notes)[alone] == 1


@prefork
def test_the_running_job_is_revoked(lane: Lane) -> None:
    """Its process is killed: it is recorded as revoked, and its neighbours run elsewhere."""
    group = grouped(lane, "held")
    revoke(group.lane, group.odd)
    group.check_neighbours()


@prefork
def test_the_worker_goes_on_after_each_death(lane: Lane) -> None:
    """What was lost with a process is no longer held by the worker, which would read no more when it holds too much."""
    for number in range(3):
        turn = Lane(lane.app, lane.worker, lane.folder / str(number))
        turn.folder.mkdir()
        group = grouped(turn, "held")
        revoke(group.lane, group.odd)
        group.check_neighbours()


@prefork
def test_a_job_that_waits_in_a_group_is_revoked(lane: Lane) -> None:
    """It has not begun, so no process is killed for it: the one that runs before it goes on."""
    group = grouped(lane, "held", behind=WAITS - BEFORE + 1)
    revoke(group.lane, group.neighbours[WAITS])
    group.let_go()
    group.lane.wait_until_done()
    group.has_only(WAITS)
    assert group.lane.kinds()[group.odd] == ["succeeded"]
