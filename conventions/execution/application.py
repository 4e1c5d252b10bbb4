"""`Application`: what the parts of this package use of the application that `create_app` makes.

The parts lie below `app.py`, so none can name its class. Each is a service that is made once, when it is first used.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import redis
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from conventions.attempt_log.log_writer import AttemptLogs
from conventions.broker.in_flight import InFlight
from conventions.broker.port import BrokerPort
from conventions.broker.redis_broker import Broker
from conventions.broker.signature import Signatures
from conventions.core.audit_keys import AuditKeys
from conventions.core.errors import CannotSeal, NewerLayout
from conventions.core.lease_timings import Timings
from conventions.core.redis_answers import refusal_of
from conventions.core.settings import Settings
from conventions.idempotency.claims import Claims
from conventions.idempotency.lease_keepers import LeaseKeeper
from conventions.idempotency.shared_memory import Pages
from conventions.permission.decisions import Permissions
from conventions.progress.overlong_jobs import OverlongJobs
from conventions.records.journal import Journal
from conventions.sealing.name_keys import NameKeys
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.seal_outgoing import Outgoing
from conventions.storage.redis_store import Store
from conventions.tracing.spans import Tracing

if TYPE_CHECKING:
    from conventions.storage.database import Database


class Origin(Protocol):
    """What a batch was sent with."""

    @property
    def task(self) -> str:
        """The name of its task."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Its arguments."""

    @property
    def actor(self) -> str:
        """Who sent it."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that its messages get."""

    @property
    def sealed(self) -> bool:
        """Whether it was sealed, and so are its messages."""


class NextMessage(Protocol):
    """The message that a batch needs next."""

    @property
    def kind(self) -> str:
        """`finish` or `recovered`."""

    @property
    def number(self) -> int:
        """How often dead chunks have succeeded later."""


class BatchStates(Protocol):
    """What an attempt needs to know of batches; `batches/batch_state.py` has it."""

    keep: timedelta

    def take_next_message(self, batch_id: str, /) -> NextMessage | None:
        """The message that the caller must send; `None` if none is needed. Raises: RedisError."""

    def origin(self, batch_id: str, /) -> Origin | None:
        """What it was sent with. Raises: RedisError."""

    def cancel(self, batch_id: str, /) -> bool:
        """Stop it; false when it has ended. Raises: RedisError."""

    def states(self, ids: Sequence[str], /) -> dict[str, str]:
        """The state of those that exist. Raises: RedisError."""

    def note_duplicate(self, batch_id: str, of: str, /, *, ignored: bool) -> None:
        """Let it be found by the id of a message that was a duplicate. Raises: RedisError."""


class Application(Protocol):
    """The services of one application. Those of Celery have no types."""

    main: str
    conf: Any
    amqp: Any
    control: Any
    loader: Any
    backend: Any

    AsyncResult: Any

    @property
    def tasks(self) -> Any:
        """Celery's registry of tasks, by name."""

    @property
    def worker_tasks(self) -> frozenset[str]:
        """The names of the tasks that a worker knows. Raises: TaskModuleError."""

    @property
    def ignored_result(self) -> Any:
        """The class of results that nobody keeps; derived from Celery's."""

    @property
    def schedule_address(self) -> str | None:
        """Where the schedule is, as `module:NAME`, or `None` when there is none."""

    def producer_or_acquire(self, producer: Any = None, /) -> AbstractContextManager[Any]:
        """Celery's: this producer, or one of the pool."""

    def connection_for_read(self) -> AbstractContextManager[Any]:
        """Celery's."""

    def connection_for_write(self) -> AbstractContextManager[Any]:
        """Celery's."""

    def __hash__(self) -> int:
        """It is a key of what is read once."""

    def uses_utc_timezone(self) -> bool:
        """Celery's."""

    @property
    def settings(self) -> Settings:
        """The settings."""

    @property
    def signatures(self) -> Signatures | None:
        """Signs and verifies messages; `None`: there are no keys."""

    @property
    def audit_keys(self) -> AuditKeys | None:
        """Seal the audit; `None`: there are none."""

    @property
    def payload_keys(self) -> PayloadKeys | None:
        """Seal and open what jobs hold; `None`: there are no keys."""

    @property
    def name_keys(self) -> NameKeys | None:
        """Name sealed jobs; `None`: there are no keys."""

    @property
    def outgoing(self) -> Outgoing | None:
        """The last step of each send; `None`: there are no keys."""

    @property
    def release(self) -> str | None:
        """Which release of the team's code this process runs."""

    @property
    def timings(self) -> Timings:
        """How often processes say that they live."""

    @property
    def store(self) -> Store:
        """The Redis of claims, progress and schedule."""

    @property
    def database(self) -> "Database":
        """The SQL database."""

    @property
    def claims(self) -> Claims:
        """Idempotency claims."""

    @property
    def journal(self) -> Journal:
        """What happened, until it is in SQL."""

    @property
    def broker(self) -> Broker:
        """The messages, where the broker is Redis."""

    @property
    def broker_address(self) -> str:
        """Where messages wait."""

    @property
    def broker_errors(self) -> tuple[type[Exception], ...]:
        """What the transport raises when the broker cannot be reached."""

    @property
    def port(self) -> BrokerPort:
        """The broker, whichever it is."""

    @property
    def servers(self) -> tuple[Store, ...]:
        """The Redis of claims, and that of the messages where it is another one. Raises: RedisError."""

    @property
    def in_flight(self) -> InFlight:
        """The messages that this process holds."""

    @property
    def lease_keeper(self) -> LeaseKeeper:
        """Renews the claims of the jobs that this process runs."""

    @property
    def granularity(self) -> OverlongJobs:
        """Which tasks have jobs that should be split."""

    @property
    def attempt_logs(self) -> AttemptLogs | None:
        """The log lines of attempts; `None`: they are turned off."""

    @property
    def tracing(self) -> Tracing | None:
        """Who makes spans of sends and jobs; `None`: nobody in this process."""

    @property
    def pages(self) -> Pages:
        """What the processes of this worker's pool do just now."""

    @property
    def permissions(self) -> Permissions:
        """Who may run what."""

    @property
    def batches(self) -> BatchStates:
        """The state of batches."""


def broker_outages(app: Application, *others: type[Exception]) -> tuple[type[Exception], ...]:
    """The errors of a broker, or of Redis, that cannot be reached, and others beside them."""
    return (*others, OperationalError, ConnectionError, RedisError, *app.broker_errors)


# The last: what answers is no Redis.
_AWAY = (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse)


def may_pass(app: Application, error: BaseException) -> bool:
    """Whether another moment may mend an error: a server does not answer, or takes nothing. Other errors are those of the message."""
    if isinstance(error, Reject):
        return bool(error.requeue)
    if isinstance(error, CannotSeal):  # another process has the key
        return True
    if isinstance(error, RedisError) and not isinstance(error, _AWAY):  # some answers are final
        return bool(refusal_of(error))
    if isinstance(error, RuntimeError):  # Celery raises it when it cannot subscribe to the result
        return isinstance(error.__cause__, RedisError)
    return isinstance(error, broker_outages(app, OSError, MemoryError, NewerLayout))
