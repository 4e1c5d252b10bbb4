"""Nobody without the keys writes history: what the recorder makes of forged, altered and repeated entries (R20, R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions.broker.header_names import ACTOR, BATCH, KEY, SIGNATURE
from conventions.broker.signature import Signatures
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.message_keys import MessageKeys, new_key
from conventions.recording.recorder import Recorder
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import Event, Journal
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


def test_an_entry_that_is_written_once_more(store: Store, database: Database) -> None:
    """With another fence, as refused, and with another message: the event is known, and nothing changes."""
    signatures = signed_with(store, NEW)
    headers = {"id": "m1", "task": "Send", ACTOR: "u-42"}
    message = stored(signatures.signed(headers, *CONTENT, b'[[], {"order": 7}, {}]')).decode()
    dead = event("m1", "dead")
    append(store, entry(dead, message=message))
    one = recorder(store, database, signatures=signatures)
    drain(one)
    before = contents(database, ExecutionRow), contents(database, DeadLetterRow)
    append(store, entry(dead, fence=9, message=stored(headers).decode()), entry(dead, fence=9, refused="1"))
    assert drain(one) == [2]
    assert (contents(database, ExecutionRow), contents(database, DeadLetterRow)) == before
    assert headers_of(database)[SIGNATURE]


def test_the_message_of_a_dead_one(store: Store, database: Database) -> None:
    """A header that was added on the way is not in its letter: a redrive would sign it."""
    signatures = signed_with(store, NEW)
    sent = signatures.signed(
        {"id": "m1", "task": "Send", "tenant": "t-1", "eta": None}, *CONTENT, b'[[], {"order": 7}, {}]'
    )
    append(store, entry(event("m1", "dead"), message=stored({**sent, "region": "mine"}).decode()))
    drain(recorder(store, database, signatures=signatures))
    assert headers_of(database) == sent


@pytest.mark.parametrize("how", ["body", "header", "another", "odd"])
def test_another_message_in_its_place(
    store: Store, database: Database, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its letter has the arguments, which the worker has signed, and no message."""
    signatures = signed_with(store, NEW)
    body = b'[[], {"order": 7}, {}]'
    sent = signatures.signed({"id": "m2" if how == "another" else "m1", "task": "Send", ACTOR: "u-42"}, *CONTENT, body)
    if how == "header":
        sent[ACTOR] = "ceo"
    if how == "odd":
        sent["timelimit"] = ["soon", None]
    message = stored(sent, b'[[], {"order": 8}, {}]' if how == "body" else body)
    append(store, entry(event("m1", "dead"), message=message.decode()))
    drain(recorder(store, database, signatures=signatures))
    (letter,) = contents(database, DeadLetterRow)
    assert (letter["message"], letter["arguments"]) == (None, {"user_id": 7})
    assert "is not the one that died: id=m1" in caplog.text


def test_the_message_of_a_program_that_cannot_sign(store: Store, database: Database) -> None:
    """Its letter has what the worker believed: not the actor, the key and the batch that it names, which a redrive would sign."""
    signatures = signed_with(store, NEW)
    told = {"id": "m1", "task": "Send", "tenant": "t-1", ACTOR: "ceo", KEY: "another", BATCH: ["b-1", "chunk", 0, 1]}
    died = event("m1", "dead", actor="unsigned", headers={ACTOR: "unsigned", KEY: "reckoned"})
    append(store, entry(died, message=stored(told).decode()))
    drain(recorder(store, database, signatures=signatures))
    assert headers_of(database) == {"id": "m1", "task": "Send", "tenant": "t-1", ACTOR: "unsigned", KEY: "reckoned"}


def test_entries_of_a_release_that_does_not_sign(store: Store, database: Database) -> None:
    """They are recorded until a moment, with the time of their entries."""
    signed_with(store, NEW, trusted_until=datetime.now(UTC) + timedelta(hours=1))
    store.redis.xadd(store.key("journal"), {"event": event("m1").encode(None), "fence": 1})
    assert drain(recorder(store, database)) == [1]
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == ["m1"]
    assert rejected(store) == []


def run(recorder: Recorder, stop: threading.Event) -> threading.Thread:
    """Let a recorder run beside the test."""
    thread = threading.Thread(target=recorder.run, args=(stop.is_set,))
    thread.start()
    return thread


def test_a_key_that_the_leading_recorder_does_not_have(valkey_url: str, store: Store, database: Database) -> None:
    """It lets another one lead, which has it. Nothing is put aside."""
    signed_with(store, OLD, patience=timedelta(minutes=5))
    other = Store(valkey_url, store.prefix)
    signed_with(other, NEW, OLD)
    behind, ahead = recorder(store, database), recorder(other, database)
    behind.name, ahead.name = "behind", "ahead"
    for one in (behind, ahead):
        one._new._name = one.name  # of one process, as two
    stop = threading.Event()
    threads = [run(behind, stop)]
    try:
        wait_until(lambda: behind.leads, 10)
        Journal(store).append([event("m1")])
        wait_until(lambda: len(contents(database, ExecutionRow)) == 1, 20)
        Journal(other).append([event("m2")])
        wait_until(lambda: not behind.leads, 20)
        assert len(contents(database, ExecutionRow)) == 1
        threads.append(run(ahead, stop))
        wait_until(lambda: len(contents(database, ExecutionRow)) == 2, 90)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        other.redis.close()
    assert rejected(store) == []


def test_a_key_that_nobody_has(store: Store, database: Database) -> None:
    """After a while its entry is put aside, and what is behind it is recorded."""
    signed_with(store, NEW)
    Journal(store).append([event("m1")])
    signed_with(store, OLD, patience=timedelta(seconds=2))
    Journal(store).append([Event("m2", "purged")])
    one, stop = recorder(store, database), threading.Event()
    thread = run(one, stop)
    try:
        wait_until(lambda: contents(database, ExecutionRow), 30)
    finally:
        stop.set()
        thread.join()
    assert [row["message_id"] for row in contents(database, ExecutionRow)] == ["m2"]
    assert [found["fault"] for found in rejected(store)] == ["ValueError: it is signed with a key that is not here"]
