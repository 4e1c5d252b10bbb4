"""The door of the fast lane: the one place where the rest of the package learns that there is one.

The rest of the package works without this folder, and imports nothing of it. It has two interfaces that the lane implements:
`worker.intake.Intake` in the main process, and `execution.run.RunBy` in a process of the pool.
"""

from typing import Any

import celery

from conventions.fast_lane.eligible import goes_together, has_lane, may_go_together
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.lane import Lane
from conventions.fast_lane.run_group import serve
from conventions.fast_lane.short_cut import ShortCut
from conventions.tasks.job_classes import long_queues
from conventions.worker.application import WorkerApplication
from conventions.worker.intake import DirectIntake
from conventions.worker.request import PlainRequest


def attach(app: WorkerApplication) -> None:
    """Turn the fast lane on for the workers of an application."""
    app.new_intake = LaneIntake
    serve(app)


class LaneIntake(DirectIntake):
    """An intake that collects requests in a lane until a process is free.

    Attributes:
        lane: where requests wait.
    """

    def __init__(self, consumer: Any) -> None:
        super().__init__(consumer)
        self.lane = Lane()

    def attach(self) -> None:
        """Connect the lane to the new channel. Plain messages of short tasks skip Celery's strategy, and the channel reads more of them ahead."""
        consumer, lane = self._consumer, self.lane
        channel = consumer.task_consumer.channel
        lane.attach(consumer, long_queues(self._app))
        channel.takes_first = ShortCut(consumer, lane).take
        channel.after_read = lane.flush
        if consumer.reads_ahead:
            channel.qos.room, channel.qos.starves = lane.room, lane.starves
        if consumer.hub is not None:
            consumer.hub.call_repeatedly(RETURN_AFTER, lane.look)

    def seat(self, task: celery.Task) -> Any:
        """The consumer that Celery's strategy is given for a task. It puts every request into the lane, also those that go alone."""
        if not has_lane(self._app, self._consumer):
            return super().seat(task)
        together = goes_together(task, self._app, self._consumer)
        if together:
            self.lane.grouping.add(task.name)
        return _Gathering(self._consumer, self.lane, together=together)

    def has_room(self, task: str, message: Any) -> bool:
        """Whether the message may stay. Short jobs always may. A long job that was read ahead may go back to its queue; then fewer are read."""
        if self.lane.estimates.is_short(task) or super().has_room(task, message):
            return True
        self.lane.estimates.narrow()
        return False

    def clear(self) -> None:
        """Forget the requests that wait: their messages go back to their queues."""
        self.lane.clear()

    def review(self) -> None:
        """Return the requests that wait of what people have paused."""
        self.lane.review()


class _Gathering:
    """A consumer that puts its requests into the lane."""

    def __init__(self, consumer: Any, lane: Lane, *, together: bool) -> None:
        self._consumer, self._lane, self._together = consumer, lane, together

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    disable_rate_limits = True  # Celery's would use up the prefetch of other messages: see `RateLimits`

    def on_task_request(self, request: PlainRequest) -> None:
        request.goes_alone = not (self._together and may_go_together(request))
        self._lane.take(request)
