"""Nobody without the keys writes history: what the recorder makes of forged, altered and repeated entries (R20, R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.broker.signature import Signatures
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import Journal
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow, DeadLetterRow, ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import contents, drain, entry, event, left, recorder, rejected
from tests.support import wait_until

OLD, NEW = new_key("old"), new_key("new")
CONTENT = ("application/json", "utf-8")


def signed_with(store: Store, *keys: str, **options: Any) -> Signatures:
    """Give a store keys, as an application does. Returns what signs messages."""
    found = MessageKeys.parse(",".join(keys))
    store.entry_signatures = EntrySignatures(found, **options)
    return Signatures(found)


def stored(headers: dict[str, Any], body: bytes = b'[[], {"order": 7}, {}]') -> bytes:
    """A message as it lies in Redis."""
    properties = {"body_encoding": "base64"}
    content = {"content-type": CONTENT[0], "content-encoding": CONTENT[1]}
    return json.dumps(
        {"body": b64encode(body).decode(), "headers": headers, "properties": properties} | content
    ).encode()


def append(store: Store, *entries: dict[Any, Any]) -> None:
    """Put entries into the journal, each event signed with the keys of the store."""
    for one in entries:
        assert store.entry_signatures is not None
        store.redis.xadd(store.key("journal"), one | {"event": store.entry_signatures.signed(one["event"], "event")})


def headers_of(database: Database) -> Any:
    """What its letter keeps of the only dead message; `None`: no message."""
    (letter,) = contents(database, DeadLetterRow)
    return letter["message"] and json.loads(letter["message"])["headers"]


def test_what_nobody_with_the_keys_has_written(store: Store, database: Database) -> None:
    """An execution in somebody's name and an action of his are put aside, with the reason; what is behind them is recorded."""
    signed_with(store, NEW)
    forged = event("m1", actor="ceo", key="k")
    altered = event("m2").encode(store.entry_signatures).replace(b"u-42", b"ceo")
    redis: Any = store.redis
    redis.xadd(store.key("journal"), {"event": forged.encode(None), "fence": 1, "at": 1_577_836_800_000})
    redis.xadd(store.key("journal"), {"event": altered, "fence": 1})
    redis.xadd(store.key("journal"), {"deed": AuditEntry("ceo", "cancel", "m1").encode(None)})
    Journal(store).append([event("m3")])
    Journal(store).note(AuditEntry("ann", "cancel", "m3"))
    assert drain(recorder(store, database)) == [5]
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == ["m3"]
    assert [row["actor"] for row in contents(database, AuditRow)] == ["ann"]
    faults = ["it is not signed", "its signature does not fit it: it was altered", "it is not signed"]
    assert sorted(one["fault"] for one in rejected(store)) == sorted(f"ValueError: {one}" for one in faults)
    assert left(store) == (0, 0)


SENT = {"body": "W10=", "headers": {"id": "m1", "task": "Send", "x_actor": "u-42"}}


def test_an_entry_that_is_written_once_more(store: Store, database: Database) -> None:
    """With another fence, and with another message: the event is known, and nothing changes."""
    signed_with(store, NEW)
    dead = event("m1", "dead", message=SENT)
    append(store, entry(dead))
    one = recorder(store, database)
    drain(one)
    before = contents(database, ExecutionRow), contents(database, DeadLetterRow)
    append(store, entry(dead, fence=9, message='{"headers": {}}'))
    assert drain(one) == [1]
    assert (contents(database, ExecutionRow), contents(database, DeadLetterRow)) == before


@pytest.mark.parametrize("sent", [SENT, None])
def test_another_message_beside_a_dead_one(store: Store, database: Database, sent: Any) -> None:
    """What lies beside a signed event is not believed: its letter has the message that the worker has signed, or its arguments only."""
    signed_with(store, NEW)
    append(
        store,
        entry(event("m1", "dead", message=sent), message='{"body": "W10=", "headers": {"id": "m1", "x_actor": "ceo"}}'),
    )
    drain(recorder(store, database))
    (letter,) = contents(database, DeadLetterRow)
    assert (letter["message"] and json.loads(letter["message"]), letter["arguments"]) == (sent, {"user_id": 7})


FUTURE = (b"4102444800000-0", b"18446744073709551614-0")  # 2100, and what no calendar has


