"""What is old is deleted, and what names a person is erased: the chains still fit, and nothing else passes for it."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from conventions.core.errors import BusinessError
from conventions.proof import chain
from conventions.proof.names_in_text import Replacement
from conventions.records import delete_old_audit as purge_module
from conventions.records.audit_entry import AuditEntry
from conventions.records.delete_old_audit import Deleted, purge
from conventions.records.erase_actor import Erased, erase
from conventions.records.journal import Journal
from conventions.storage.database import Database, utc_now
from conventions.storage.redis_store import Store
from conventions.storage.tables import (
    ActorRoleRow,
    ActorSaltRow,
    AttemptLogRow,
    AuditRow,
    Base,
    DeadLetterRow,
    ExecutionRow,
    GroupNoteRow,
    SegmentRow,
)
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, LONG_AGO, SIGNED, act, acts, attack, executions, fault, reports, seal, write
from tests.recorded import recorder, rejected

NOW = LONG_AGO + timedelta(days=20)


@pytest.fixture
def aged(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Segments of five rows: ten old executions and five old actions, and as many of now."""
    monkeypatch.setattr(chain, "MOST_ROWS", 5)
    clock = [LONG_AGO]
    monkeypatch.setattr(chain.Chain.__init__, "__kwdefaults__", {"now": lambda: clock[0]})
    write(database, *executions(1, 5), *acts(1, 5))
    write(database, *executions(6, 5))
    clock[0] = NOW
    write(database, *executions(11, 10, at=NOW), *acts(6, 5, at=NOW))
    database.row_signatures = lambda: SIGNED
    return database


def count(database: Database, table: type[Base]) -> int:
    """How many rows it has."""
    with database.session(read_only=True) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def texts(database: Database) -> str:
    """All that all tables have, as text."""
    found = []
    with database.session(read_only=True) as session:
        for table in Base.metadata.sorted_tables:
            found += [str(tuple(row)) for row in session.execute(select(table))]
    return "\n".join(found)


def test_whole_segments_go_and_their_headers_stay(aged: Database) -> None:
    """Each table has an age of its own; the audit says what went, also before that has its place."""
    limit = NOW - timedelta(days=1)
    assert purge(aged, KEYS, limit, LONG_AGO, batch=3) == Deleted(10, 0)
    assert (count(aged, ExecutionRow), count(aged, AuditRow)) == (10, 11)
    assert fault(aged) is None
    seal(aged)
    found = reports(aged)["executions"]
    assert (found.fault, found.rows, found.purged, found.segments) == (None, 10, 2, 4)
    assert purge(aged, KEYS, limit, limit) == Deleted(0, 5)
    seal(aged)
    assert {name: (one.fault, one.purged) for name, one in reports(aged).items()} == {
        "executions": (None, 2),
        "actions": (None, 1),
    }
    assert count(aged, SegmentRow) == 5 + 4
    assert purge(aged, KEYS, limit, limit) == Deleted(0, 0)


def test_a_segment_with_one_young_row_stays_whole(aged: Database) -> None:
    """Its rows go together."""
    assert purge(aged, KEYS, LONG_AGO + timedelta(seconds=8), LONG_AGO) == Deleted(5, 0)
    assert fault(aged) is None


