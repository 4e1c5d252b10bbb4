"""`Journal`: the ordered stream of how attempts ended. It is in Redis until the recorder has copied it to SQL.

The settle script appends an event in the same step that changes the claim, so an outcome never lacks its event.
`Journal.append` adds events of messages without a claim. Actions of people on data in Redis are entries of their own
(`AuditJournalEntry`), appended in the same step as the action. The broker's scripts refuse new messages while it has more entries than
`CONVENTIONS_JOURNAL_LIMIT`.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from json.encoder import encode_basestring_ascii as _quoted
from operator import attrgetter
from typing import Annotated, Any, NotRequired, get_type_hints
from uuid import UUID

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions.core.audit_keys import RESERVED
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.error_text import FailureText
from conventions.core.time_units import moment
from conventions.records.audit_entry import AuditEntry
from conventions.storage.redis_store import Store

LATEST = timedelta(minutes=10)  # by which the clocks of Redis and of a recorder may differ
LATE_AFTER = 30.0  # seconds after which an unrecorded event is reported as late
ODD = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)  # raised by an entry that is not an event
SEARCHED, PAGE = 20_000, 200  # events that a search for one message looks through, and how many in one read
INTERRUPTED = "interrupted"  # a start without an outcome: its process or its worker ended
KINDS = (
    "succeeded", "retried", "dead", "cancelled", "revoked", "expired", "superseded", "duplicate", "hung", "purged", "lost", INTERRUPTED,
)  # fmt: skip
ASIDE = ("superseded", INTERRUPTED)  # they do not say how the message stands

_NAMESPACE = UUID("5d0a3f4e-7d0c-5c66-9a43-7c2d8f6e1b90")  # a change would record old events a second time
_KIND_LENGTH = 32
_LARGEST_INTEGER = 2**31 - 1  # of the columns
_LARGEST_FENCE = 2**63 - 1
_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)


@dataclass(slots=True)  # not frozen: each job creates one, and a frozen one takes twice as long
class Event:
    """How one attempt at one message ended.

    Args:
        kind: one of `KINDS`.
        key: the idempotency key.
        generation: 0, and one more for each redrive.
        attempt: from 1; 0: never started.
        token: the token of the delivery.
        worker: host name of the worker.
        enqueued_at: aware, or ISO 8601 text, as `decode` returns it.
        started_at: in the same form.
        wait: seconds from the moment in which it was ready to its start.
        release: of the team's code that the worker ran.
        runtime: seconds.
        denied: who lacks the permission for which it died.
        message: the broker's envelope of a dead message, where the settle script does not have it, or may not be believed.
    """

    message_id: str
    kind: str
    task: str | None = None
    queue: str | None = None
    actor: str = "system"
    key: str | None = None
    generation: int = 0
    attempt: int = 0
    token: str = ""
    worker: str | None = None
    enqueued_at: datetime | str | None = None
    started_at: datetime | str | None = None
    wait: float | None = None
    release: str | None = None
    runtime: float | None = None
    failure: FailureText | None = None
    arguments: dict[str, Any] | None = None
    headers: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    denied: str | None = None

    @property
    def id(self) -> str:
        """The same for the same event, even if it is read several times (protocol 15)."""
        return _id_of(self.message_id, self.generation, self.attempt, self.token, self.kind)

    def encode(self, signatures: EntrySignatures | None) -> bytes:
        """The event as the journal keeps it, signed where there are keys: see `Store.entry_signatures`.

        It is compact JSON, without fields that are `None`. A value that JSON cannot hold becomes its `repr`.
        """
        return self._as_json() if signatures is None else signatures.signed(self._as_json(), "event")

    def _as_json(self) -> bytes:
        # Most events are successes: text and numbers. In the key of a mapping pydantic would replace half a character.
        if self.failure is None and self.arguments is None and self.headers is None and self.message is None:
            try:  # faster than `contextlib.suppress`
                return _to_json(self, exclude_none=True, warnings=False)
            except ValueError:  # half a character
                pass
        values = {name: value for name, value in zip(_NAMES, _values(self), strict=True) if value is not None}
        for name in _MOMENTS & values.keys():
            if isinstance(values[name], datetime):
                values[name] = values[name].isoformat()
        if self.failure is not None:
            values["failure"] = {name: getattr(self.failure, name) for name in _FAILURE}
        return _COMPACT.encode(values).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Event":
        """Read what `encode` wrote. Raises: ValueError when it is not an event.

        Unknown fields are ignored, since workers of the next release may write them.
        """
        with suppress(ValidationError):  # other events are read below
            return cls(**_read(data))
        try:
            found = json.loads(data)
            values = {name: found[name] for name in _NAMES if name in found}
            if values.get("failure") is not None:
                values["failure"] = FailureText(**{name: values["failure"][name] for name in _FAILURE})
            event = cls(**values)
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError(f"not an event: {error}") from error
        _check(event)
        return event


@with_config(ConfigDict(extra="ignore", strict=True))
class _Success(TypedDict):
    """An event without a failure, which is the usual case. pydantic reads it and does the checks of `_check` in one step."""

    message_id: str
    kind: Annotated[str, Field(min_length=1, max_length=_KIND_LENGTH)]
    actor: NotRequired[str]
    token: NotRequired[str]
    task: NotRequired[str | None]
    queue: NotRequired[str | None]
    key: NotRequired[str | None]
    worker: NotRequired[str | None]
    enqueued_at: NotRequired[str | None]
    started_at: NotRequired[str | None]
    generation: NotRequired[Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]]
    attempt: NotRequired[Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]]
    wait: NotRequired[float | None]
    release: NotRequired[str | None]
    runtime: NotRequired[float | None]
    failure: NotRequired[None]
    arguments: NotRequired[None]
    headers: NotRequired[None]
    message: NotRequired[None]
    denied: NotRequired[None]


_read: Any = TypeAdapter(_Success).validator.validate_json
_to_json = TypeAdapter(Event).serializer.to_json
_COMPACT = json.JSONEncoder(separators=(",", ":"), default=repr)


@functools.lru_cache(maxsize=1 << 14)  # the recorder asks for it several times
def _id_of(message_id: str, generation: int, attempt: int, token: str, kind: str) -> str:
    """`uuid5` (RFC 9562, 5.5) of the five as JSON, written out: the library's way takes three times as long, and this is done for each job."""
    name = f"[{_quoted(message_id)}, {generation}, {attempt}, {_quoted(token)}, {_quoted(kind)}]"
    digest = sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


