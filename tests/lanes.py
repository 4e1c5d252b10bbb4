"""What jobs of the tests find out of the group in which they run."""

from typing import Any

from conventions.execution.run import RUN_BY
from conventions.fast_lane.group_member import Prepared
from conventions.fast_lane.group_watch import lane_watch
from conventions.fast_lane.outcome_stream import OutcomeStream


def outcomes_of(task: Any) -> OutcomeStream | None:
    """Where the group of the running job records its successes, one object for each group; `None`: it runs alone."""
    prepared = getattr(task.request, RUN_BY, None)
    if not isinstance(prepared, Prepared):
        return None
    assert isinstance(prepared.outcomes, OutcomeStream)
    return prepared.outcomes


def waiting_behind(task: Any) -> int | None:
    """How many of the running job's group have not begun; `None`: it runs alone."""
    outcomes = outcomes_of(task)
    if outcomes is None:
        return None
    (group,) = (one for one in list(lane_watch()._groups) if one._outcomes is outcomes)  # type: ignore[attr-defined]  # `GroupRun`s
    return len(group.waiting)  # type: ignore[attr-defined]
