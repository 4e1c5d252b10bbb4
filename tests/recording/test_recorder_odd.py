"""What the recorder cannot record is put aside, what is only odd is recorded, and the rest goes on (protocol 15, 16)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from typing import Any

import pytest
from sqlalchemy import text

from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import append, contents, drain, entry, event, left, recorder, rejected

MALFORMED: list[dict[str, Any]] = [
    {"event": b"no json \xff"},
    {"event": b"[]"},
    {"other": "x"},
    {"event": event().encode(None), "fence": "x"},
]


def test_a_malformed_entry_is_put_aside(store: Store, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Byte for byte, for thirty days, with an error in the log; what is before and behind it is recorded."""
    append(store, entry(event("m1")), *MALFORMED, entry(event("m2")))
    assert drain(recorder(store, database)) == [6]
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == sorted(
        ["m1", "m2"], key=lambda id_: event(id_).id
    )
    assert left(store) == (0, 0)
    aside = [one["fields"] for one in rejected(store)]
    assert [
        {name: value.encode(errors="surrogateescape") for name, value in fields.items()} for fields in aside
    ] == [{name: value if isinstance(value, bytes) else value.encode() for name, value in one.items()} for one in MALFORMED]  # fmt: skip
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 4
    ttl: Any = store.redis.ttl(store.key("journal", "rejected"))
    assert 30 * 86400 - 60 < ttl <= 30 * 86400


def nested(depth: int) -> bytes:
    """An event whose arguments are nested so deep."""
    data = event("deep", "dead", arguments={"a": "@"}).encode(None)
    return data.replace(b'"@"', b"[" * depth + b"]" * depth)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "odd", [nested(2000), nested(200_000), nested(5).replace(b'"attempt":1', b'"attempt":2147483648')]
)
def test_an_entry_that_nobody_can_write_is_put_aside(store: Store, database: Database, odd: bytes, alone: bool) -> None:
    """It keeps the recorder neither from the others nor, read by itself, from the next ones."""
    entries = [{"event": odd, "fence": 1, "at": 1_700_000_000_000}] + ([] if alone else [entry(event("m1"))])
    append(store, *entries)
    drain(recorder(store, database))
    append(store, entry(event("m2")))
    drain(recorder(store, database))
    assert {row["message_id"] for row in contents(database, ExecutionRow)} == ({"m2"} if alone else {"m1", "m2"})
    assert len(rejected(store)) == 1
    assert left(store) == (0, 0)


TRIGGER = "BEFORE INSERT ON conventions_executions WHEN NEW.message_id = 'm7' BEGIN SELECT RAISE(ABORT, 'no'); END"
REFUSING = {
    "sqlite": f"CREATE TRIGGER no {TRIGGER}",
    "postgresql": "ALTER TABLE conventions_executions ADD CONSTRAINT no CHECK (message_id <> 'm7')",
}


def test_what_sql_refuses_for_its_content_is_put_aside(store: Store, database: Database) -> None:
    """One entry that SQL can never take does not keep the nine around it from being recorded."""
    with database.session() as session:
        session.execute(text(REFUSING[session.get_bind().dialect.name]))
    append(store, *(entry(event(f"m{n}")) for n in range(10)))
    drain(recorder(store, database))
    assert {row["message_id"] for row in contents(database, ExecutionRow)} == {f"m{n}" for n in range(10)} - {"m7"}
    (aside,) = rejected(store)
    assert json.loads(aside["fields"]["event"])["message_id"] == "m7"
    assert left(store) == (0, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"task": "t" * 300, "queue": "q" * 300, "actor": "a" * 300, "key": "k" * 300, "worker": "w" * 300},
        {"task": "\0\ud800", "actor": "\0", "key": "\ud800", "token": "\ud800", "message_id": "\0\ud800"},
        {"enqueued_at": "yesterday", "started_at": "2026-01-05T12:00:00", "runtime": float("nan")},
        {"enqueued_at": "0001-01-01T00:00:00+09:00", "started_at": "9999-12-31T23:59:59-09:00", "runtime": 10**30},
        {"arguments": {"a": float("inf"), "b": "\0\ud800", "c": 10**400}, "headers": None, "failure": None},
        {"message_id": "m" * 300, "kind": "continued", "attempt": 2**31 - 1},
    ],
    ids=["long", "nul", "moments", "far", "json", "id"],
)
def test_no_event_is_too_odd_to_be_recorded(store: Store, database: Database, odd: dict[str, Any]) -> None:
    """What foreign messages bring is cut or written as escapes, not put aside."""
    append(store, entry(event(**{"message_id": "m1", "kind": "dead"} | odd)))
    drain(recorder(store, database))
    assert rejected(store) == []
    assert len(contents(database, ExecutionRow)) == 1
    assert len(contents(database, DeadLetterRow)) == (0 if "kind" in odd else 1)


def test_it_records_when_memory_is_full(store: Store, database: Database) -> None:
    """Recording is what frees it: the lead, the group and a rejected entry need none."""
    append(store, entry(event()), MALFORMED[0])
    before: Any = store.redis.config_get("maxmemory")
    store.redis.config_set("maxmemory", "1")
    try:
        mine = recorder(store, database)
        assert mine.lead()
        assert drain(mine) == [2]
    finally:
        store.redis.config_set("maxmemory", before["maxmemory"])
    assert left(store) == (0, 0)
    assert len(rejected(store)) == 1