_NAMES = tuple(field.name for field in fields(Event))
_values = attrgetter(*_NAMES)
_FAILURE = tuple(field.name for field in fields(FailureText))
_TYPES = get_type_hints(Event)


def _of(*types: Any) -> tuple[str, ...]:
    return tuple(name for name, type_ in _TYPES.items() if type_ in types)


_MOMENTS = frozenset(_of(datetime | str | None))
_GIVEN_TEXTS, _TEXTS = _of(str), _of(str | None, datetime | str | None)
_NUMBERS, _SECONDS, _MAPPINGS = _of(int), _of(float | None), _of(dict[str, Any] | None)


def _check(event: Event) -> None:
    """Check only what an SQL column would refuse. Raises: ValueError."""
    texts = [getattr(event, name) for name in _GIVEN_TEXTS]
    texts += [value for name in _TEXTS if (value := getattr(event, name)) is not None]
    if event.failure is not None:
        texts += [getattr(event.failure, name) for name in _FAILURE]
    mappings, numbers, seconds = ([getattr(event, name) for name in names] for names in (_MAPPINGS, _NUMBERS, _SECONDS))
    if (
        not all(isinstance(one, str) for one in texts)
        or not all(isinstance(one, (dict, type(None))) for one in mappings)
        or not all(type(one) is int and 0 <= one <= _LARGEST_INTEGER for one in numbers)
        or not all(isinstance(one, (int, float, type(None))) for one in seconds)
        or not 0 < len(event.kind) <= _KIND_LENGTH
    ):
        raise ValueError("not an event: a field has the wrong type or size")


