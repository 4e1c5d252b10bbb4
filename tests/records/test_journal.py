"""The journal: events that keep their identity, in a stream that holds them until they are recorded (protocol 15)."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from conventions.core.entry_signatures import EntrySignatures
from conventions.core.error_text import FailureText
from conventions.core.message_keys import MessageKeys
from conventions.core.named_keys import new_key
from conventions.core.time_units import moment
from conventions.records import journal
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import KINDS, AuditJournalEntry, Event, Journal, JournalEntry, read_entry
from conventions.storage.redis_store import Store

EVENT = Event(
    message_id="m1",
    kind="dead",
    task="Send",
    queue="mail",
    actor="u-42",
    key="k",
    generation=1,
    attempt=2,
    token="t",
    worker="w1@host",
    enqueued_at="2026-01-05T12:00:00+00:00",
    started_at="2026-01-05T12:00:01+00:00",
    wait=0.5,
    release="2026.1",
    runtime=1.5,
    failure=FailureText("ValueError", "no", "Traceback", "f" * 16),
    arguments={"user_id": 7, "name": "é\0\ud800"},
    headers={"x_key": "k"},
    message={"body": "W10=", "headers": {}},
    denied="report:read",
)

texts = st.text(st.characters(codec=None), max_size=6)
maybe_text = st.none() | texts
mappings = st.none() | st.dictionaries(
    texts, st.none() | st.integers() | texts | st.lists(texts, max_size=2), max_size=2
)
OF_TYPE = {
    str: texts,
    str | None: maybe_text,
    datetime | str | None: maybe_text,
    int: st.integers(0, 5),
    float | None: st.none() | st.floats(0, allow_infinity=False),
    FailureText | None: st.none() | st.builds(FailureText, texts, texts, texts, texts),
    dict[str, Any] | None: mappings,
}
PARTS = {name: OF_TYPE[type_] for name, type_ in get_type_hints(Event).items()} | {"kind": st.sampled_from(KINDS)}
events = st.builds(Event, **PARTS)


@given(events)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    """Whatever stands in it; the identity, too."""
    assert Event.decode(event.encode(None)) == event
    assert Event.decode(event.encode(None)).id == event.id


@given(st.text(), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.text(), st.text(min_size=1))
def test_the_identity_is_the_uuid_of_the_standard(
    message_id: str, generation: int, attempt: int, token: str, kind: str
) -> None:
    """Rows of before have it. The library makes the same one, more slowly."""
    name = json.dumps([message_id, generation, attempt, token, kind])
    event = Event(message_id, kind, generation=generation, attempt=attempt, token=token)
    assert event.id == str(uuid5(UUID("5d0a3f4e-7d0c-5c66-9a43-7c2d8f6e1b90"), name))


@pytest.mark.parametrize("kind", ["succeeded", "revoked", "dead"])
@pytest.mark.parametrize("odd", [{"\ud800": 1}, {"a": "\ud800"}, {"a": {"b\udfff": ["\ud800\0"]}}])
def test_half_a_character_comes_back_wherever_it_stands(odd: dict[str, Any], kind: str) -> None:
    """Also in a name of a mapping, where pydantic writes another character for it."""
    for part in ("arguments", "headers", "message"):
        event = Event("m\ud800", kind, **{part: odd})  # type: ignore[arg-type]
        assert Event.decode(event.encode(None)) == event
        assert Event.decode(event.encode(None)).id == event.id


def test_what_is_none_takes_no_room() -> None:
    """A million of them are in memory."""
    assert json.loads(Event("m1", "succeeded").encode(None)) == {
        "message_id": "m1", "kind": "succeeded", "actor": "system", "generation": 0, "attempt": 0, "token": "",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [None, {"number": 1}])
def test_moments_are_written_as_text(arguments: dict[str, Any] | None) -> None:
    """Of successes and of dead letters, which go different ways; a half character changes the way, and nothing else."""
    begun = datetime(2026, 1, 5, 1, 2, 3, 456, tzinfo=UTC)
    for worker in ("host", "host\ud800"):
        event = replace(EVENT, failure=None, arguments=arguments, worker=worker, enqueued_at=begun, started_at=begun)
        found = Event.decode(event.encode(None))
        assert (moment(found.enqueued_at), moment(found.started_at)) == (begun, begun)
        assert (found.worker, found.arguments) == (worker, arguments)


def test_an_argument_that_json_does_not_know_loses_no_event() -> None:
    """It is shown as Python shows it."""
    event = Event.decode(replace(EVENT, arguments={"when": datetime(2026, 1, 5, tzinfo=UTC)}).encode(None))
    assert event.arguments == {"when": "datetime.datetime(2026, 1, 5, 0, 0, tzinfo=datetime.timezone.utc)"}


def test_the_identity_is_message_redrive_attempt_delivery_and_kind() -> None:
    """Nothing else: another worker's clock or text does not make it another event."""
    for other in ({"message_id": "m2"}, {"generation": 2}, {"attempt": 3}, {"token": "u"}, {"kind": "retried"}):
        assert replace(EVENT, **other).id != EVENT.id
    assert replace(EVENT, worker="w2", runtime=9.0, task="Other", failure=None).id == EVENT.id
    assert replace(EVENT, message_id="m1:1", generation=0).id != replace(EVENT, message_id="m1", generation=10).id


