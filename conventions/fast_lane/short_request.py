"""`ShortRequest`: the request of a plain message in a group. It is completed only when somebody needs the rest.

To make Celery's request takes as long as a short job runs. So this request has only what a group needs. When somebody asks
for more (`inspect`, `revoke`, a failure, a limit), it becomes the request that Celery would have made.
"""

import threading
from functools import partial
from typing import Any, ClassVar

from celery.worker import state

from conventions.broker.codec import delivery_property, read_message
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import SIGNATURE
from conventions.broker.signature import without_unsigned
from conventions.broker.simple_message import PlainMessage
from conventions.execution.runnable_task import RunnableTask
from conventions.library_internals.celery_worker import create_request_class
from conventions.worker.request import Request


class ShortRequest(Request):
    """A request that completes itself when needed. `short_requests` makes a subclass for each task.

    Args:
        message: the parsed message.
        delivery: its delivery.
        channel: the channel that read it.
    """

    of_task: ClassVar[RunnableTask]
    consumer: ClassVar[Any]
    accepted: ClassVar[Any]  # content types
    completing: ClassVar[Any]  # a lock: the thread of `InFlight` may complete it, too

    goes_alone = False
    _came: tuple[Delivery, Any, PlainMessage] | None = None  # `None` once it is complete

    def __init__(self, message: PlainMessage, delivery: Delivery, channel: Any) -> None:
        self._came = (delivery, channel, message)
        self.id, self.name, self.time_limits = message.id, message.task, message.time_limits
        self._task, self._app = self.of_task, self.of_task.app
        self._eventer = None  # nobody listens to events: see `ShortCut`
        self._key = message.key
        self.token, self.delivery = delivery.receipt, delivery_property(delivery)
        self.has_follow_ups = False

    def __getattr__(self, name: str) -> Any:
        with self.completing:
            came, self._came = self._came, None
            if came is not None:
                try:
                    self._complete(*came[:2])
                except BaseException:
                    self._came = came
                    raise
        return object.__getattribute__(self, name)

    def _complete(self, delivery: Delivery, channel: Any) -> None:
        message = channel.Message(read_message(delivery), channel=channel)
        message.accept = self.accepted
        if message.headers.get(SIGNATURE):
            message.headers = without_unsigned(message.headers)
        app, soon = self._app, self.consumer.call_soon_ack
        super().__init__(
            message,
            on_ack=partial(soon, message.ack_log_error),
            on_reject=partial(soon, message.reject_log_error),
            app=app,
            hostname=self.consumer.hostname,
            eventer=self.consumer.event_dispatcher,
            task=self.of_task,
            connection_errors=self.consumer.connection_errors,
            body=message.body,
            headers=message.headers,
            utc=app.uses_utc_timezone(),
        )

    @property
    def claim(self) -> str:
        """The name of its claim."""
        return f"{self.of_task.name}:{self._key}"

    @property
    def came(self) -> tuple[Delivery, PlainMessage] | None:
        """Its delivery and message; `None` once the request is complete."""
        return None if self._came is None else (self._came[0], self._came[2])

    def revoked(self) -> bool:
        """Whether it was revoked. A plain message has no expiry."""
        if self._came is not None and self.id not in state.revoked and not state.revoked_stamps:
            return False
        return bool(super().revoked())

    def make_room(self) -> None:
        """Let the channel read another message in its place."""
        if self._came is None:
            super().make_room()
        else:
            self._came[1].qos.let_go(self.token)


def handed_over(request: Request) -> tuple[Any, ...]:
    """A request in the form in which the pool gets it: see `Handed` of `group_member.py`."""
    came = request.came if isinstance(request, ShortRequest) else None
    if came is None:
        return request.type, request.id, request.request_dict, request.sealed or request.embed
    delivery, message = came
    arguments: Any = message.kwargs
    if message.sealed:
        arguments = message.bound_to, message.sealed  # of a `SealedBody`, which takes longer to pickle
    return tuple(delivery), request.of_task.name, arguments, message.told


def short_requests(task: RunnableTask, consumer: Any) -> type[ShortRequest]:
    """Make the request class of a task, for this consumer."""
    made: Any = create_request_class(
        ShortRequest, task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=task.app
    )
    made.of_task, made.consumer, made.accepted = task, consumer, consumer.task_consumer.accept
    made.completing = threading.RLock()
    return made  # type: ignore[no-any-return]  # Celery has no types