@dataclass(slots=True)  # not frozen, as `Event`
class JournalEntry:
    """An event as stored in the stream.

    Args:
        id: the id in the stream.
        fence: the fence of the claim; 0 without a claim.
        at: when it was appended, by the server's clock.
        message: the broker's message as it was stored, or `None`.
    """

    id: bytes
    event: Event
    fence: int
    at: datetime
    message: bytes | None = None

    @property
    def at_ms(self) -> int:
        """`at` in milliseconds since the epoch."""
        return (self.at - _EPOCH) // _MILLISECOND

    @classmethod
    def read(
        cls,
        id: bytes,  # noqa: A002  # Redis's word
        fields: Mapping[bytes, bytes],
        signatures: EntrySignatures | None,
    ) -> "JournalEntry":
        """Read an event entry; `signatures`: of the store. Raises: ValueError when it is none, or not to be believed."""
        data = fields.get(b"event")
        if data is None:
            raise ValueError("an entry without an event")
        fault = signatures.fault_of(data, "event") if signatures else ""
        event = Event.decode(data)
        if fault and not _is_of_script(event):
            raise ValueError(fault)
        if fields.get(b"refused") == b"1":
            event = replace(event, kind="superseded")
        fence = int(fields.get(b"fence") or 0)
        if not 0 <= fence <= _LARGEST_FENCE:
            raise ValueError("a fence that is out of range")
        at = _at(id, fields) if signatures is None else _at_or_before(id, fields, event)
        message = fields.get(b"message")
        if message is not None and signatures and signatures.is_signed(data):
            message = None  # a signed event has the message that its worker believed; what lay in Redis may be another one by then
        return cls(id, event, fence, at, message)


@dataclass(frozen=True, slots=True)
class AuditJournalEntry:
    """An audit entry as stored in the stream. `at`: the time of the action, by the server's clock."""

    id: bytes
    audit_entry: AuditEntry
    at: datetime

    @classmethod
    def read(
        cls,
        id: bytes,  # noqa: A002
        fields: Mapping[bytes, bytes],
        signatures: EntrySignatures | None,
    ) -> "AuditJournalEntry":
        """Read an audit entry; `signatures`: of the store. Raises: ValueError: the same."""
        if signatures and (fault := signatures.fault_of(fields[b"deed"], "deed")):
            raise ValueError(fault)
        entry = AuditEntry.decode(fields[b"deed"])
        if entry.action.startswith(RESERVED):
            raise ValueError(f"nobody but who has a key of the audit writes the action {entry.action!r}")
        return cls(id, entry, _at(id, fields) if signatures is None else _appended(id, fields))


def read_entry(
    id: bytes,  # noqa: A002
    fields: Mapping[bytes, bytes],
    signatures: EntrySignatures | None,
) -> JournalEntry | AuditJournalEntry:
    """Read an entry of the stream, of either kind. Raises: ValueError: it is neither, or not to be believed."""
    return (AuditJournalEntry if b"deed" in fields else JournalEntry).read(id, fields, signatures)


def _is_of_script(event: Event) -> bool:
    """Whether a script on the server wrote it, which has no key: it says of a tag that its message is gone, and no more (`note_lost`)."""
    gone = FailureText("Lost", "its message is gone from Redis", "", "")
    return event == Event(event.message_id, "lost", queue=event.queue, token=event.token, failure=gone)


def _at_or_before(id: bytes, fields: Mapping[bytes, bytes], event: Event) -> datetime:  # noqa: A002
    """When it was appended, by its id; of an interrupted start, when that had ended: after it began, which is signed."""
    appended = _appended(id, fields)
    began = moment(event.started_at) if event.kind == INTERRUPTED else None
    return appended if began is None else max(began, min(_at(id, fields), appended))


def _appended(id: bytes, fields: Mapping[bytes, bytes]) -> datetime:  # noqa: A002
    """When the entry was appended: the time in its id. If that lies in the future, since somebody forged the stream: the time that the script wrote. If that does, too: now."""
    now = datetime.now(UTC)
    for said in ({}, fields):
        with suppress(ValueError):
            at = _at(id, said)
            if at <= now + LATEST:
                return at
    return now