def test_fields_of_a_later_version_are_ignored() -> None:
    """Two versions run side by side during a deploy; a kind that is not known yet is kept."""
    raw = json.loads(EVENT.encode(None)) | {"colour": "red", "kind": "continued"}
    assert Event.decode(json.dumps(raw).encode()) == replace(EVENT, kind="continued")


WRONG: list[dict[str, Any]] = [
    {"message_id": None}, {"message_id": 7}, {"kind": ""}, {"kind": "k" * 33}, {"attempt": -1}, {"attempt": 1.5},
    {"attempt": 2**31}, {"generation": True}, {"actor": None}, {"token": 1}, {"task": 1}, {"arguments": []},
    {"headers": ""}, {"message": 1}, {"runtime": "1"}, {"failure": {}}, {"failure": "x"},
    {"failure": {"error": 1, "error_message": "", "traceback": "", "fingerprint": ""}},
    *({one.name: [7]} for one in fields(Event)),
]  # fmt: skip
NO_JSON = [b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff", b"{}", b'{"message_id": "m1"}', b"[" * 100_000]


@pytest.mark.parametrize(
    "data", [*NO_JSON, *(json.dumps({"message_id": "m1", "kind": "dead"} | wrong).encode() for wrong in WRONG)]
)
def test_what_is_no_event_is_a_value_error(data: bytes) -> None:
    """And nothing else, so that the recorder can put it aside."""
    with pytest.raises(ValueError, match=r"\w"):
        Event.decode(data)


def test_the_example_has_each_field() -> None:
    """So that a new one is tried wherever the example is."""
    assert [one.name for one in fields(Event) if getattr(EVENT, one.name) is None] == []


FIELDS = st.sampled_from([one.name for one in fields(Event)] + ["later"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**31), st.floats(), texts, st.just("\ud800"), st.just("k" * 33), mappings
)


@given(st.dictionaries(FIELDS, VALUES, max_size=6), st.booleans())
def test_an_event_is_read_the_same_in_one_step_or_in_several(changes: dict[str, Any], plain: bool) -> None:
    """Or is none, both ways."""
    known = {name: value for name, value in vars_of(EVENT).items() if isinstance(value, (str, int, float))}
    data = json.dumps((known if plain else {"message_id": "m1", "kind": "succeeded"}) | changes).encode()
    short = read_event(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_read", TypeAdapter(None).validator.validate_json)
        assert repr(read_event(data)) == repr(short)


def vars_of(event: Event) -> dict[str, Any]:
    """Its fields."""
    return {one.name: getattr(event, one.name) for one in fields(event)}


def read_event(data: bytes) -> Event | None:
    """`None` where it is none. Whole seconds may be read as either kind of number."""
    try:
        event = Event.decode(data)
    except ValueError:
        return None
    runtime, wait = (None if seconds is None else float(seconds) for seconds in (event.runtime, event.wait))
    return replace(event, runtime=runtime, wait=wait)


def test_an_entry_has_the_server_s_time_and_the_fence() -> None:
    """Without a time, that of the stream's id, which is the server's as well."""
    entry = JournalEntry.read(
        b"5000-1", {b"event": EVENT.encode(None), b"fence": b"9007199254740993", b"at": b"86400123"}, None
    )
    assert (entry.event, entry.fence, entry.message) == (EVENT, 9007199254740993, None)
    assert entry.at == datetime(1970, 1, 2, microsecond=123000, tzinfo=UTC)
    entry = JournalEntry.read(b"86400000-1", {b"event": EVENT.encode(None), b"message": b"{}"}, None)
    assert (entry.fence, entry.at, entry.message) == (0, datetime(1970, 1, 2, tzinfo=UTC), b"{}")


def test_a_refused_settle_is_superseded() -> None:
    """The claim was another worker's by then: what this one did does not count."""
    entry = JournalEntry.read(b"1-1", {b"event": EVENT.encode(None), b"refused": b"1"}, None)
    assert entry.event == replace(EVENT, kind="superseded")
    assert entry.event.id != EVENT.id


@pytest.mark.parametrize(
    "wrong",
    [{b"event": b"no json"}, {b"fence": b"x"}, {b"fence": b"-1"}, {b"fence": str(2**63).encode()}, {b"at": b"x"},
     {b"at": b"9" * 30}],
)  # fmt: skip
def test_what_is_no_entry_is_a_value_error(wrong: dict[bytes, bytes]) -> None:
    """For the same reason."""
    with pytest.raises(ValueError, match=r"\w"):
        JournalEntry.read(b"1-1", {b"event": EVENT.encode(None)} | wrong, None)
    with pytest.raises(ValueError, match="without an event"):
        JournalEntry.read(b"1-1", {}, None)


MS = 1_780_000_000_000  # of an entry
SIGNS = EntrySignatures(MessageKeys.parse(new_key("k")))


def read(event: Event, *, by: EntrySignatures | None = SIGNS, **fields: bytes) -> JournalEntry:
    """As a recorder with the keys reads an event that a worker of `by` has written."""
    found = {b"event": event.encode(by), **{name.encode(): value for name, value in fields.items()}}
    return JournalEntry.read(b"%d-1" % MS, found, SIGNS)


def test_an_event_is_signed_where_there_are_keys() -> None:
    """One that nobody with the keys has written is none, and neither is the action of a person."""
    assert read(EVENT).event == EVENT
    for by in (None, EntrySignatures(MessageKeys.parse(new_key("k")))):
        with pytest.raises(ValueError, match=r"^it(s signature| is not signed)"):
            read(EVENT, by=by)
    deed = AuditEntry("ceo", "cancel", "m1")
    assert read_entry(b"1-1", {b"deed": deed.encode(SIGNS)}, SIGNS).id == b"1-1"
    for data in (deed.encode(None), SIGNS.signed(deed.encode(None), "event")):
        with pytest.raises(ValueError, match=r"^it"):
            read_entry(b"1-1", {b"deed": data}, SIGNS)


def test_what_a_script_says_without_a_key() -> None:
    """That a message is gone, and nothing else: no task, no actor, no reason of its own."""
    gone = FailureText("Lost", "its message is gone from Redis", "", "")
    lost = Event("m1", "lost", queue="q", token="lost-1", failure=gone)
    assert read(lost, by=None).event == lost
    for more in (
        {"task": "Pay"},
        {"actor": "ceo"},
        {"kind": "dead"},
        {"failure": replace(gone, error="Paid")},
        {"attempt": 1},
    ):
        with pytest.raises(ValueError, match="not signed"):
            read(replace(lost, **more), by=None)


def test_the_stream_s_id_says_when() -> None:
    """Not what stands beside a signed event, which anybody may write; but for a start that was interrupted before it was written."""
    written = datetime.fromtimestamp(MS / 1000, UTC)
    assert read(EVENT, at=b"1577836800000").at == written  # 2020
    began = (written - timedelta(hours=1)).isoformat()
    interrupted = replace(EVENT, kind="interrupted", started_at=began)
    minutes = {minutes: b"%d" % (MS + minutes * 60_000) for minutes in (-90, -30, 30)}
    ended = [read(interrupted, at=minutes[one]).at - written for one in minutes]
    assert ended == [timedelta(hours=-1), timedelta(minutes=-30), timedelta(0)]
    assert (
        AuditJournalEntry.read(b"%d-1" % MS, {b"deed": AuditEntry("a", "b", "c").encode(SIGNS), b"at": b"1"}, SIGNS).at
        == written
    )


def test_events_are_appended_in_order_with_the_server_s_time(store: Store) -> None:
    """And counted until they are recorded; no event makes no stream."""
    journal = Journal(store)
    journal.append([])
    assert store.redis.exists(journal.key) == 0
    now: Any = store.redis.time()
    seconds, micros = now
    journal.append([EVENT, replace(EVENT, message_id="m2")])
    journal.append([replace(EVENT, message_id="m3")])
    assert journal.length() == 3
    found: Any = store.redis.xrange(journal.key)
    entries = [JournalEntry.read(id_, fields, None) for id_, fields in found]
    assert [entry.event.message_id for entry in entries] == ["m1", "m2", "m3"]
    for entry, (id_, _) in zip(entries, found, strict=True):
        assert entry.fence == 0
        assert int(seconds * 1000 + micros / 1000) <= round(entry.at.timestamp() * 1000) <= int(id_.split(b"-")[0])


def test_an_event_is_appended_when_memory_is_full(store: Store) -> None:
    """It is the end of a message, whose acknowledgment frees memory."""
    before: Any = store.redis.config_get("maxmemory")
    store.redis.config_set("maxmemory", "1")
    try:
        Journal(store).append([EVENT])
    finally:
        store.redis.config_set("maxmemory", before["maxmemory"])
    assert Journal(store).length() == 1
