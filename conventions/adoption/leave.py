"""The way back: what of an application is left in Redis, in RabbitMQ and in SQL, and how it is taken out."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, MetaData, func, inspect, select, text

from conventions.adoption.unfinished_drains import unfinished_drains
from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.storage.layout_version import living
from conventions.storage.migrations.run import VERSION_TABLE, forget_versions
from conventions.storage.redis_store import Store
from conventions.storage.tables import Base, DeadLetterRow, OutboxRow

AT_ONCE = 1000  # keys
WAIT_FOR_OTHERS = "10s"  # for the transactions of others in our tables
OF_DJANGO = "django_migrations"  # where `migrate` notes what it has made
GLOB = re.compile(r"[\\*?\[\]]")  # what means something in a pattern of Redis


def still_here(app: Application, queues: Sequence[str] = (), *, tables: bool = False) -> list[str]:
    """What would be lost, a line each; empty where nothing runs, waits or is dead.

    Args:
        app: the application.
        queues: further ones to look at.
        tables: whether the tables go, which other applications may have, too.
    """
    found = [f"{member} lives" for store in app.servers for member in living(store)]
    for queue in sorted({*known_queues(app), *queues}):
        count = app.port.waiting(queue, delayed=True)
        if is_redis(app.broker_address):
            count += app.broker.sizes(queue).in_flight
        if count:
            found.append(f"queue {queue} has {count:,} messages")
    found += [
        f"a drain of {one} was killed, and holds messages of it: run it again" for one in unfinished_drains(app.store)
    ]
    there, own = {*inspect(app.database.engine).get_table_names()}, OutboxRow.application == app.settings.key_prefix
    counted: list[tuple[Any, type[Base], str]] = [
        (DeadLetterRow.state == "dead", DeadLetterRow, "letters are dead"),
        (own, OutboxRow, "sends wait in the outbox for the relay of a worker"),
    ]
    if tables:
        counted.append((~own, OutboxRow, "sends of other applications wait in the outbox, which they have, too"))
    with app.database.session(read_only=True) as session:
        for which, table, what in counted:
            rows = session.scalar(select(func.count()).where(which)) if table.__tablename__ in there else 0
            found += [f"{rows:,} {what}"] if rows else []
    return found


def leave(app: Application, queues: Sequence[str] = (), *, tables: bool = False) -> tuple[int, list[str]]:
    """Delete every key and queue of an application, and with `tables` our tables. Returns how many keys, and which tables.

    Two things stay: results that Celery keeps, which expire by themselves, and the table of Alembic's versions, where a team has its own there.

    Args:
        app: the application.
        queues: further ones of RabbitMQ, of tasks that it does not have any more.
        tables: whether to drop our tables, which all applications in this database share.

    Raises:
        SQLAlchemyError: nothing is deleted.
        RedisError, AMQPError: a second call goes on.
    """
    dropped = _drop_tables(app) if tables else []
    if not is_redis(app.broker_address):
        _delete_queues(app, queues)
    return sum(map(_delete_keys, app.servers)), dropped


def _delete_queues(app: Application, further: Sequence[str]) -> None:
    with app.connection_for_write() as connection:
        for queue in sorted({*known_queues(app), *further}):
            connection.default_channel.queue_delete(queue)


def _delete_keys(store: Store) -> int:
    redis: Any = store.redis
    pattern = f"{GLOB.sub(_escaped, store.key())}:*"
    deleted, cursor = 0, 0
    while True:
        cursor, keys = redis.scan(cursor, match=pattern, count=AT_ONCE)
        deleted += redis.unlink(*keys) if keys else 0
        if not cursor:
            return deleted


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _drop_tables(app: Application) -> list[str]:
    """One transaction, where the database has them for tables; a table of others that refers to one of ours keeps all."""
    engine = app.database.engine
    there = {*inspect(engine).get_table_names()}
    with engine.begin() as connection:
        if not app.database.is_sqlite:
            connection.execute(text(f"SET LOCAL lock_timeout = '{WAIT_FOR_OTHERS}'"))
        if OF_DJANGO in there:
            connection.execute(text(f"DELETE FROM {OF_DJANGO} WHERE app = 'conventions'"))  # noqa: S608  # no value of others
        ours = there & {*Base.metadata.tables}
        if VERSION_TABLE in there and not forget_versions(connection):
            ours.add(VERSION_TABLE)
        _drop(connection, ours)
    return sorted(ours)


def _drop(connection: Connection, names: set[str]) -> None:
    found = MetaData()
    found.reflect(connection, only=sorted(names), resolve_fks=False)
    found.drop_all(connection)
