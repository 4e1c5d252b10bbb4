"""The way back: what of an application is left in Redis, in RabbitMQ and in SQL, and how it is taken out."""

import re
from typing import Any

from sqlalchemy import MetaData, func, inspect, select

from conventions.core.settings import is_redis
from conventions.execution.application import Application
from conventions.execution.purge import known_queues
from conventions.storage.layout_version import living
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow

OURS = "conventions_"  # the names of our tables begin so
AT_ONCE = 1000  # keys
GLOB = re.compile(r"[\\*?\[\]]")  # what means something in a pattern of Redis


def still_here(app: Application) -> list[str]:
    """What would be lost, a line each; empty where nothing runs, waits or is dead."""
    found = [f"{member} lives" for store in app.servers for member in living(store)]
    for queue in known_queues(app):
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


def leave(app: Application) -> tuple[int, list[str]]:
    """Delete every key, queue and table of an application. Returns how many keys, and which tables.

    Tables of the team, and results that Celery keeps, which expire by themselves, stay.

    Raises:
        RedisError, SQLAlchemyError: a second call goes on.
    """
    if not is_redis(app.broker_address):
        _delete_queues(app)
    keys = sum(_delete_keys(store) for store in app.servers)
    return keys, _drop_tables(app)


def _delete_queues(app: Application) -> None:
    with app.connection_for_write() as connection:
        for queue in known_queues(app):
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
    engine = app.database.engine
    names = [name for name in inspect(engine).get_table_names() if name.startswith(OURS)]
    found = MetaData()
    found.reflect(engine, only=names)
    found.drop_all(engine)
    return sorted(names)
