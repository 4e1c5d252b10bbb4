"""One order of all rows, whoever writes them: no number twice, none left out, and no fork."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from conventions.core.audit_keys import AuditKeys
from conventions.core.error_text import FailureText
from conventions.core.errors import ConfigurationError
from conventions.proof import chain, waiting_rows
from conventions.proof.chain import Chain
from conventions.proof.proven_tables import ACTIONS, EXECUTIONS
from conventions.records.audit_entry import AuditEntry
from conventions.records.journal import AuditJournalEntry
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import AuditRow, ExecutionRow, SegmentRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, NEW, OLD, SIGNED, act, acts, attack, executions, fault, reports, seal, write


def numbers(database: Database, table: type[ExecutionRow | AuditRow] = ExecutionRow) -> list[int | None]:
    """The numbers of the rows, in order."""
    with database.session(read_only=True) as session:
        return list(session.scalars(select(table.number).order_by(table.number)))


def segments(database: Database, name: str = "executions") -> list[tuple[int, int, int, str]]:
    """Number, first, last and key of each segment."""
    row = SegmentRow
    with database.session(read_only=True) as session:
        query = select(row.number, row.first, row.last, row.key).where(row.chain == name).order_by(row.number)
        return [(number, first, last, key) for number, first, last, key in session.execute(query)]


def test_events_that_are_read_again_get_no_number(database: Database) -> None:
    """A recorder that died before it removed them from the journal leaves no gap: also where new ones are among them."""
    write(database, *executions(1, 10), *acts(1, 2))
    write(database, *executions(4, 10), *acts(2, 2))
    write(database, *executions(4, 10), *acts(1, 3))
    assert numbers(database) == list(range(1, 14))
    assert numbers(database, AuditRow) == [1, 2, 3]
    assert fault(database) is None


def test_two_recorders_at_once(database: Database) -> None:
    """Both believe that they lead, and write the same and other events."""
    faults: list[BaseException] = []

    def record(first: int) -> None:
        try:
            for start in range(first, first + 60, 5):
                write(database, *executions(start, 10), *acts(start, 1))
                act(database, AuditEntry("ops", "cancel", f"m{start}"))
                seal(database)
        except BaseException as error:  # noqa: BLE001  # told below
            faults.append(error)

    threads = [threading.Thread(target=record, args=(first,)) for first in (0, 31)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    seal(database)
    there = numbers(database)
    assert there == list(range(1, len(there) + 1))
    assert fault(database) is None


def test_a_transaction_that_is_given_up_leaves_nothing(database: Database) -> None:
    """Neither a number nor a hash."""
    write(database, *executions(1, 3))

    def give_up() -> None:
        with database.session() as session:
            Chain(session, EXECUTIONS, KEYS).number([{"id": "x", "actor": "u-1", "ended_at": utc_now()}])
            raise LookupError

    with pytest.raises(LookupError):
        give_up()
    write(database, *executions(4, 3))
    assert numbers(database) == [1, 2, 3, 4, 5, 6]
    assert fault(database) is None


def test_a_segment_ends_after_so_many_rows_and_after_a_day(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one goes on where it ends."""
    monkeypatch.setattr(chain, "MOST_ROWS", 4)
    write(database, *executions(1, 9))
    assert [one[:3] for one in segments(database)] == [(0, 1, 0), (1, 1, 4), (2, 5, 8), (3, 9, 9)]
    monkeypatch.setattr(chain, "LONGEST", timedelta(0))
    write(database, *executions(10, 1))
    assert segments(database)[-1][:3] == (4, 10, 10)
    assert fault(database) is None


def test_keys_change(database: Database) -> None:
    """A segment has one key. The old key verifies what it has sealed; without it that is said."""
    write(database, *executions(1, 3), keys=AuditKeys.parse(OLD))
    both = AuditKeys.parse(f"{NEW},{OLD}")
    write(database, *executions(4, 3), keys=both)
    assert [one[3] for one in segments(database)] == ["old", "old", "new"]
    assert fault(database, keys=both) is None
    found = fault(database)
    assert found is not None
    assert (found.what, "key old" in found.text) == ("key missing", True)


def test_a_key_that_is_not_here(database: Database) -> None:
    """What happens is recorded all the same, and waits until the key is there. The sealer says what to do."""
    database.row_signatures = lambda: SIGNED
    write(database, *executions(1, 3), keys=AuditKeys.parse(OLD))
    write(database, *executions(4, 3))
    assert numbers(database).count(None) == 3
    with pytest.raises(ConfigurationError, match="sealed last with the key old"):
        seal(database)
    both = AuditKeys.parse(f"{NEW},{OLD}")
    assert seal(database, both) == 3
    assert fault(database, keys=both) is None


