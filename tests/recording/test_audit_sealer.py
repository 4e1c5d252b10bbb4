"""Rows that wait get their place within seconds; heads are told to Redis and the log; a paused recorder makes no fork."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from conventions.core.audit_keys import AuditKeys
from conventions.core.lease_timings import USUAL
from conventions.proof import chain, signed_heads
from conventions.recording.audit_sealer import AuditSealer, kept_heads
from conventions.records.accept_lost_heads import accept, missed_heads
from conventions.records.audit_entry import AuditEntry
from conventions.records.delete_old_audit import purge
from conventions.storage.database import Database, utc_now
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, LONG_AGO, OLD, SIGNED, act, attack, executions, fault, reports, write
from tests.recorded import append, contents, entry, event
from tests.recorder_processes import child, recorded
from tests.support import wait_until


@pytest.fixture
def sealer(store: Store, database: Database) -> AuditSealer:
    """One that leads."""
    store.entry_signatures = SIGNED
    database.row_signatures = lambda: SIGNED
    return AuditSealer(store, lambda: database, KEYS, lambda: True)


def test_a_round(sealer: AuditSealer, store: Store, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """What waits is sealed. The head is in Redis, for a time, and in the log, once while nothing changes."""
    write(database, *executions(1, 5))
    act(database, AuditEntry("ops", "cancel", "m1"))
    sealer.look()
    sealer.look()
    assert [row["number"] for row in contents(database, AuditRow)] == [1]
    found = reports(database)
    told = {head.chain: head for head in kept_heads(store)}
    assert told == {name: one.head for name, one in found.items()}
    assert 0 < store.redis.ttl(store.key("audit", "heads")) <= 90 * 86400
    lines = [record.getMessage() for record in caplog.records if "audit head" in record.getMessage()]
    assert [head for line in lines for head in signed_heads.find(line)] == [told["executions"], told["actions"]]
    assert fault(database, *told.values()) is None


def test_the_last_heads(sealer: AuditSealer, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """When the recorder ends, the log has the ends of the chains as they are then. One that never led says nothing."""
    sealer.finish()
    assert "audit head" not in caplog.text
    write(database, *executions(1, 5))
    sealer.look()
    write(database, *executions(6, 5))
    sealer.look()
    assert "executions:1:10:" not in caplog.text, "there was a line less than ten minutes ago"
    sealer.finish()
    assert "audit head executions:1:10:" in caplog.text


def test_one_that_does_not_lead_does_nothing(store: Store, database: Database) -> None:
    """Its database is not even made."""

    def never() -> Database:
        raise AssertionError

    AuditSealer(store, never, KEYS, lambda: False).look()
    assert kept_heads(store) == []


def test_an_end_that_was_cut_off_is_told(
    sealer: AuditSealer, store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The next recorder that leads compares SQL with Redis; the audit has it, and goes on."""
    write(database, *executions(1, 5))
    sealer.look()
    before = kept_heads(store)
    attack(
        database,
        "DELETE FROM conventions_executions WHERE number > 2",
        "DELETE FROM conventions_audit_segments WHERE chain = 'executions' AND number > 0",
    )
    AuditSealer(store, lambda: database, KEYS, lambda: True).look()
    assert "the audit in SQL is not what was sealed" in caplog.text
    (row,) = contents(database, AuditRow)
    assert (row["action"], row["target"], row["before"]) == ("audit cut", "executions", str(before[0]))
    found = fault(database, *before)
    assert found is not None
    assert found.what == "cut"


@pytest.mark.parametrize("all_of_it", [True, False])
def test_an_end_that_is_cut_off_under_a_sealer(
    sealer: AuditSealer, database: Database, caplog: pytest.LogCaptureFixture, all_of_it: bool
) -> None:
    """It says so at its next look, before it tells the new end: also where other rows stand there already."""
    write(database, *executions(1, 5))
    attack(database, "CREATE TABLE before AS SELECT * FROM conventions_audit_segments WHERE chain = 'executions'")
    write(database, *executions(6, 5))
    sealer.look()
    attack(
        database,
        "DELETE FROM conventions_executions WHERE number > 5",
        "DELETE FROM conventions_audit_segments WHERE chain = 'executions'",
    )
    if all_of_it:
        attack(database, "DELETE FROM conventions_executions")
    else:
        attack(database, "INSERT INTO conventions_audit_segments SELECT * FROM before")
        write(database, *executions(21, 7))
    sealer.look()
    sealer.look()
    assert caplog.text.count("is not what was sealed") == 1
    (row,) = contents(database, AuditRow)
    assert (row["action"], row["target"], row["number"]) == ("audit cut", "executions", 1)


