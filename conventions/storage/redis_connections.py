"""redis-py connections and retries that keep a `Deadline`.

redis-py has a time-out for each wait, and retries in several layers: connection, health check, command. With a server
that hangs, these times multiply. Here each wait is cut to the time left until the deadline, and only the outermost
layer retries.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from redis import Redis
from redis._parsers import _HiredisParser
from redis.backoff import AbstractBackoff, ExponentialBackoff
from redis.client import Pipeline
from redis.connection import (  # type: ignore[attr-defined]  # later releases have `SENTINEL` in `redis.utils`
    SENTINEL,
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import TimeoutError  # noqa: A004  # redis-py's is a RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from conventions.core.deadline import Deadline, current_deadline
from conventions.core.redis_answers import chain_of, refusal_of
from conventions.storage.redis_releases import can_read

T = TypeVar("T")

PATIENCE = 12.0  # seconds of one call with all its retries, for callers that are in no hurry
LEAST = 0.001  # seconds: a time-out of 0 would mean "do not wait"
CLOSE_ENOUGH = 0.05  # seconds: a smaller change of the socket's time-out is not worth a system call

if TYPE_CHECKING:
    _Base = AbstractConnection
else:
    _Base = object


class OutOfTime(TimeoutError):
    """The deadline has passed before the wait began. An earlier error says why."""


class BoundedRetry(Retry):
    """Retries until a deadline. It tries once if a layer above already retries.

    Args:
        retries: tries after the first one.
        patience: seconds for all tries; `None` sets no deadline.
    """

    def __init__(self, backoff: AbstractBackoff | None = None, retries: int = 3, *, patience: float | None) -> None:
        super().__init__(backoff or ExponentialBackoff(cap=0.5, base=0.05), retries)
        self.patience = patience

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self  # all connections share it, so that its patience can be changed

    def deadline(self, *, once: bool) -> Deadline:
        """The deadline of a call that begins now."""
        return Deadline(float("inf") if self.patience is None else self.patience, once=once)

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,  # redis-py's signature
    ) -> T:
        """The answer of `do`. Raises: the error of its last try."""

        def tell(error: Exception, failures: int) -> None:
            fail(error, failures) if with_failure_count else fail(error)

        outer = current_deadline()
        if outer is None or outer.once:
            with self.deadline(once=True) as deadline:
                return self._tried(do, tell, is_retryable, deadline, 0 if outer else self._retries)
        outer.once = True  # reuse the client's deadline for this call: a new one costs 4 µs
        try:
            return self._tried(do, tell, is_retryable, outer, self._retries)
        finally:
            outer.once = False

    def _tried(
        self,
        do: Callable[[], T],
        tell: Callable[[Exception, int], None],
        is_retryable: Callable[[Exception], bool] | None,
        deadline: Deadline,
        retries: int,
    ) -> T:
        failures = 0
        while True:
            try:
                return do()
            except self._supported_errors as error:
                if is_retryable is not None and not is_retryable(error):
                    raise
                failures += 1
                tell(error, failures)
                wait: float = self._backoff.compute(failures)
                if failures > retries or deadline.left <= wait:
                    raise
            time.sleep(wait)


class BoundedParser(_HiredisParser):
    """Reads an answer that arrives in pieces, until the deadline of the running thread.

    redis-py would give each piece the whole time-out anew.
    """

    pieces = 0  # of the present answer

    def can_read(self, timeout: float = 0) -> bool:
        """Whether there is something to read. Before redis-py 8 it reads a piece for that, with a time-out of its own."""
        self.pieces = 0
        return bool(super().can_read(timeout))

    def read_from_socket(self, *arguments: Any, **options: Any) -> Any:
        """Read a piece. Raises: RedisError."""
        self.pieces += 1
        deadline = current_deadline() if self.pieces > 1 else None
        left = None if deadline is None or deadline.at == float("inf") else max(deadline.left, 0)
        if left is not None and not can_read(self._sock, left):
            raise OutOfTime("no time is left to read the rest of an answer")
        return super().read_from_socket(*arguments, **options)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped


class Bounded(_Base):
    """A connection that never waits beyond the deadline of the running thread."""

    _given: float | None = None  # the socket's present time-out in seconds; `None`: unknown
    _own: float = 0.0  # the socket's time-out in seconds when there is no deadline

    def set_parser(self, parser_class: Any) -> None:
        """Choose the parser of answers."""
        super().set_parser(BoundedParser if parser_class is _HiredisParser else parser_class)  # type: ignore[no-untyped-call]  # the other base class has it

    @property
    def socket_timeout(self) -> float | None:
        """Seconds that a read or a write may take."""
        return _cut(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        self._socket_timeout = value

    @property
    def socket_connect_timeout(self) -> float | None:
        """Seconds that connecting may take."""
        return _cut(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: float | None) -> None:
        self._socket_connect_timeout = value

    def _connect(self) -> Any:
        if _is_over():
            raise OutOfTime("no time is left to connect")
        self._given = None
        own, patience = self._socket_timeout, getattr(self.retry, "patience", None)
        self._own = float("inf") if own is None else min(own, patience or own)
        return super()._connect()  # type: ignore[safe-super, no-untyped-call]  # the other base class has it

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:  # redis-py's signature
        """Send a command. Raises: RedisError."""
        if self._sock is not None and (current_deadline() is not None or self._given != self._own):
            self._keep_deadline()
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer. Raises: RedisError."""
        if options and options.get("timeout", SENTINEL) is not SENTINEL:
            self._given = None  # redis-py sets it for this read, then back to the connection's own
        elif self._sock is not None and (current_deadline() is not None or self._given != self._own):
            self._keep_deadline(reads=True)
        self._parser.pieces = 0
        return super().read_response(*arguments, **options)

    def _keep_deadline(self, *, reads: bool = False) -> None:
        """Set the socket's time-out to the time that is left now. What has come is read, however late it is looked at."""
        deadline, given, may = current_deadline(), self._given, self._own
        if deadline is not None:
            left = deadline.left
            if left <= 0 and not (reads and self.can_read(0)):
                self.disconnect()  # type: ignore[no-untyped-call]  # a late answer would be taken for the next one
                raise OutOfTime("no time is left to wait for an answer")
            may = min(may, left)
        elif given == may:
            return
        if given is None or not -CLOSE_ENOUGH <= given - may <= CLOSE_ENOUGH:
            self._given = may
            sock: Any = self._sock
            sock.settimeout(None if may == float("inf") else max(may, LEAST))