def _at(id: bytes, fields: Mapping[bytes, bytes]) -> datetime:  # noqa: A002
    milliseconds = int(fields.get(b"at") or id.partition(b"-")[0])
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError as error:
        raise ValueError(f"no time: {milliseconds}") from error


class Journal:
    """The journal of one application."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.key = store.key("journal")
        self.rejected_key = store.key("journal", "rejected")

    def length(self) -> int:
        """How many events wait to be recorded. Raises: RedisError."""
        length: Any = self._store.redis.xlen(self.key)  # redis-py types sync and async as one
        return int(length)

    def age(self) -> float:
        """Seconds, by the server's clock, that the oldest event has waited; 0 when none waits. Raises: RedisError."""
        redis: Any = self._store.redis
        oldest = redis.xrange(self.key, count=1)
        if not oldest:
            return 0.0
        now, micros = redis.time()
        return max(0.0, float(now + micros / 1e6 - int(oldest[0][0].partition(b"-")[0]) / 1000))

    def fault(self, late_after: float = LATE_AFTER) -> str:
        """Why events are late, if one has waited longer than `late_after` seconds; else empty. Raises: RedisError."""
        seconds = self.age()
        if seconds <= late_after:
            return ""
        return (
            f"{self.length()} events are not recorded in SQL yet, the oldest for {seconds:.0f} s: no worker's recorder runs, the "
            "database does not answer, or it takes less than the workers bring; nothing is lost"
        )

    def rejected(self) -> int:
        """How many entries were put aside: SQL cannot store them, or nobody with the keys has written them. Raises: RedisError."""
        length: Any = self._store.redis.llen(self.rejected_key)
        return int(length)

    def signed_with(self, key: str) -> int:
        """How many entries say that a key has signed them. Raises: RedisError."""
        redis: Any = self._store.redis
        count, last = 0, b"-"
        while page := redis.xrange(self.key, min=last, count=PAGE):
            texts = [values.get(b"event") or values.get(b"deed") or b"" for _, values in page]
            count += sum(EntrySignatures.key_of(text) == key for text in texts)
            last = b"(" + page[-1][0]
        return count

    def find(self, message_id: str, *, every: bool = False) -> list[JournalEntry]:
        """The events of a message that are not in SQL yet, newest first, among the last `SEARCHED`.

        It stops at the first one that says how the message stands, unless `every` is set.

        Raises:
            RedisError: it does not answer.
        """
        redis: Any = self._store.redis
        spellings = (json.dumps(message_id, ensure_ascii=one)[1:-1] for one in (True, False))
        written = {
            text.encode() for one in spellings for text in (one, one.replace("/", "\\/"))
        }  # of a Lua script, too
        found: list[JournalEntry] = []
        last = b"+"
        for _ in range(SEARCHED // PAGE):
            page = redis.xrevrange(self.key, max=last, count=PAGE)
            for id_, values in page:
                event = values.get(b"event", b"")
                if not any(one in event for one in written):
                    continue
                with suppress(ValueError):
                    entry = JournalEntry.read(id_, values, self._store.entry_signatures)
                    if entry.event.message_id == message_id:
                        found.append(entry)
                        if entry.event.kind not in ASIDE and not every:
                            return found
            if len(page) < PAGE:
                break
            last = b"(" + page[-1][0]
        return found

    def append(self, events: Sequence[Event]) -> None:
        """Append events of messages without a claim: all or none, even when memory is full. Raises: RedisError."""
        if events:
            self._store.script("journal_events")(
                [self.key], [event.encode(self._store.entry_signatures) for event in events]
            )

    def note(self, audit_entry: AuditEntry) -> None:
        """Append the action of a person; the recorder adds it to the audit. Raises: RedisError."""
        self._store.script("journal_audit_entry")([self.key], [audit_entry.encode(self._store.entry_signatures)])


def position_of(id_: bytes) -> tuple[int, int]:
    """The id of an entry as numbers that can be compared."""
    milliseconds, _, number = id_.partition(b"-")
    return int(milliseconds), int(number or 0)
