"""How far SQL is with the journal, in SQL and in Redis, so that a Redis that is older than SQL is known as such.

Each transaction of the recorder counts one more in SQL, and then in Redis. A Redis that counts less was restored from an older
copy, is a replica that was behind, or has lost its last second; or a recorder died between the two.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from conventions.storage.redis_store import Store

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


class Mark(NamedTuple):
    """What Redis says of it; `run`: that of the server in which it was last compared with SQL."""

    number: int
    at: datetime
    run: str


def run_of(store: Store) -> str:
    """Names the run of the server: another one after each start. Raises: RedisError."""
    found: Any = store.redis.info("server")
    return str(found["run_id"])


def read(store: Store) -> Mark | None:
    """The mark in Redis, `None` where there is none, or something else. Raises: RedisError."""
    found: Any = store.redis.get(_key(store))
    try:
        number, at, run = (found or b"").decode().split(" ")
        return Mark(int(number), datetime.fromtimestamp(int(at) / 1000, UTC), run)
    except (ValueError, OverflowError, OSError):  # the last two of a moment that no calendar has
        return None


def advance(store: Store, number: int) -> bool:
    """Note in Redis what was counted in SQL; false where Redis does not know what was counted before. Raises: RedisError."""
    return bool(store.script("mark_recorded")([_key(store)], [number, ""]))


def write(store: Store, number: int, run: str) -> None:
    """Say that Redis was compared with SQL, and lacks nothing. Raises: RedisError."""
    store.script("mark_recorded")([_key(store)], [number, run])


def count(session: "Session", prefix: str) -> int:
    """Count one more in SQL, in the transaction that records a part of the journal; returns the number."""
    from conventions.storage.database import insert_into, utc_now  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import
    from conventions.storage.tables import MarkRow  # noqa: PLC0415  # the same

    insert = insert_into(session, MarkRow).values(name=_name(prefix), value=1, at=utc_now())
    changes = {"value": MarkRow.value + 1, "at": insert.excluded.at}
    found: int = session.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_=changes).returning(MarkRow.value)
    ).scalar_one()
    return found


def counted(session: "Session", prefix: str) -> int:
    """How many parts SQL has."""
    from conventions.storage.tables import MarkRow  # noqa: PLC0415  # the same

    found = session.get(MarkRow, _name(prefix))
    return found.value if found else 0


def _key(store: Store) -> str:
    return store.key("recorded")


def _name(prefix: str) -> str:
    return f"recorded {prefix}"[:64]
