"""`self.transaction(using=...)`: the effect by Django's ORM and its record in one commit, so that the effect happens once."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import OperationalError, connections
from django.db import transaction as django_transaction

from conventions.core.errors import PayloadError, TransactionRefused, TransactionRolledBack
from conventions.core.forks import end_if_forked
from conventions.declare.arguments_as_json import encode_result
from conventions.django.database_address import moment_for, place_fault
from conventions.django.sql_statements import ending_word
from conventions.django.write_guard import refusing_writes
from conventions.idempotency.claims import ClaimRequest, TransactionBusy
from conventions.idempotency.transactions import IDLE_TIMEOUT, LOCK_TIMEOUT, as_it_is, is_lock_timeout, recorded
from conventions.library_internals.django import forget_on_commit, is_in_testcase, waits_for_commit
from conventions.storage.database import Database
from conventions.storage.tables import IdempotencyRow

_TABLE = IdempotencyRow.__tablename__
_INSERT = (
    f"INSERT INTO {_TABLE} (task, key_hash, fingerprint, message_id, created_at) VALUES (%s, %s, %s, %s, %s) "  # noqa: S608  # a constant
    "ON CONFLICT DO NOTHING"
)
_SELECT = f"SELECT message_id, fingerprint, CAST(result AS TEXT) FROM {_TABLE} WHERE task = %s AND key_hash = %s"  # noqa: S608  # the same
_UPDATE = f"UPDATE {_TABLE} SET result = %s WHERE task = %s AND key_hash = %s"  # noqa: S608  # the same


class EffectRecord:
    """What the block gets.

    Attributes:
        result: JSON that later duplicates of this job get as its result.
    """

    def __init__(self) -> None:
        self.result: Any = None


class _Mark:
    """Called by Django when the transaction has committed."""

    def __init__(self) -> None:
        self.is_committed = False

    def __call__(self) -> None:
        self.is_committed = True


@contextmanager
def transaction(
    using: str,
    database: Database,
    request: ClaimRequest,
    result_limit: int,
    kept_as: Callable[[Any, str], Any] = as_it_is,
) -> Iterator[EffectRecord]:
    """Record the key first, let the block write by Django's connection, commit both; roll both back when the block raises.

    Args:
        using: the alias of the database.
        database: where our tables are.
        request: the claim of the job.
        result_limit: bytes of JSON.
        kept_as: what the result is stored as, in the record of a key.

    Raises:
        TransactionRefused: the record cannot be committed with the block's writes; nothing is committed.
        TransactionRolledBack: the block has ended, and its transaction was rolled back, as by `set_rollback`.
        PayloadError: the result is too large, or no JSON; nothing is committed.
        EffectExists: the key is recorded already.
        IdempotencyConflict: it is recorded for another message with other arguments.
        TransactionBusy: another transaction is recording it, or SQLite's one writer did not come to an end in time.
    """
    connection: Any = connections[using] if using in connections.settings else None
    if fault := _fault(using, connection, database):
        raise TransactionRefused(f"self.transaction(using={using!r}): {fault}")
    in_testcase, mark = is_in_testcase(connection), _Mark()
    with ExitStack() as stack:
        with _busy_in_time():  # SQLite begins as a writer
            stack.enter_context(django_transaction.atomic(using=using, durable=True))
        django_transaction.on_commit(mark, using=using)  # the first one, so that no other can keep it from being called
        record = EffectRecord()
        _insert(connection, request, is_alone=not in_testcase)
        begun, process = _transaction_of(connection), os.getpid()
        try:
            with connection.execute_wrapper(_same_transaction(connection)), refusing_writes(using):
                yield record
        except BaseException as error:
            end_if_forked(process, error)  # it would end its parent's transaction
            raise
        end_if_forked(process, None)
        if not connection.needs_rollback and not connection.closed_in_transaction:
            results = {key: kept_as(record.result, key) for key, _ in request.names}
            _write_results(connection, request, results, result_limit, begun)
    # In a TestCase nothing is committed, but what waits for the commit shows whether the block's savepoint was rolled back.
    kept = in_testcase and waits_for_commit(connection, mark)
    if in_testcase:
        forget_on_commit(connection, mark)
    if not mark.is_committed and not kept:
        raise TransactionRolledBack(
            f"self.transaction(using={using!r}): the block has ended, but its transaction was rolled back (set_rollback, or a lost "
            "connection): nothing of it is committed. Raise an error in the block to say why"
        )


def _same_transaction(connection: Any) -> Callable[..., Any]:
    """Refuses what would end the transaction within the block, and what is written by a connection that was opened anew."""
    own = connection.connection

    def wrapper(
        execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:  # Django's signature
        if connection.connection is not own:
            raise TransactionRefused(
                f"the connection {connection.alias!r} was closed and opened again within self.transaction(): what it writes would be "
                "committed without the record. Do not close it there"
            )
        if word := ending_word(sql):
            raise TransactionRefused(
                f"{word} within self.transaction(using={connection.alias!r}), which begins and ends its transaction itself: raise an "
                "error to roll it back, and use an inner atomic() for a part of it"
            )
        return execute(sql, params, many, context)

    return wrapper


def _transaction_of(connection: Any) -> Any:
    """What tells this transaction from another one."""
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT txid_current()")
        return cursor.fetchone()[0]


def _write_results(connection: Any, request: ClaimRequest, results: Mapping[str, Any], limit: int, begun: Any) -> None:
    """Write the result into the record of each key, which must be that of this transaction.

    Raises:
        PayloadError: the result is too large, or no JSON.
        TransactionRefused: somebody has ended the transaction, by the driver's own connection.
    """
    try:
        written = {
            key: None if result is None else encode_result(request.task, result, limit).decode()
            for key, result in results.items()
        }
    except (TypeError, ValueError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"{request.task}: record.result must be JSON ({error})") from error
    with connection.cursor() as cursor:
        found = 0
        for key, text in written.items():
            cursor.execute(_UPDATE, (text, request.task, key))
            found += cursor.rowcount
    if found != len(written) or _transaction_of(connection) != begun or not _is_open(connection):
        raise TransactionRefused(
            f"{request.task}: the transaction was ended within self.transaction(), by the driver's own connection; what was written "
            "before that may be committed, and what was written after it may be, too"
        )


def _is_open(connection: Any) -> bool:
    return connection.vendor != "sqlite" or bool(connection.connection.in_transaction)


def _fault(using: str, connection: Any, database: Database) -> str | None:
    """Why the record and the writes of the block would not be committed together; `None` where they would."""
    return place_fault(using, database) or _fault_of_state(connection) or _fault_of_sqlite(connection)


def _fault_of_state(connection: Any) -> str | None:
    if connection.in_atomic_block and not is_in_testcase(connection):
        return "an atomic block is open around it, which would decide whether it is committed; begin no atomic block before it"
    if not connection.in_atomic_block and not connection.get_autocommit():
        return "AUTOCOMMIT is off, so that nothing here would commit; turn it on"
    return None


def _fault_of_sqlite(connection: Any) -> str | None:
    mode = str(connection.settings_dict.get("OPTIONS", {}).get("transaction_mode"))
    if connection.vendor != "sqlite" or mode.upper() == "IMMEDIATE" or is_in_testcase(connection):
        return None
    return 'two writers at once would fail: write "OPTIONS": {"transaction_mode": "IMMEDIATE"} into DATABASES'


def _insert(connection: Any, request: ClaimRequest, *, is_alone: bool) -> None:
    moment = moment_for(connection, datetime.now(UTC))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and is_alone:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'")
        for key, fingerprint in request.names:
            with _busy_in_time():
                cursor.execute(_INSERT, (request.task, key, fingerprint, request.message_id, moment))
            if cursor.rowcount != 1:
                cursor.execute(_SELECT, (request.task, key))
                message_id, of_record, result = cursor.fetchone()
                raise recorded(request, key, message_id, of_record, None if result is None else json.loads(result))


@contextmanager
def _busy_in_time() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if is_lock_timeout(error.__cause__):
            raise TransactionBusy from error
        raise