def test_a_release_before_the_chain_still_writes(database: Database) -> None:
    """For a day at most, in which its processes are replaced: its rows prove nothing. After that nobody writes so."""
    database.row_signatures = lambda: SIGNED
    write(database, *executions(1, 3))
    now = utc_now()
    write(database, *executions(4, 2, at=now), *executions(6, 1, at=now + timedelta(days=2)), keys=None)
    attack(database, "UPDATE conventions_executions SET code = NULL WHERE number IS NULL")
    assert seal(database) == 0
    assert numbers(database) == [waiting_rows.NOT_BELIEVED, 0, 0, 1, 2, 3]
    found = reports(database)["executions"]
    assert found.fault is not None
    assert (found.fault.what, found.unproven) == ("inserted", 2)
    attack(database, "DELETE FROM conventions_executions WHERE number < 0")
    assert fault(database) is None


def test_a_recorder_without_keys(database: Database) -> None:
    """What it writes waits for one that has some."""
    database.row_signatures = lambda: SIGNED
    write(database, *executions(8, 2))
    write(database, *executions(1, 7), *acts(1, 2), keys=None)
    assert numbers(database).count(None) == 7
    found = reports(database)["executions"]
    assert (found.fault, found.waiting) == (None, 7)
    assert seal(database) == 9
    assert sorted(number or 0 for number in numbers(database)) == list(range(1, 10))
    assert fault(database) is None


def test_a_recorder_without_keys_before_the_chain(database: Database) -> None:
    """Its executions are older than the chain, and not signed: nobody may ever seal them. They prove nothing, and are no fault."""
    database.row_signatures = lambda: SIGNED
    write(database, *executions(1, 4), *acts(1, 2), keys=None)
    with database.session(read_only=True) as session:
        assert session.scalars(select(ExecutionRow.code)).all() == [None] * 4
    assert reports(database)["executions"].fault is None
    write(database, *executions(5, 2))
    assert seal(database) == 2  # the actions, which are few, and signed
    assert numbers(database) == [0, 0, 0, 0, 1, 2]
    found = reports(database)["executions"]
    assert (found.fault, found.unproven, found.rows) == (None, 4, 2)


def test_rows_of_before_the_chain(database: Database) -> None:
    """They prove nothing, and are no fault."""
    write(database, *executions(1, 3), keys=None)
    attack(database, "UPDATE conventions_executions SET number = 0")
    write(database, *executions(4, 3))
    found = reports(database)["executions"]
    assert (found.fault, found.unproven, found.rows) == (None, 3, 3)


def test_an_unsealed_row_is_reported_with_its_age(database: Database) -> None:
    """So that somebody sees that nobody seals."""
    act(database, AuditEntry("ops", "cancel", "m1"))
    found = reports(database)["actions"]
    assert found.waits_since is not None
    assert abs(found.waits_since - utc_now()) < timedelta(minutes=5)


def test_more_rows_wait_than_go_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody believes hold up nobody."""
    monkeypatch.setattr(waiting_rows, "AT_ONCE", 3)
    act(database, *(AuditEntry("ops", "cancel", f"m{one}") for one in range(8)))
    attack(database, "UPDATE conventions_audit SET code = 'k1.x' WHERE target IN ('m0', 'm1', 'm2', 'm3')")
    assert seal(database) == 4
    assert numbers(database, AuditRow) == [-1, -1, -1, -1, 1, 2, 3, 4]


def test_a_row_of_a_key_that_comes_later(database: Database) -> None:
    """It waits aside until then."""
    act(database, AuditEntry("ops", "cancel", "m1"))
    attack(database, "UPDATE conventions_audit SET code = 'gone.' || substr(code, 4)")
    assert seal(database) == 0
    assert numbers(database, AuditRow) == [waiting_rows.OF_ANOTHER_KEY]
    with database.session() as session:
        waiting_rows.forgive(session, ACTIONS)
    attack(database, "UPDATE conventions_audit SET code = 'k1.' || substr(code, 6)")
    assert seal(database) == 1


TEXT = st.text(max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.sampled_from([UTC]))  # noqa: DTZ001  # hypothesis wants them so

NAMES = st.none() | TEXT
ROWS = st.fixed_dictionaries(
    {
        "event": st.fixed_dictionaries(
            {"actor": TEXT.filter(bool), "runtime": st.none() | st.floats() | st.integers(0, 10**6)}
            | dict.fromkeys(("task", "queue", "key", "worker", "release"), NAMES)
        ),
        "failure": st.none() | st.builds(FailureText, TEXT, TEXT, TEXT, TEXT),
        "action": st.tuples(TEXT, st.just("act"), TEXT, NAMES, VALUES, VALUES),
        "at": MOMENTS,
    }
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_row_fits_when_it_is_read_again(database: Database, data: Any) -> None:
    """Whatever its fields hold: SQL gives back what the code covers."""
    attack(database, *(f"DELETE FROM conventions_{name}" for name in ("executions", "audit", "audit_segments")))
    drawn = data.draw(ROWS)
    (entry,) = executions(1, 1)
    event = replace(entry.event, **drawn["event"], failure=drawn["failure"])
    deed = AuditJournalEntry(b"1-1", AuditEntry(*drawn["action"]), drawn["at"])
    write(database, replace(entry, event=event, at=drawn["at"]), deed)
    assert fault(database) is None
