"""The position of the recorder in the journal, in SQL and in Redis. It shows when Redis is older than SQL.

Each transaction of the recorder adds one to the count in SQL, then in Redis. If Redis counts less, it was restored from
an older copy, is a replica that was behind, or has lost its last second; or a recorder died between the two steps.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from conventions.storage.redis_store import Store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Mark(NamedTuple):
    """The position in Redis. `run`: the run of the server in which it was last compared with SQL."""

    number: int
    at: datetime
    run: str


def read(store: Store) -> Mark | None:
    """The mark in Redis. `None` if there is none, or if it cannot be read. Raises: RedisError."""
    found: Any = store.redis.get(_key(store))
    try:
        number, at, run = (found or b"").decode().split(" ")
        return Mark(int(number), datetime.fromtimestamp(int(at) / 1000, UTC), run)
    except (ValueError, OverflowError, OSError):  # the last two: a time out of range
        return None


def advance(store: Store, number: int) -> bool:
    """Write the count of SQL to Redis. False if Redis does not have the count before it. Raises: RedisError."""
    return bool(store.script("mark_recorded")([_key(store)], [number, ""]))


def write(store: Store, number: int, run: str) -> None:
    """Note that Redis was compared with SQL and is complete. Raises: RedisError."""
    store.script("mark_recorded")([_key(store)], [number, run])


def count(session: "Session", prefix: str) -> int:
    """Add one to the count in SQL, in the transaction that records a part of the journal. Returns the new count."""
    from conventions.storage.database import insert_into, utc_now  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
    from conventions.storage.tables import MarkRow  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    insert = insert_into(session, MarkRow).values(name=_name(prefix), value=1, at=utc_now())
    changes = {"value": MarkRow.value + 1, "at": insert.excluded.at}
    found: int = session.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_=changes).returning(MarkRow.value)
    ).scalar_one()
    return found


def counted(session: "Session", prefix: str) -> int:
    """How many parts of the journal SQL has recorded."""
    from conventions.storage.tables import MarkRow  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    found = session.get(MarkRow, _name(prefix))
    return found.value if found else 0


def _key(store: Store) -> str:
    return store.key("recorded")


def _name(prefix: str) -> str:
    return f"recorded {prefix}"[:64]
