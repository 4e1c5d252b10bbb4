"""`self.transaction()`: the effect and its record in one commit, so that the effect happens once."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from conventions.core.forks import end_if_forked
from conventions.idempotency.claim_answers import conflict
from conventions.idempotency.claims import ClaimRequest, EffectExists, TransactionBusy
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import IdempotencyRow

LOCK_TIMEOUT = "10s"
IDLE_TIMEOUT = "60s"
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code of a lock that was not given in time


def as_it_is(value: Any, _key: str) -> Any:
    """The result of an effect, kept as it was given."""
    return value


@contextmanager
def transaction(
    database: Database, request: ClaimRequest, kept_as: Callable[[Any, str], Any] = as_it_is
) -> Iterator[Session]:
    """Record the key first, let the block write, commit both; roll both back when the block raises.

    A result for later duplicates may be stored with `session.info["result"] = value`; `kept_as`: what it is stored as, in the record
    of a key.

    Raises:
        EffectExists: the key is recorded already.
        IdempotencyConflict: it is recorded for another message with other arguments.
        TransactionBusy: another transaction is recording it, or SQLite's one writer did not come to an end in time.
    """
    with Session(database.engine) as session, session.begin():
        now = utc_now()
        rows = [
            IdempotencyRow(
                task=request.task, key_hash=key, fingerprint=fingerprint, message_id=request.message_id, created_at=now
            )
            for key, fingerprint in request.names
        ]
        try:
            if not database.is_sqlite:
                session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'"))
            session.add_all(rows)
            session.flush()
        except IntegrityError:
            session.rollback()
            raise _found(database, request) from None
        except OperationalError as error:
            session.rollback()
            if is_lock_timeout(error.orig):
                raise TransactionBusy from error
            raise
        process = os.getpid()
        try:
            yield session
        except BaseException as error:
            end_if_forked(process, error)  # it would end its parent's transaction
            raise
        end_if_forked(process, None)
        for row in rows:
            row.result = kept_as(session.info.get("result"), row.key_hash)


def _found(database: Database, request: ClaimRequest) -> Exception:
    """What the record that is there means for this job."""
    with database.session(read_only=True) as session:
        rows = [session.get(IdempotencyRow, (request.task, key)) for key, _ in request.names]
        for row in filter(None, rows):
            return recorded(request, row.key_hash, row.message_id, row.fingerprint, row.result)
        return EffectExists(None)


def recorded(request: ClaimRequest, key: str, message_id: str, fingerprint: str, result: Any) -> Exception:
    """What a record means for the job of a request: the effect is there, or the key belongs to another job.

    Args:
        request: the claim of the job.
        key: of the record: one of the names of the job.
        message_id: of the record.
        fingerprint: of the record.
        result: of the record.
    """
    if message_id != request.message_id and (key, fingerprint) not in request.names:
        return conflict(request.task, key, message_id)
    return EffectExists(result)


def is_lock_timeout(driver_error: Any) -> bool:
    """Whether an error of a driver (sqlite3, psycopg 2 or 3) says that a lock was not given in time."""
    state = getattr(driver_error, "sqlstate", None) or getattr(driver_error, "pgcode", None)
    return state == LOCK_NOT_AVAILABLE or "database is locked" in str(driver_error)