def cut_off(sealer: AuditSealer, database: Database) -> str:
    """Take the last five of ten rows away, with an end of before; returns the head that was told of them."""
    write(database, *executions(1, 5))
    attack(database, "CREATE TABLE before AS SELECT * FROM conventions_audit_segments WHERE number = 1")
    write(database, *executions(6, 5))
    sealer.look()
    head = reports(database)["executions"].head
    attack(
        database,
        "DELETE FROM conventions_executions WHERE number > 5",
        "DELETE FROM conventions_audit_segments WHERE number = 1",
        "INSERT INTO conventions_audit_segments SELECT * FROM before",
    )
    return str(head)


def test_a_row_that_is_away_while_the_sealer_looks(
    sealer: AuditSealer, store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A gap excuses nothing: only a sealed action says that rows were deleted by right."""
    cut_off(sealer, database)
    write(database, *executions(21, 7))
    attack(
        database,
        "CREATE TABLE held AS SELECT * FROM conventions_executions WHERE number = 12",
        "DELETE FROM conventions_executions WHERE number = 12",
    )
    sealer.look()
    attack(database, "INSERT INTO conventions_executions SELECT * FROM held")
    sealer.look()
    assert caplog.text.count("is not what was sealed") == 1
    found = fault(database, *kept_heads(store))
    assert found is not None
    assert "a head of before" in found.text


def test_rows_that_were_deleted_by_right_are_no_cut(
    sealer: AuditSealer, database: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealer that comes back after a clean-up finds the end that it knows within what was deleted."""
    monkeypatch.setattr(chain, "MOST_ROWS", 5)
    write(database, *executions(1, 3))
    sealer.look()
    write(database, *executions(4, 9))
    assert purge(database, KEYS, utc_now() + timedelta(hours=1), LONG_AGO).executions == 12
    write(database, *executions(21, 2))
    sealer.look()
    assert "is not what was sealed" not in caplog.text
    assert fault(database) is None


def test_a_cut_is_a_fault_until_somebody_says_why(sealer: AuditSealer, store: Store, database: Database) -> None:
    """The sealer goes on from what is there, and the audit still says what was lost."""
    cut_off(sealer, database)
    sealer.look()
    assert [head.last for head in kept_heads(store) if head.chain == "executions"] == [5]
    found = fault(database)
    assert found is not None
    assert (found.what, "rows 6 to 10 were cut off" in found.text) == ("cut", True)
    accept(database, KEYS, missed_heads(database, KEYS, [], SIGNED), by="ops", reason="restored")
    assert fault(database) is None


def test_a_head_that_is_told_again(sealer: AuditSealer, store: Store, database: Database) -> None:
    """Somebody who has Redis alone makes no row of the audit with each leader."""
    old = cut_off(sealer, database)
    sealer.look()
    rows = len(contents(database, AuditRow))
    for _ in range(2):
        store.redis.hset(store.key("audit", "heads"), "executions", old)
        AuditSealer(store, lambda: database, KEYS, lambda: True).look()
    assert len(contents(database, AuditRow)) == rows == 1


@pytest.mark.parametrize("value", ["9" * 401, "[" + "9" * 4400 + "]"])
def test_a_row_that_cannot_be_read_stops_nobody(
    sealer: AuditSealer, store: Store, database: Database, value: str
) -> None:
    """It is named; what waits beside it is sealed, and heads are told."""
    act(database, AuditEntry("ops", "cancel", "m1"))
    attack(
        database,
        "INSERT INTO conventions_audit (id, at, actor, action, target, before, after, code) VALUES "
        f"('p', '2026-11-01 00:00:00+00:00', 'u-1', 'cancel', 'm2', 'null', '{value}', 'x')",
    )
    sealer.look()
    assert [head.chain for head in kept_heads(store)] == ["actions"]
    found = fault(database)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "p")
    attack(database, "DELETE FROM conventions_audit WHERE id = 'p'")
    assert fault(database) is None
    assert reports(database)["actions"].rows == 1


def test_an_id_that_is_no_text(sealer: AuditSealer, store: Store, database: Database) -> None:
    """SQLite takes any bytes for one."""
    if not database.is_sqlite:
        pytest.skip("only SQLite takes it")
    act(database, AuditEntry("ops", "cancel", "m1"))
    attack(
        database,
        "INSERT INTO conventions_audit (id, at, actor, action, target, before, after) VALUES "
        "(CAST(x'ff' AS TEXT), '2026-11-01 00:00:00+00:00', 'u-1', 'cancel', 'm2', 'null', 'null')",
    )
    sealer.look()
    assert [head.chain for head in kept_heads(store)] == ["actions"]
    assert fault(database) is not None


