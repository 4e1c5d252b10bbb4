"""Where a payload key is still named: messages, claims, batches, letters and the rest, each by what it holds (R21)."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from conventions.broker.codec import SEALED_TYPE, bytes_of
from conventions.core.sealed_mark import MARK
from conventions.sealing.aes_gcm import key_in
from conventions.storage.redis_store import Store

if TYPE_CHECKING:
    from conventions.storage.database import Database

AUDIT = "audit"  # which outlives all else
AT_ONCE = 500  # keys of Redis in one round trip, and rows of SQL in memory
HEAD = 28  # characters of base64 that hold the name of a key: 2 + 16 bytes, and some
_TEXT = re.compile(re.escape(MARK.encode()) + rb"([A-Za-z0-9+/]{%d})" % HEAD)
_BODY = re.compile(rb'"body": ?"([A-Za-z0-9+/]{%d})' % HEAD)
_OF_CELERY = ("celery-task-meta-*", "celery-taskset-meta-*")


def keys_in(text: bytes) -> Iterator[str]:
    """The names of the keys in what is kept: a message as kombu writes it, or anything with sealed texts."""
    found = _TEXT.findall(text)
    if SEALED_TYPE.encode() in text:
        found += _BODY.findall(text)
    for one in found:
        if name := key_in(bytes_of(one.decode())):
            yield name


def in_redis(store: Store) -> Counter[tuple[str, str]]:
    """How often each key is named in a server, by the key's name and the kind of what names it, such as `claim`. Raises: RedisError."""
    counted: Counter[tuple[str, str]] = Counter()
    for pattern in (store.key("*"), *_OF_CELERY):
        for some in _parts(store.redis.scan_iter(match=pattern, count=AT_ONCE)):
            for name, values in zip(some, _values(store.redis, some), strict=True):
                for key in {key for value in values for key in keys_in(value)}:
                    counted[key, _kind(store, name)] += 1
    return counted


def in_sql(database: "Database") -> Counter[tuple[str, str]]:
    """The same of the tables. Raises: SQLAlchemyError."""
    from sqlalchemy import String, cast, or_, select  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.tables import AttemptLogRow, AuditRow, DeadLetterRow, IdempotencyRow, OutboxRow  # noqa: PLC0415  # the same

    places = {
        "letter": (DeadLetterRow.message,),
        "outbox": (OutboxRow.arguments, OutboxRow.options),
        "effect": (IdempotencyRow.result,),
        "log": (AttemptLogRow.lines,),
        AUDIT: (AuditRow.before, AuditRow.after),
    }
    counted: Counter[tuple[str, str]] = Counter()
    with database.session(read_only=True) as session:
        for kind, columns in places.items():
            texts = [cast(column, String) for column in columns]
            marked = [one.contains(mark, autoescape=True) for one in texts for mark in (MARK, SEALED_TYPE)]
            for row in session.execute(select(*texts).where(or_(*marked)).execution_options(yield_per=AT_ONCE)):
                for key in {key for text in row if text is not None for key in keys_in(text.encode(errors="replace"))}:
                    counted[key, kind] += 1
    return counted


def _parts(names: Iterator[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    for name in names:
        part.append(name)
        if len(part) == AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _values(redis: Any, names: Sequence[bytes]) -> Iterator[list[bytes]]:
    """All that each holds. What is gone since holds nothing."""
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.type(name)
        types = pipe.execute()
    with redis.pipeline(transaction=False) as pipe:
        for name, kind in zip(names, types, strict=True):
            match kind:
                case b"string":
                    pipe.get(name)
                case b"hash":
                    pipe.hvals(name)
                case b"list":
                    pipe.lrange(name, 0, -1)
                case b"zset":
                    pipe.zrange(name, 0, -1)
                case b"stream":
                    pipe.xrange(name)
                case _:  # no other kind holds anything sealed
                    pipe.ping()
        for found in pipe.execute(raise_on_error=False):
            yield [*_texts(found)]


def _texts(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


def _kind(store: Store, name: bytes) -> str:
    text, prefix = name.decode(errors="replace"), store.key("")
    return text.removeprefix(prefix).partition(":")[0] if text.startswith(prefix) else "result"