def test_a_purge_that_was_stopped(aged: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of a segment are gone: that is no fault, and the next purge takes the rest."""
    limit = NOW - timedelta(days=1)
    monkeypatch.setattr(purge_module, "_delete", lambda *_: 0)
    purge(aged, KEYS, limit, limit)
    monkeypatch.undo()
    attack(aged, "DELETE FROM conventions_executions WHERE number IN (2, 3)")
    assert fault(aged) is None
    assert purge(aged, KEYS, limit, limit) == Deleted(8, 5)
    assert fault(aged) is None


def test_rows_that_went_without_a_purge_are_missed_after_one(aged: Database) -> None:
    """A purge explains its own segments alone."""
    purge(aged, KEYS, NOW - timedelta(days=1), NOW - timedelta(days=1))
    attack(aged, "DELETE FROM conventions_executions WHERE number = 13")
    found = fault(aged)
    assert found is not None
    assert "row 13 was" in found.text


def test_a_person_who_is_named_as_a_chain(aged: Database) -> None:
    """What an action says of the chains is not of a person, and stays when one is erased."""
    write(aged, *executions(40, 1, "executions", at=NOW))
    purge(aged, KEYS, NOW - timedelta(days=1), LONG_AGO)
    erase(aged, KEYS, "executions", by="officer", reason="asked by executions", believed=SIGNED)
    assert fault(aged) is None


def test_a_purge_that_nobody_with_a_key_has_made(aged: Database) -> None:
    """A forged action explains nothing."""
    attack(
        aged,
        "DELETE FROM conventions_executions WHERE number <= 15",
        "INSERT INTO conventions_audit (id, at, actor, action, target, before, after) VALUES "
        "('p', '2026-12-01 00:00:00+00:00', 'system', 'audit purge', 'segments', 'null', '{\"executions\": 3}')",
    )
    found = reports(aged)["executions"].fault
    assert found is not None
    assert (found.what, "rows 11 to 15 were" in found.text or "rows 1 to 5 were" in found.text) == ("removed", True)


def test_what_is_written_after_all_was_purged(aged: Database) -> None:
    """The end of a chain is purged, too, and the next row begins a segment of its own."""
    later = NOW + timedelta(days=1)
    assert purge(aged, KEYS, later, LONG_AGO) == Deleted(20, 0)
    write(aged, *executions(30, 2))
    assert fault(aged) is None
    assert reports(aged)["executions"].rows == 2


def test_without_keys_what_is_sealed_stays(aged: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody could explain that it is gone."""
    assert purge(aged, None, NOW, NOW) == Deleted(0, 0)
    assert "CONVENTIONS_AUDIT_KEYS is not set here" in caplog.text


def test_rows_without_a_place_go_by_their_age(database: Database) -> None:
    """Those of before the chain, and those that nobody seals since there are no keys."""
    write(database, *executions(1, 4), *acts(1, 2), keys=None)
    attack(database, "UPDATE conventions_executions SET number = 0 WHERE fence < 3")
    assert purge(database, None, LONG_AGO + timedelta(seconds=4), LONG_AGO + timedelta(seconds=2)) == Deleted(3, 1)


SEGMENTS = "conventions_audit_segments"


def test_young_rows_that_somebody_made_old(aged: Database) -> None:
    """A segment that is not as it was sealed is not deleted, nor what is behind it."""
    attack(
        aged,
        f"UPDATE {SEGMENTS} SET last_at = first_at, first_at = '2020-01-01 00:00:00+00:00', opened_at = '2020-01-01 00:00:00+00:00' WHERE number = 3",
    )
    assert purge(aged, KEYS, NOW - timedelta(days=1), LONG_AGO) == Deleted(10, 0)
    assert count(aged, ExecutionRow) == 10


@pytest.mark.parametrize(
    "values",
    [
        "7, NULL",
        "3, NULL",
        "12, 'AAAAAAAAAAAAAAAAAAAAAAAA'",
        "3, (SELECT code FROM conventions_executions WHERE number = 11)",
    ],
)
def test_a_row_in_the_place_of_one_that_is_gone(aged: Database, values: str) -> None:
    """Where nothing is any more, nothing may be."""
    purge(aged, KEYS, NOW - timedelta(days=1), LONG_AGO)
    assert fault(aged) is None
    attack(
        aged,
        "INSERT INTO conventions_executions (id, message_id, generation, attempt, kind, actor, ended_at, fence, number, code) VALUES "
        f"('forged', 'm', 0, 1, 'succeeded', 'ceo', '2026-11-01 00:00:00+00:00', 0, {values})",
    )
    found = fault(aged)
    assert found is not None
    assert found.what in ("edited", "inserted")
    assert found.row is not None


def test_a_purge_in_a_message_of_a_sender(aged: Database, store: Store) -> None:
    """Each sender signs entries of the journal, and explains no deletion by that: nor does a row of a command."""
    everything = {"executions": 10**15, "actions": 10**15}
    forged = AuditEntry("web", "audit purge", "segments", None, None, everything)
    store.entry_signatures = SIGNED
    Journal(store).note(forged)
    recorder(store, aged, audit_keys=KEYS).drain_once()
    assert len(rejected(store)) == 1
    act(aged, forged)
    assert seal(aged) == 0
    attack(aged, "DELETE FROM conventions_executions WHERE number = 13")
    found = reports(aged)["executions"].fault
    assert found is not None
    assert "row 13 was" in found.text


def test_a_row_of_the_future_keeps_no_segment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """One machine has a wrong clock."""
    monkeypatch.setattr(chain.Chain.__init__, "__kwdefaults__", {"now": lambda: LONG_AGO})
    write(database, *executions(1, 5), *acts(1, 2, at=LONG_AGO + timedelta(days=3000)))
    assert purge(database, KEYS, NOW, NOW) == Deleted(5, 2)
    assert fault(database) is None


# Erasing


def erased(database: Database, actor: str = "u-42", by: str = "officer") -> Erased:
    """Erase, as `audit erase` does."""
    return erase(database, KEYS, actor, by=by, reason=f"asked by {actor}", believed=SIGNED)


def letter(id_: str, state: str = "discarded", actor: str = "u-42", **values: Any) -> DeadLetterRow:
    """A dead letter."""
    defaults: dict[str, Any] = {
        "task": "shop.Pay", "error": "ValueError", "error_message": "no u-42", "traceback": "", "fingerprint": "f", "attempts": 1,
        "arguments": {"user": "u-42", "u-42": [1]}, "headers": {"x_actor": actor}, "message": '{"x_actor": "u-42"}', "generation": 0, "fence": 0,
        "first_failed_at": LONG_AGO, "last_failed_at": LONG_AGO,
    }  # fmt: skip
    return DeadLetterRow(id=id_, state=state, actor=actor, **defaults | values)


@pytest.fixture
def named(database: Database) -> Database:
    """A person's name at each place where it may be."""
    database.row_signatures = lambda: SIGNED
    write(
        database,
        *executions(1, 9),
        *executions(10, 3, actor="u-7", key="u-42:1"),
        *acts(1, 3),
        *acts(4, 2, actor="u-42"),
    )
    act(
        database,
        AuditEntry("ops", "permissions assign", "u-42", "since u-42. asked", None, {"roles": {"u-42": ["a"]}}),
        AuditEntry("u-42", "cancel", "m1"),
        AuditEntry("ops", "permission denied", "m2", "u-42 may not", None, {"task": "t", "count": 1}),
    )
    with database.session() as session:
        session.add(letter("d1"))
        session.add(letter("d2", actor="u-7", error_message="of u-42", state="redriven"))
        session.add(ActorRoleRow(actor="u-42", role="clerk"))
        session.add(GroupNoteRow(fingerprint="f", text="ask u-42", actor="u-42", written_at=LONG_AGO))
        session.add(
            AttemptLogRow(
                message_id="m1",
                generation=0,
                attempt=1,
                token="t",
                lines='{"message": "for u-42"}',
                left_out=0,
                at=LONG_AGO,
            )
        )
    return database


def test_the_name_is_nowhere_and_the_chains_fit(named: Database) -> None:
    """Attempts, actions, letters, notes, logs, roles, salts; in texts, keys and values."""
    assert "u-42" in texts(named)
    found = erased(named)
    assert "u-42" not in texts(named)
    assert found.pseudonym in texts(named)
    assert (found.executions, found.letters, found.logs) == (12, 2, 1)
    assert fault(named) is None
    assert seal(named) <= 1  # a row that counts denials of this minute still waits
    report = reports(named)
    assert (report["executions"].fault, report["executions"].erased) == (None, 12)
    with named.session(read_only=True) as session:
        assert "u-42" not in set(session.scalars(select(ActorSaltRow.actor)))
        row = AuditRow
        action = session.execute(select(row.actor, row.target, row.reason).where(row.action == "audit erase")).one()
    assert tuple(action) == ("officer", found.pseudonym, f"asked by {found.pseudonym}")


def test_a_name_that_is_part_of_another_one_stays(named: Database) -> None:
    """`u-4` is not in `u-42`, and nothing of what has that is touched."""
    write(named, *executions(20, 1, actor="u-4"))
    before = texts(named).count("u-42")
    found = erased(named, "u-4")
    assert (found.executions, found.actions, found.letters, found.logs, found.others) == (1, 0, 0, 0, 0)
    assert texts(named).count("u-42") == before


def test_what_comes_later_is_erased_by_the_next_one(named: Database) -> None:
    """Under another pseudonym: nothing says that both are one."""
    first = erased(named)
    write(named, *executions(30, 3))
    assert fault(named) is None
    second = erased(named)
    assert (second.executions, second.pseudonym == first.pseudonym) == (3, False)
    assert "u-42" not in texts(named)
    assert fault(named) is None


def test_an_erased_row_that_is_edited_is_named(named: Database) -> None:
    """Erasing opens no door: what stands there now is proven, too."""
    found = erased(named)
    for change in ("actor = 'u-9'", "key = 'u-9:1'", "erased = NULL", "code = erased", "runtime = 3"):
        attack(named, "CREATE TABLE sealed AS SELECT * FROM conventions_executions WHERE number = 4")
        attack(named, f"UPDATE conventions_executions SET {change} WHERE number = 4")
        broken = fault(named)
        assert broken is not None, change
        assert (broken.chain, broken.what) == ("executions", "edited"), change
        attack(
            named,
            "DELETE FROM conventions_executions WHERE number = 4",
            "INSERT INTO conventions_executions SELECT * FROM sealed",
            "DROP TABLE sealed",
        )
        assert fault(named) is None
    # Somebody without the key makes a row look erased.
    attack(named, f"UPDATE conventions_executions SET actor = '{found.pseudonym}', erased = code WHERE number = 11")
    broken = fault(named)
    assert broken is not None
    assert broken.what == "edited"


def test_an_erasure_that_was_stopped(named: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chains fit half way, and the next one finishes it."""
    from conventions.records import erase_actor as erase_module

    def stop(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(erase_module._Erasing, "_letters", stop)
        with pytest.raises(KeyboardInterrupt):
            erased(named)
    assert fault(named) is None
    erased(named)
    assert "u-42" not in texts(named)
    assert fault(named) is None


@pytest.mark.parametrize(
    ("actor", "by", "text"),
    [
        ("system", "ops", "no person"),
        ("beat", "ops", "no person"),
        ("erased-0123", "ops", "no person"),
        ("u-42", "u-42", "nobody erases himself"),
    ],
)
def test_who_cannot_be_erased(named: Database, actor: str, by: str, text: str) -> None:
    """Nothing is changed."""
    before = texts(named)
    with pytest.raises(BusinessError, match=text):
        erased(named, actor, by=by)
    assert texts(named) == before


@pytest.mark.parametrize("change", ["task = 'shop.Refund'", "actor = 'u-42'", "key = 'u-42:7'"])
def test_nothing_is_signed_that_somebody_has_changed(named: Database, change: str) -> None:
    """Whoever makes a row look like one of the person does not have his change signed."""
    with named.session(read_only=True) as session:
        id_ = session.scalar(select(func.min(ExecutionRow.id)).where(ExecutionRow.actor == "u-7"))
    attack(named, f"UPDATE conventions_executions SET {change} WHERE id = '{id_}'")
    attack(named, f"UPDATE conventions_executions SET actor = 'u-42' WHERE id = '{id_}'")
    with pytest.raises(BusinessError, match="is not as it was sealed"):
        erased(named)
    found = fault(named)
    assert found is not None
    assert found.what == "edited"


@pytest.mark.parametrize("name", ["", "   ", "...", "--"])
def test_what_is_no_name(named: Database, name: str) -> None:
    """A variable of a shell that is not set."""
    before = texts(named)
    with pytest.raises(BusinessError, match="is no name"):
        erased(named, name)
    assert texts(named) == before


def test_a_name_that_is_a_number(named: Database) -> None:
    """It is one only where it is the whole text."""
    write(named, *executions(40, 3, actor="7"))
    act(named, AuditEntry("7", "cancel", "7", "line 7 of 7"))
    before = texts(named).count("u-42")
    found = erased(named, "7")
    assert (found.executions, found.actions, found.letters, found.logs) == (3, 1, 0, 0)
    assert "line 7 of 7" in texts(named)
    assert texts(named).count("u-42") == before
    assert fault(named) is None


@pytest.mark.thorough
def test_two_persons_at_once_beside_a_writer(named: Database) -> None:
    """Whoever seals, counts and erases meanwhile."""
    faults: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                function()
            except BaseException as error:  # noqa: BLE001  # told below
                faults.append(error)

        return threading.Thread(target=run)

    def write_on() -> None:
        for one in range(100, 200, 5):
            write(named, *executions(one, 5), *acts(one, 1, actor="u-42"))
            act(named, AuditEntry("u-42", "cancel", "u-7", "u-42 and u-7"))
            seal(named)

    threads = [guarded(write_on), guarded(lambda: erased(named)), guarded(lambda: erased(named, "u-7"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    erased(named)
    erased(named, "u-7")
    seal(named)
    assert fault(named) is None
    assert not re.search(r"\bu-(42|7)\b", texts(named))


def test_open_letters_are_redriven_or_discarded_first(named: Database) -> None:
    """Their jobs would never run again. Letters of others that name the actor stay, and are told."""
    with named.session() as session:
        session.add(letter("d3", state="dead"))
    before = texts(named)
    with pytest.raises(BusinessError, match="1 open dead letters are of u-42"):
        erased(named)
    assert texts(named) == before
    attack(named, "UPDATE conventions_dead_letters SET actor = 'u-7', headers = '{}' WHERE id = 'd3'")
    assert erased(named).left == 1
    assert "u-42" in texts(named)


def test_names_with_odd_characters(database: Database) -> None:
    """As JSON spells them, too."""
    database.row_signatures = lambda: SIGNED
    name = 'Zoë "Z" O\'Neil 山田%_'
    write(database, *executions(1, 4, actor=name))
    act(database, AuditEntry("ops", "note", "g", None, {name: name}, [name]))
    erased(database, name)
    assert not [part for part in ("山田", "\\u5c71", "O'Neil") if part in texts(database)]
    assert fault(database) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("u-4", "X"),
        ("for u-4.", "for X."),
        ("u-42 u-4 u-4x xu-4 u-4-b", "u-42 X u-4x xu-4 u-4-b"),
        ("(u-4),u-4:u-4", "(X),X:X"),
        ("u-4@example.org a.u-4", "u-4@example.org a.u-4"),
    ],
)
def test_a_name_stands_as_a_word(text: str, expected: str) -> None:
    """What is longer is another name."""
    assert Replacement("u-4", "X").of_text(text) == expected


def test_erase_needs_nothing_to_be_there(database: Database) -> None:
    """Somebody of whom nothing is kept: the audit says that it was asked."""
    found = erased(database, "nobody")
    assert (found.executions, found.actions, found.left) == (0, 0, 0)
    assert utc_now() > LONG_AGO
    assert fault(database) is None
