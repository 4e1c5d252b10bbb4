"""`DeclaredTask`: what this package uses of a task that a team has declared, to send its messages and to read them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from conventions.broker.batch_membership import Member
from conventions.declare.arguments_as_json import Arguments
from conventions.declare.class_rules import IdempotentOn
from conventions.declare.required_permission import Requires
from conventions.declare.retry_policy import RetryPolicy
from conventions.execution.application import Application
from conventions.permission.question import Question


class DeclaredTask(Protocol):
    """An object of one of our base classes; `tasks/base_classes.py` has them. `request` and `backend` are Celery's, which have no types."""

    @property
    def name(self) -> str:
        """Under which it is registered, and which its messages carry."""

    @property
    def app(self) -> Application:
        """The application that it belongs to."""

    @property
    def request(self) -> Any:
        """Celery's: the message that this thread runs, as attributes."""

    @property
    def backend(self) -> Any:
        """Celery's: where results are kept."""

    @property
    def allowed_credentials(self) -> Mapping[str, str]:
        """Paths in its arguments that look like credentials and may be there, each with the reason."""

    @property
    def requires(self) -> Requires:
        """The permission that an actor needs; `None`: none."""

    @property
    def encrypt(self) -> bool:
        """Whether its messages are sealed."""

    @property
    def searchable(self) -> Sequence[str]:
        """Arguments by which its sealed jobs are found."""

    @property
    def arguments(self) -> Arguments:
        """The arguments of `run`."""

    @property
    def queue_name(self) -> str:
        """The queue of its messages."""

    @property
    def idempotent_on(self) -> IdempotentOn:
        """What makes two messages the same job; `None`: nothing does."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """Which failures are retried, and when."""

    @property
    def ignore_result(self) -> bool:
        """Whether nobody keeps its results."""

    @property
    def priority(self) -> int | None:
        """Of its messages; `None`: the usual one."""

    @property
    def expires(self) -> Any:
        """When a message is too old to run: seconds, a moment, or `None`."""

    @property
    def soft_time_limit(self) -> float | None:
        """Seconds after which a job is asked to stop."""

    @property
    def time_limit(self) -> float | None:
        """Seconds after which a job is stopped."""

    @property
    def payload_limit_setting(self) -> str:
        """The name of the setting with the most bytes of its arguments."""

    @property
    def horizon(self) -> timedelta:
        """How long a claim of it is kept."""

    def member_of(self, payload: Mapping[str, Any], message_id: str, /) -> Member | None:
        """The part in a batch that a message with these arguments has."""

    def question(self, payload: Mapping[str, Any], /) -> Question | None:
        """What to ask before a message with these arguments runs; `None`: nothing."""

    def shown(self, payload: Mapping[str, Any], /) -> str | None:
        """The text of large arguments for logs and Flower; `None` for Celery's own text."""