def _cut(seconds: float | None) -> float | None:
    deadline = current_deadline()
    if deadline is None or deadline.at == float("inf"):
        return seconds
    left = max(deadline.left, LEAST)
    return left if seconds is None else min(seconds, left)


def _is_over() -> bool:
    deadline = current_deadline()
    return deadline is not None and deadline.left <= 0


def bounded(connection_class: Any) -> Any:
    """A subclass of this connection class that keeps deadlines."""
    if issubclass(connection_class, Bounded):
        return connection_class
    return type(connection_class.__name__, (Bounded, connection_class), {"__module__": __name__})


_TCP, _TLS, _SOCKET, _SENTINEL = map(
    bounded, (Connection, SSLConnection, UnixDomainSocketConnection, SentinelManagedConnection)
)
CLASSES = {"redis": _TCP, "rediss": _TLS, "unix": _SOCKET, "sentinel": _SENTINEL}  # by kind of address


class Client(Redis):
    """A client in which each call has one deadline, for connecting and for the command together."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Run a command. Raises: RedisError."""
        with _deadline_of(self.connection_pool):
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:  # redis-py's signature
        """Commands that are sent together."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:  # redis-py's signature
        with _deadline_of(self.connection_pool):
            return super().execute(raise_on_error)


def _deadline_of(pool: ConnectionPool) -> Deadline:
    retry: BoundedRetry = pool.connection_kwargs["retry"]
    outer = current_deadline()
    return retry.deadline(once=outer is not None and outer.once)


def bound_sentinels(manager: Sentinel, retry: Retry) -> None:
    """Let the connections to the Sentinels keep deadlines, too."""
    clients: Sequence[Redis] = manager.sentinels
    for client in clients:
        pool = client.connection_pool
        pool.connection_class = bounded(pool.connection_class)
        pool.connection_kwargs["retry"] = retry


def telling(error: Exception, before: Exception | None) -> Exception:
    """Of the errors of two tries, the one that names the cause: the later one, unless the deadline cut it short."""
    if before is None or refusal_of(error):
        return error
    return before if any(isinstance(one, TimeoutError) for one in chain_of(error)) else error
