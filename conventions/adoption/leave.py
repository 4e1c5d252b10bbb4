"""The way back: what of an application is left in Redis, in RabbitMQ and in SQL, and how it is taken out."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import MetaData, func, inspect, select

from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.purge import known_queues
from conventions.storage.layout_version import living
from conventions.storage.migrations.run import VERSION_TABLE
from conventions.storage.redis_store import Store
from conventions.storage.tables import Base, DeadLetterRow

AT_ONCE = 1000  # keys
GLOB = re.compile(r"[\\*?\[\]]")  # what means something in a pattern of Redis


def still_here(app: Application, queues: Sequence[str] = ()) -> list[str]:
    """What would be lost, a line each; empty where nothing runs, waits or is dead. `queues`: further ones to look at."""
    found = [f"{member} lives" for store in app.servers for member in living(store)]
    for queue in sorted({*known_queues(app), *queues}):
        count = app.port.waiting(queue, delayed=True)
        if is_redis(app.broker_address):
            count += app.broker.sizes(queue).in_flight
        if count:
            found.append(f"queue {queue} has {count:,} messages")
    if inspect(app.database.engine).has_table(DeadLetterRow.__tablename__):
        with app.database.session(read_only=True) as session:
            count = session.scalar(select(func.count()).where(DeadLetterRow.state == "dead")) or 0
        if count:
            found.append(f"{count:,} letters are dead")
    return found


def leave(app: Application, queues: Sequence[str] = (), *, tables: bool = False) -> tuple[int, list[str]]:
    """Delete every key and queue of an application, and with `tables` our tables. Returns how many keys, and which tables.

    Results that Celery keeps stay; they expire by themselves.

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
    ours = {*Base.metadata.tables, VERSION_TABLE}
    found = MetaData()
    found.reflect(engine, only=[name for name in inspect(engine).get_table_names() if name in ours], resolve_fks=False)
    with engine.begin() as connection:
        found.drop_all(connection)
    return sorted(found.tables)