@pytest.mark.parametrize("id_", FUTURE)
def test_an_entry_of_the_future(store: Store, database: Database, id_: bytes) -> None:
    """Redis gives those after it the same time: they have the time that the script wrote, or the present one."""
    signed_with(store, NEW)
    began = datetime.now(UTC)
    redis: Any = store.redis
    redis.xadd(store.key("journal"), {"event": b'{"a": 1}'}, id=id_)
    append(
        store,
        entry(event("m1"), at=int(began.timestamp() * 1000) - 5000),
        entry(event("m2"), at=int(began.timestamp() * 1000) + 86_400_000),
    )
    Journal(store).note(AuditEntry("ann", "cancel", "m3"))
    drain(recorder(store, database))
    first, second = contents(database, ExecutionRow)
    (deed,) = contents(database, AuditRow)
    ages = [(one - began).total_seconds() for one in sorted([first["ended_at"], second["ended_at"]])]
    assert ages[0] == pytest.approx(-5, abs=0.01)
    assert 0 <= ages[1] < 60
    assert 0 <= (deed["at"] - began).total_seconds() + 1 < 60


def test_entries_of_a_release_that_does_not_sign(store: Store, database: Database) -> None:
    """They are recorded until a moment, with the time of their entries."""
    signed_with(store, NEW, trusted_until=datetime.now(UTC) + timedelta(hours=1))
    store.redis.xadd(store.key("journal"), {"event": event("m1").encode(None), "fence": 1})
    assert drain(recorder(store, database)) == [1]
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == ["m1"]
    assert rejected(store) == []


def test_a_key_that_the_recorder_does_not_have(store: Store, database: Database) -> None:
    """As while keys change: what is behind such an entry is recorded, and it is put aside until a recorder has the key."""
    signed_with(store, NEW)
    Journal(store).append([event("m1", "dead", message=SENT)])
    Journal(store).note(AuditEntry("ann", "cancel", "m1"))
    redis: Any = store.redis
    ids = [id_ for id_, _ in redis.xrange(store.key("journal"))]
    signed_with(store, OLD)
    Journal(store).append([event("m2")])
    redis.xadd(store.key("journal"), {"event": event("m3").encode(None)})
    one = recorder(store, database)
    assert drain(one) == [4]
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == ["m2"]
    assert one.take_back() == 0
    assert [found["fault"] for found in rejected(store)].count(
        "ValueError: it is signed with a key that is not here"
    ) == 2
    signed_with(store, NEW, OLD)
    assert (one.take_back(), one.take_back()) == (2, 0)
    assert {row["message_id"] for row in contents(database, ExecutionRow)} == {"m1", "m2"}
    (letter,), (deed,) = contents(database, DeadLetterRow), contents(database, AuditRow)
    assert (json.loads(letter["message"]), deed["actor"]) == (SENT, "ann")
    assert int(letter["last_failed_at"].timestamp() * 1000) == int(ids[0].partition(b"-")[0]), (
        "when it died, not when it was recorded"
    )
    assert [found["fault"] for found in rejected(store)] == ["ValueError: it is not signed"]


def test_entries_that_were_not_trusted_in_time(store: Store, database: Database) -> None:
    """Where somebody has forgotten the setting for the release before, a restart with it records what was put aside; an odd line of the list stays."""
    signed_with(store, NEW)
    redis: Any = store.redis
    for number in range(3):
        redis.xadd(store.key("journal"), {"event": event(f"m{number}", "dead").encode(None), "fence": 1})
    drain(recorder(store, database))
    assert len(rejected(store)) == 3
    for odd in (
        b"{",
        b"[]",
        b'{"id": "x", "fault": "it is not signed", "fields": {}}',
        b'{"id": "1-1", "fault": "it is not signed", "fields": {"event": 7}}',
    ):
        redis.rpush(store.key("journal", "rejected"), odd)
    signed_with(store, NEW, trusted_until=datetime.now(UTC) + timedelta(hours=1))
    assert recorder(store, database).take_back() == 3
    assert {row["message_id"] for row in contents(database, ExecutionRow)} == {"m0", "m1", "m2"}
    assert len(contents(database, DeadLetterRow)) == 3
    assert redis.llen(store.key("journal", "rejected")) == 4


def test_the_recorder_looks_by_itself(store: Store, database: Database) -> None:
    """Once it leads."""
    signed_with(store, NEW)
    for number in range(3):
        Journal(store).append([event(f"m{number}")])
    signed_with(store, OLD)
    drain(recorder(store, database))
    signed_with(store, OLD, NEW)
    one, stop = recorder(store, database), threading.Event()
    thread = threading.Thread(target=one.run, args=(stop.is_set,))
    thread.start()
    try:
        wait_until(lambda: len(contents(database, ExecutionRow)) == 3, 30)
    finally:
        stop.set()
        thread.join()
    assert rejected(store) == []
