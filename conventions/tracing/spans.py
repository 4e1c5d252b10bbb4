"""`Tracing`: what sends and jobs tell whoever makes spans of them. Nothing here knows OpenTelemetry."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from conventions.broker.trace_context import TraceContext


class Sending(NamedTuple):
    """One call that sends.

    Attributes:
        task: the name of the task.
        queue: where its messages go; `None`: a router decides.
        message_id: of its message; `None`: it sends several.
        step: `send` to the broker; or `create`: the message waits in the outbox.
    """

    task: str
    queue: str | None
    message_id: str | None
    step: Literal["send", "create"] = "send"


class Running(NamedTuple):
    """One attempt at a job.

    Attributes:
        task: the name of the task.
        message_id: of its message.
        queue: from which it came.
        worker: that runs it.
        attempt: counts from 1.
        redrives: how often it was sent again as a dead letter.
        waited: seconds from the moment in which it was ready to its start; `None`: unknown.
        trace: in which its message was sent; `None`: in none.
    """

    task: str
    message_id: str
    queue: str | None
    worker: str | None
    attempt: int
    redrives: int
    waited: float | None
    trace: TraceContext | None


class SendSpan(Protocol):
    """The span of a call that sends."""

    @property
    def headers(self) -> Mapping[str, object]:
        """What its messages carry."""

    def sent(self, messages: int) -> None:
        """Say how many messages one call has sent."""


class JobSpan(Protocol):
    """The span of an attempt. It may have ended: what follows the job is sent after it."""

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Say how it ended; with the error, if it failed."""


class NoSpan:
    """Of a send or a job that nobody traces."""

    headers: Mapping[str, object] = {}

    def sent(self, messages: int) -> None:
        """Say nothing."""

    def ended(self, outcome: str, error: BaseException | None = None) -> None:
        """Say nothing."""


class Tracing(Protocol):
    """Makes spans. Whatever is wrong with it, it raises nothing: a send or a job goes on without a span."""

    def sending(self, call: Sending, after: JobSpan | None) -> AbstractContextManager[SendSpan]:
        """A span around a send. `after`: of the job whose follow-up is sent; it counts where no span is open."""

    def running(self, attempt: Running) -> AbstractContextManager[JobSpan]:
        """A span around an attempt."""
