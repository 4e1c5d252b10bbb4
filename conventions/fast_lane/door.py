"""The door of the fast lane: the one place where an application is told of it.

The rest of the package works without this folder, and imports nothing of it. It says what may be done in another way, and the lane does
it: `worker.intake.Intake` in the main process, `execution.run.RunBy` in a process of the pool.
"""

from typing import Any

from conventions.fast_lane.eligible import goes_together, has_lane, may_go_together
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.lane import Lane
from conventions.fast_lane.short_cut import ShortCut
from conventions.tasks.job_classes import long_queues
from conventions.worker.intake import DirectIntake


def attach(app: Any) -> None:
    """Let the workers of an application give short jobs to a process several at a time."""
    app.new_intake = LaneIntake


class LaneIntake(DirectIntake):
    """Gathers requests in a lane, until a process is free.

    Attributes:
        lane: where they wait.
    """

    def __init__(self, consumer: Any) -> None:
        super().__init__(consumer)
        self.lane = Lane()

    def attach(self) -> None:
        """As above: plain messages of short tasks go to the lane past Celery's strategy, and more of them are read."""
        consumer, lane = self._consumer, self.lane
        channel = consumer.task_consumer.channel
        lane.attach(consumer, long_queues(self._app))
        channel.takes_first = ShortCut(consumer, lane).take
        channel.after_read = lane.flush
        if consumer.reads_ahead:
            channel.qos.room, channel.qos.starves = lane.room, lane.starves
        if consumer.hub is not None:
            consumer.hub.call_repeatedly(RETURN_AFTER, lane.look)

    def seat(self, task: Any) -> Any:
        """As above: requests go to the lane, also those of which each goes to its process alone."""
        if not has_lane(self._app, self._consumer):
            return super().seat(task)
        together = goes_together(task, self._app, self._consumer)
        if together:
            self.lane.grouping.add(task.name)
        return _Gathering(self._consumer, self.lane, together=together)

    def has_room(self, task: str, message: Any) -> bool:
        """As above: for short ones there is room. Others may have been read because those were expected."""
        if self.lane.paces.is_short(task) or super().has_room(task, message):
            return True
        self.lane.paces.narrow()
        return False

    def clear(self) -> None:
        """As above."""
        self.lane.clear()


class _Gathering:
    """A consumer whose requests go to the lane."""

    def __init__(self, consumer: Any, lane: Lane, *, together: bool) -> None:
        self._consumer, self._lane, self._together = consumer, lane, together

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    disable_rate_limits = True  # see `RateLimits`: Celery's keep the room of other messages

    def on_task_request(self, request: Any) -> None:
        request.goes_alone = not (self._together and may_go_together(request))
        self._lane.take(request)