def test_an_end_that_somebody_has_written(
    sealer: AuditSealer, store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told to nobody: what was told before stays."""
    write(database, *executions(1, 5))
    sealer.look()
    before = kept_heads(store)
    attack(database, "UPDATE conventions_audit_segments SET last = 4000 WHERE number = 1")
    sealer.look()
    assert kept_heads(store) == before
    assert "is not what was sealed" not in caplog.text


def test_what_somebody_puts_in_the_place_of_heads(sealer: AuditSealer, store: Store, database: Database) -> None:
    """It keeps nothing from being sealed."""
    store.redis.set(store.key("audit", "heads"), "x")
    act(database, AuditEntry("ops", "cancel", "m1"))
    sealer.look()
    assert [head.chain for head in kept_heads(store)] == ["actions"]


def test_a_forged_head_is_not_believed(
    sealer: AuditSealer, store: Store, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever writes to Redis alone makes no alarm in the log."""
    write(database, *executions(1, 5))
    sealer.look()
    (head,) = kept_heads(store)
    store.redis.hset(store.key("audit", "heads"), "executions", str(replace(head, last=99)))
    AuditSealer(store, lambda: database, KEYS, lambda: True).look()
    assert "is not what was sealed" not in caplog.text


def test_a_chain_of_another_key_is_said(store: Store, database: Database) -> None:
    """With what to do."""
    act(database, AuditEntry("ops", "cancel", "m1"))
    store.entry_signatures = SIGNED
    AuditSealer(store, lambda: database, AuditKeys.parse(OLD), lambda: True).look()
    act(database, AuditEntry("ops", "cancel", "m2"))
    with pytest.raises(Exception, match="sealed last with the key old"):
        AuditSealer(store, lambda: database, KEYS, lambda: True).look()


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process that does nothing for a while."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.processes
def test_a_recorder_that_was_paused_beyond_its_lease(store: Store, database: Database) -> None:
    """It comes back to a chain that has gone on, and goes on with that."""
    timings = replace(USUAL, recorder_lead=1.0, abandoned_after=0.5)
    with child(store, database, timings=timings, audit_keys=KEYS) as first:
        append(store, *(entry(event(f"a{one}")) for one in range(20)))
        wait_until(lambda: recorded(database) == 20)
        with stopped(first):
            append(store, *(entry(event(f"b{one}")) for one in range(20)))
            with child(store, database, timings=timings, audit_keys=KEYS) as second:
                wait_until(lambda: recorded(database) == 40)
                os.kill(second.pid, signal.SIGKILL)
        append(store, *(entry(event(f"c{one}")) for one in range(20)))
        wait_until(lambda: recorded(database) == 60)
    found = reports(database)["executions"]
    assert (found.fault, found.rows, found.last) == (None, 60, 60)


@pytest.mark.processes
def test_a_recorder_that_was_paused_with_the_lock(
    store: Store, migrated_postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PostgreSQL ends its transaction after a while, so the next one goes on; the paused one writes what it had again, and makes no fork."""
    database = Database(migrated_postgres_url)
    monkeypatch.setattr(chain, "IDLE", 1.0)
    timings = replace(USUAL, recorder_lead=1.0, abandoned_after=0.5)
    begun = tmp_path / "begun"
    original = chain.Chain.number

    def slow(self: chain.Chain, rows: list[dict[str, object]]) -> None:
        original(self, rows)
        if not begun.exists():
            begun.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    with monkeypatch.context() as patch:
        patch.setattr(chain.Chain, "number", slow)
        first_child = child(store, database, timings=timings, audit_keys=KEYS)
        first = first_child.__enter__()
    try:
        append(store, *(entry(event(f"a{one}")) for one in range(20)))
        wait_until(begun.exists)
        wait_until(lambda: first.status() == psutil.STATUS_STOPPED)
        with child(store, database, timings=timings, audit_keys=KEYS) as second:
            wait_until(lambda: recorded(database) == 20)
            os.kill(first.pid, signal.SIGCONT)
            append(store, *(entry(event(f"b{one}")) for one in range(20)))
            wait_until(lambda: recorded(database) == 40)
            assert second.is_running()
        append(store, *(entry(event(f"c{one}")) for one in range(20)))
        wait_until(lambda: recorded(database) == 60)
    finally:
        first_child.__exit__(None, None, None)
    found = reports(database)["executions"]
    assert (found.fault, found.rows, found.last) == (None, 60, 60)
    with database.session(read_only=True) as session:
        assert session.scalar(text("SELECT count(*) FROM conventions_audit_segments WHERE chain = 'executions'")) == 2
    database.dispose()


def test_the_sealer_says_once_that_it_cannot(
    sealer: AuditSealer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """SQL does not answer: the rows wait, and recording is another matter."""
    caplog.set_level(logging.INFO)
    attack(database, "DROP TABLE conventions_audit_segments")
    with pytest.raises(Exception, match="conventions_audit_segments"):
        sealer.look()
