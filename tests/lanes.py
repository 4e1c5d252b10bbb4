"""What jobs of the tests find out of the group in which they run."""

from typing import Any

from conventions.execution.run import RUN_BY
from conventions.fast_lane.group_member import Prepared
from conventions.fast_lane.outcome_stream import OutcomeStream
from conventions.fast_lane.watch import lane_watch


def outcomes_of(task: Any) -> OutcomeStream | None:
    """Where the group of the running job records its successes, one object for each group; `None`: it runs alone."""
    prepared = getattr(task.request, RUN_BY, None)
    if not isinstance(prepared, Prepared):
        return None
    assert isinstance(prepared.outcomes, OutcomeStream)
    return prepared.outcomes


def waiting_in_process() -> int:
    """How many have not begun of the one group that this process runs."""
    (group,) = lane_watch()._groups
    return len(group.waiting)  # type: ignore[attr-defined]  # it is a `GroupRun`
