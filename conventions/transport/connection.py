"""`Connection`: kombu's, with our transports. Only the connections of an application of ours are of this class.

kombu has one table of transports for a process, in which `redis` and `amqp` are its own. They stay its own: a plain application beside ours sends and reads as
without us. Which transport an address means is looked up here at each turn of kombu's, so also after a switch to the next address of a
list.
"""

import functools
from typing import Any

from celery.app.amqp import AMQP as CelerysAMQP  # noqa: N811  # a class
from kombu.connection import Connection as KombusConnection

from conventions.broker.routing import route
from conventions.library_internals.celery import symbol_by_name
from conventions.library_internals.kombu import ConnectionPool, PooledConnection, parameters_of

REDIS = "conventions.transport.redis_transport"
RABBITMQ = "conventions.transport.rabbitmq_transport"
TRANSPORTS = {
    "redis": f"{REDIS}:Transport",
    "rediss": f"{REDIS}:Transport",
    "sentinel": f"{REDIS}:SentinelTransport",
    "amqp": f"{RABBITMQ}:Transport",
    "pyamqp": f"{RABBITMQ}:Transport",
    "librabbitmq": f"{RABBITMQ}:Transport",  # what kombu makes of `amqp` where that library is installed
    "amqps": f"{RABBITMQ}:SSLTransport",
}


class Connection(KombusConnection):
    """A connection to the broker of an application of ours."""

    def get_transport_cls(self) -> Any:
        """The transport that the scheme of the current address means."""
        path = TRANSPORTS.get(self.transport_cls) if isinstance(self.transport_cls, str) else None
        return symbol_by_name(path) if path else super().get_transport_cls()  # type: ignore[no-untyped-call]  # kombu has few types

    def __eqhash__(self) -> Any:
        """By which kombu's pools tell connections apart: one of kombu's to the same address is another one."""
        found: Any = super().__eqhash__()  # type: ignore[no-untyped-call]  # the same
        return type(found)(__name__, *found)

    def Pool(self, limit: int | None = None, **options: Any) -> Any:  # noqa: N802  # kombu's name
        """A pool of connections of this class. kombu's makes plain ones."""
        return _Pool(self, limit, **options)  # type: ignore[no-untyped-call]  # the same


class _Pooled(Connection, PooledConnection):
    """One of a pool. It goes back when its block ends."""

    def clone(self, **changes: Any) -> Connection:
        """A connection of its own, which no pool has. kombu's fails here for want of the pool."""
        return Connection(**parameters_of(self) | changes)  # type: ignore[no-untyped-call]  # the same


class _Pool(ConnectionPool):
    """A pool of ours."""

    def new(self) -> Any:
        """Make a connection."""
        return _Pooled(self, **parameters_of(self.connection))  # type: ignore[no-untyped-call]  # the same


class AMQP(CelerysAMQP):
    """What Celery makes the connections of an application with."""

    Connection = Connection

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:  # noqa: ARG002, N802  # Celery's
        """As Celery, but of JSON alone, whatever the configuration says."""
        return super().TaskConsumer(channel, queues, accept=["json"], **options)

    def flush_routes(self) -> None:
        """As Celery. A task of ours goes to its queue first: a team's `task_routes` takes the place of our defaults."""
        super().flush_routes()
        routes: list[Any] = [*vars(self)["_rtable"]]
        if not any(getattr(one, "func", None) is route for one in routes):
            routes.insert(0, functools.partial(route, self.app))
        self._rtable = routes
