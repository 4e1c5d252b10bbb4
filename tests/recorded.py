"""Entries of the journal, and what the recorder made of them in SQL."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from conventions.core.error_text import FailureText
from conventions.recording.new_entries import GROUP
from conventions.recording.recorder import Recorder
from conventions.records.journal import Event
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import Base, DeadLetterRow, ExecutionRow

FAILURE = FailureText("ValueError", "no", "Traceback\nValueError: no\n", "f" * 16)


def event(message_id: str = "m1", kind: str = "succeeded", **values: Any) -> Event:
    """How an attempt ended."""
    defaults: dict[str, Any] = {"task": "Send", "queue": "mail", "actor": "u-42", "attempt": 1, "token": "t"}
    if kind in ("retried", "dead"):
        defaults |= {"failure": FAILURE, "arguments": {"user_id": 7}, "headers": {"x_key": "k"}}
    return Event(message_id, kind, **defaults | values)


def entry(one: Event, fence: int = 1, at: int = 1_700_000_000_000, **more: str) -> dict[str, Any]:
    """The fields of an entry, as the settle script writes them; `at` in milliseconds."""
    return {"event": one.encode(None), "fence": fence, "at": at} | more


def append(store: Store, *entries: Mapping[str, Any]) -> None:
    """Put entries into the journal, as they are.

    The store does without keys from then on: with them the id of an entry says when something happened, which is now, and not its `at`.
    """
    store.entry_signatures = None
    with store.redis.pipeline() as pipe:
        for fields in entries:
            pipe.xadd(store.key("journal"), dict(fields))  # type: ignore[arg-type]  # a dict of what Redis takes
        pipe.execute()


def recorder(store: Store, database: Database, **options: Any) -> Recorder:
    """A recorder in this process."""
    return Recorder(store, lambda: database, **options)


def drain(recorder: Recorder, limit: int = 500) -> list[int]:
    """Record until nothing is left; returns the sizes of the batches."""
    sizes = []
    while size := recorder.drain_once(limit):
        sizes.append(size)
    return sizes


def left(store: Store) -> tuple[int, int]:
    """How many entries are in the stream, and how many of them were read and not acknowledged."""
    redis: Any = store.redis
    groups = redis.xinfo_groups(store.key("journal"))
    return redis.xlen(store.key("journal")), sum(one["pending"] for one in groups if one["name"] == GROUP.encode())


def rejected(store: Store) -> list[Any]:
    """What was put aside."""
    found: Any = store.redis.lrange(store.key("journal", "rejected"), 0, -1)
    return [json.loads(one) for one in found]


def contents(database: Database, table: type[Base]) -> list[dict[str, Any]]:
    """Every row of a table, by id."""
    with database.session() as session:
        rows = session.scalars(select(table).order_by(*table.__mapper__.primary_key)).all()
        return [{column.key: getattr(row, column.key) for column in table.__mapper__.columns} for row in rows]


def clear(database: Database) -> None:
    """Delete what was recorded."""
    with database.session() as session:
        for table in (ExecutionRow, DeadLetterRow):
            session.execute(table.__table__.delete())  # type: ignore[attr-defined]  # it is a table
