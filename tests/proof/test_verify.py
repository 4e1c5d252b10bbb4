"""Somebody who has the database, and no key, changes the audit: `verify` names the first row that does not fit."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from dataclasses import replace
from datetime import timedelta

import pytest

from conventions.core.errors import BusinessError
from conventions.proof import chain, chain_ends
from conventions.proof import verify as verify_module
from conventions.proof.proven_tables import FORM, TABLES
from conventions.proof.signed_heads import Head
from conventions.records.audit_entry import AuditEntry
from conventions.records.delete_old_audit import purge
from conventions.records.erase_actor import erase
from conventions.storage.database import Database, utc_now
from conventions.storage.tables import Base, SegmentRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, LONG_AGO, SIGNED, act, acts, attack, executions, fault, reports, seal, write


@pytest.fixture
def audited(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Thirty executions and eight actions in several transactions, segments of ten rows, and two actions by commands."""
    monkeypatch.setattr(chain, "MOST_ROWS", 10)
    write(database, *executions(1, 12), *acts(1, 4))
    write(database, *executions(13, 18), *acts(5, 4))
    act(
        database,
        AuditEntry("u-9", "dead-letters note", "group f", None, None, "text"),
        AuditEntry("u-9", "cancel", "m1", "too much"),
    )
    assert seal(database) == 2
    return database


def id_of(database: Database, number: int, table: str = "conventions_executions") -> str:
    """The id of the row with a number."""
    with database.session(read_only=True) as session:
        found: str = (
            session.connection().exec_driver_sql(f"SELECT id FROM {table} WHERE number = {number}").scalar_one()
        )
    return found


def test_every_column_is_covered() -> None:
    """A column that is added must be covered, too."""
    for table in TABLES:
        covered = {*table.columns, "actor"}
        assert {column.name for column in table.rows.columns} - covered == {"number", "code", "erased"}
        assert not covered - {column.name for column in table.rows.columns}


def test_what_nobody_changed_is_whole(audited: Database) -> None:
    """Both chains are counted and walked."""
    found = reports(audited)
    assert {name: (one.fault, one.rows, one.segments, one.last) for name, one in found.items()} == {
        "executions": (None, 30, 3, 30),
        "actions": (None, 10, 1, 10),
    }


EXECUTIONS, ACTIONS = "conventions_executions", "conventions_audit"
EDITS = {
    EXECUTIONS: {
        "actor": "'u-7'", "kind": "'succeeded2'", "task": "'shop.Refund'", "queue": "NULL", "worker": "'w2'", "generation": "1", "attempt": "2",
        "key": "'other'", "enqueued_at": "NULL", "started_at": "ended_at", "ended_at": "started_at", "runtime": "2.5", "wait": "NULL",
        "release": "'r2'", "fence": "77", "message_id": "'m99'", "error": "'TypeError'", "error_message": "'fine'", "traceback": "''",
        "fingerprint": "'x'", "code": "NULL", "erased": "'AAAAAAAAAAAAAAAAAAAAAAAA'", "id": "'forged'",
    },
    ACTIONS: {
        "actor": "'u-7'", "action": "'cancel'", "target": "'s9'", "at": "'2026-01-01 00:00:00+00:00'", "reason": "NULL", "before": "'{}'",
        "after": "'[]'", "erased": "'AAAAAAAAAAAAAAAAAAAAAAAA'", "id": "'forged'",
    },
}  # fmt: skip


@pytest.mark.parametrize("table", EDITS)
def test_an_edited_row_is_named(audited: Database, table: str) -> None:
    """Each column counts: one that is new has an edit here, too."""
    assert {*EDITS[table], "number"} >= set(Base.metadata.tables[table].columns.keys()) - {"code"}
    attack(audited, f"CREATE TABLE sealed AS SELECT * FROM {table} WHERE number = 4")
    for column, value in EDITS[table].items():
        attack(audited, f"UPDATE {table} SET {column} = {value} WHERE number = 4")
        found = fault(audited)
        assert found is not None, column
        assert (found.what, found.row) == ("edited", id_of(audited, 4, table)), column
        attack(audited, f"DELETE FROM {table} WHERE number = 4", f"INSERT INTO {table} SELECT * FROM sealed")
        assert fault(audited) is None


def test_the_first_of_several_is_named(audited: Database) -> None:
    """In the order of the chain."""
    attack(audited, f"UPDATE {EXECUTIONS} SET runtime = 9 WHERE number IN (17, 23, 5)")
    found = fault(audited)
    assert found is not None
    assert found.row == id_of(audited, 5)


@pytest.mark.parametrize(
    ("number", "text"),
    [(1, "row 1 was"), (7, "row 7 was"), (10, "row 10 was"), (30, "row 30 was")],
)
def test_a_removed_row_is_named(audited: Database, number: int, text: str) -> None:
    """At the begin, within, at the end of a segment, and at the end of the chain."""
    attack(audited, f"DELETE FROM {EXECUTIONS} WHERE number = {number}")
    found = fault(audited)
    assert found is not None
    assert found.what == "removed"
    assert text in found.text


def test_rows_that_are_removed_and_closed_up(audited: Database) -> None:
    """Who gives the others new numbers gives them codes that do not fit."""
    attack(
        audited,
        f"DELETE FROM {EXECUTIONS} WHERE number = 7",
        f"UPDATE {EXECUTIONS} SET number = number - 1 WHERE number > 7",
    )
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("moved", id_of(audited, 7))


def test_rows_that_change_places(audited: Database) -> None:
    """It is said where the first one was."""
    attack(
        audited,
        f"UPDATE {EXECUTIONS} SET number = -5 WHERE number = 4",
        f"UPDATE {EXECUTIONS} SET number = 4 WHERE number = 8",
        f"UPDATE {EXECUTIONS} SET number = 8 WHERE number = -5",
    )
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("moved", id_of(audited, 4))
    assert "number 8" in found.text


FORGED = (
    f"INSERT INTO {ACTIONS} (id, at, actor, action, target, before, after, number, code) "
    "VALUES ('forged', '{at}', 'ceo', 'cancel', 'x', 'null', 'null', {number}, {code})"
)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("4", "NULL"),
        ("11", "NULL"),
        ("0", "NULL"),
        ("-3", "NULL"),
        ("4", f"(SELECT code FROM {ACTIONS} WHERE number = 4)"),
    ],
)
def test_an_inserted_row_is_named(audited: Database, number: str, code: str) -> None:
    """Among the others, beyond the end, as one of before the chain, as one that was refused, and with the code of another one."""
    attack(audited, FORGED.format(at="2099-01-01 00:00:00+00:00", number=number, code=code))
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "forged")


def test_a_row_that_asks_to_be_sealed(audited: Database) -> None:
    """Nobody with a key has signed it: it stays out, is named, and does not keep the next one from its place."""
    attack(audited, FORGED.format(at="2026-01-01 00:00:00+00:00", number="NULL", code="'k1.AAAAAAAAAAAAAAAAAAAAAAAA'"))
    act(audited, AuditEntry("u-9", "cancel", "m2"))
    assert seal(audited) == 1
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "forged")
    attack(audited, f"DELETE FROM {ACTIONS} WHERE id = 'forged'")
    assert fault(audited) is None


def test_the_row_of_an_action_that_was_changed_before_it_was_sealed(audited: Database) -> None:
    """It waits for seconds only, and has a signature meanwhile."""
    act(audited, AuditEntry("u-9", "cancel", "m2"))
    attack(audited, f"UPDATE {ACTIONS} SET actor = 'u-1' WHERE target = 'm2'")
    assert seal(audited) == 0
    found = fault(audited)
    assert found is not None
    assert found.what == "inserted"


SEGMENTS = "conventions_audit_segments"
CHANGES = (
    "hash = previous", "previous = hash", "last = last - 1", "first = first + 1", "code = 'AAAAAAAAAAAAAAAAAAAAAAAA'", "opened_at = first_at",
    "first_at = opened_at", "last_at = first_at", f"form = {FORM + 1}", "key = 'other'", "number = 9", "chain = 'others'",
)  # fmt: skip


def test_an_edited_segment_is_named(audited: Database) -> None:
    """Its hashes, its rows, its times."""
    which = "chain = 'executions' AND number = 2"
    attack(audited, f"CREATE TABLE sealed AS SELECT * FROM {SEGMENTS} WHERE {which}")
    for change in CHANGES:
        attack(audited, f"UPDATE {SEGMENTS} SET {change} WHERE {which}")
        found = fault(audited)
        assert found is not None, change
        assert "segment 2" in found.text, change
        attack(
            audited,
            f"DELETE FROM {SEGMENTS} WHERE {which} OR chain = 'others' OR number = 9",
            f"INSERT INTO {SEGMENTS} SELECT * FROM sealed",
        )
        assert fault(audited) is None


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_removed_segment_is_named(audited: Database, number: int) -> None:
    """With its rows or without."""
    attack(audited, f"DELETE FROM conventions_audit_segments WHERE chain = 'executions' AND number = {number}")
    found = fault(audited)
    assert found is not None
    assert found.what == "removed"
    assert f"segment {number}" in found.text


def test_a_cut_tail_is_seen_by_a_head_of_before(audited: Database) -> None:
    """All of the last segment is taken away, cleanly: only a head that was told elsewhere shows it."""
    with audited.session(read_only=True) as session:
        told = chain_ends.heads(session, KEYS)["executions"]
    assert fault(audited, told) is None
    attack(
        audited,
        f"DELETE FROM {EXECUTIONS} WHERE number > 20",
        "DELETE FROM conventions_audit_segments WHERE chain = 'executions' AND number = 3",
    )
    assert fault(audited) is None
    found = fault(audited, told)
    assert found is not None
    assert (found.what, "rows 21 to 30 were cut off" in found.text) == ("cut", True)


def test_all_is_taken_away(audited: Database) -> None:
    """The same."""
    with audited.session(read_only=True) as session:
        told = chain_ends.heads(session, KEYS)["executions"]
    attack(audited, f"DELETE FROM {EXECUTIONS}", "DELETE FROM conventions_audit_segments WHERE chain = 'executions'")
    found = fault(audited, told)
    assert found is not None
    assert found.what == "cut"


def test_a_history_that_was_written_anew_with_the_key(audited: Database) -> None:
    """Who has the key makes a chain that fits. The head of before says that it is another one."""
    with audited.session(read_only=True) as session:
        told = chain_ends.heads(session, KEYS)["executions"]
    attack(audited, f"DELETE FROM {EXECUTIONS}", "DELETE FROM conventions_audit_segments WHERE chain = 'executions'")
    write(audited, *executions(101, 35))
    assert fault(audited) is None
    found = fault(audited, told)
    assert found is not None
    assert (found.what, "written anew" in found.text) == ("edited", True)


def test_a_head_that_nobody_has_signed(audited: Database) -> None:
    """Anybody can print one: it says nothing, and hides no other fault."""
    with audited.session(read_only=True) as session:
        told = chain_ends.heads(session, KEYS)["executions"]
    forged = (replace(told, last=40), replace(told, key="unknown"))
    found = reports(audited, told, told, *forged)["executions"]  # a log and Redis have the same ones
    assert (found.fault, found.heads, found.others) == (None, 1, 2)
    attack(audited, f"UPDATE {EXECUTIONS} SET runtime = 9 WHERE number = 5")
    found = reports(audited, *forged)["executions"]
    assert found.fault is not None
    assert found.fault.row == id_of(audited, 5)


def test_two_heads_of_one_row(database: Database) -> None:
    """The end was cut off, and others were written in its place: none of both hides the other."""
    heads = []
    for first in (1, 21):
        write(database, *executions(first, 5))
        with database.session(read_only=True) as session:
            heads.append(chain_ends.heads(session, KEYS)["executions"])
        if first == 1:
            attack(database, f"DELETE FROM {EXECUTIONS}", f"DELETE FROM {SEGMENTS}")
    assert fault(database) is None
    found = fault(database, *heads)
    assert found is not None
    assert "another hash at row 5" in found.text


@pytest.mark.parametrize("column", ["opened_at", "first_at"])
def test_an_end_that_cannot_be_read(audited: Database, column: str) -> None:
    """What happens meanwhile is recorded, and waits: it is not taken for a fault of what happens."""
    odd, where = "soon" if audited.is_sqlite else "infinity", "WHERE chain = 'executions' AND number = 3"
    attack(audited, f"CREATE TABLE kept AS SELECT {column} FROM {SEGMENTS} {where}")
    attack(audited, f"UPDATE {SEGMENTS} SET {column} = '{odd}' {where}")
    write(audited, *executions(50, 3))
    assert fault(audited) is not None
    attack(audited, f"UPDATE {SEGMENTS} SET {column} = (SELECT {column} FROM kept) {where}")
    assert seal(audited) == 3
    assert (fault(audited), reports(audited)["executions"].rows) == (None, 33)


def test_a_chain_that_was_founded_anew(audited: Database) -> None:
    """What was said of the segments of before says nothing of these, and a head of before is not taken for one of them."""
    heads = []
    for first in (101, 104):
        write(audited, *executions(first, 3))
        with audited.session(read_only=True) as session:
            heads.append(chain_ends.heads(session, KEYS)["executions"])
    assert purge(audited, KEYS, utc_now() + timedelta(hours=1), LONG_AGO).executions == 36
    assert fault(audited, *heads) is None
    attack(audited, f"DELETE FROM {EXECUTIONS}", f"DELETE FROM {SEGMENTS} WHERE chain = 'executions'")
    write(audited, *executions(201, 55))
    attack(audited, f"DELETE FROM {EXECUTIONS} WHERE number < 15")
    found = fault(audited)
    assert found is not None
    assert "row 1 was" in found.text or "rows 1 to" in found.text
    assert fault(audited, *heads) is not None


def test_a_head_of_what_was_purged(audited: Database) -> None:
    """Nobody can tell, and that is counted; a head that no chain with these segments had is a fault."""
    write(audited, *executions(31, 1))
    with audited.session(read_only=True) as session:
        told = chain_ends.heads(session, KEYS)["executions"]
    write(audited, *executions(32, 12))
    assert purge(audited, KEYS, utc_now() + timedelta(hours=1), LONG_AGO).executions == 43
    found = reports(audited, told)["executions"]
    assert (found.fault, found.heads, found.uncompared) == (None, 1, 1)
    wrong = Head.sign(
        SegmentRow(chain="executions", number=told.segment + 1, last=told.last, hash=told.hash, key=told.key), KEYS
    )
    assert fault(audited, wrong) is not None


def test_a_row_that_waits_without_a_signature(audited: Database) -> None:
    """As the sealer would see it: one of a release before only for a day after the chain began."""
    attack(
        audited,
        "INSERT INTO conventions_audit (id, at, actor, action, target, before, after) VALUES "
        "('p', '2099-12-01 00:00:00+00:00', 'u-1', 'permission denied', 'm2', 'null', 'null')",
    )
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "p")


def test_a_column_of_a_later_form(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of before are verified without it. A segment of its own has rows with it, and a recorder of the release before adds none to that."""
    monkeypatch.setitem(vars(TABLES[0]), "later", {**TABLES[0].later, "worker": FORM + 1})
    monkeypatch.setitem(vars(TABLES[0]), "_of_form", {})
    monkeypatch.setattr(verify_module, "FORM", FORM + 1)
    write(database, *executions(1, 3))
    monkeypatch.setattr(chain, "FORM", FORM + 1)  # of the recorder
    write(database, *executions(4, 3))
    assert (fault(database), reports(database)["executions"].segments) == (None, 2)
    attack(database, f"UPDATE {EXECUTIONS} SET worker = 'w2' WHERE number = 2")
    assert fault(database) is None, "the form of before does not cover it"
    attack(database, f"UPDATE {EXECUTIONS} SET worker = 'w2' WHERE number = 5")
    found = fault(database)
    assert found is not None
    assert found.row == id_of(database, 5)
    monkeypatch.setattr(chain, "FORM", FORM)
    write(database, *executions(7, 2))
    assert reports(database)["executions"].waiting == 2


def test_an_end_that_somebody_has_written(audited: Database) -> None:
    """Nobody signs it: what happens is recorded, and waits to be sealed."""
    attack(audited, f"UPDATE {SEGMENTS} SET last = 4000 WHERE chain = 'executions' AND number = 3")
    write(audited, *executions(50, 3))
    found = fault(audited)
    assert found is not None
    assert "segment 3 is not as it was sealed" in found.text
    with audited.session(read_only=True) as session:
        assert "executions" not in chain_ends.heads(session, KEYS)
    attack(audited, f"UPDATE {SEGMENTS} SET last = 30 WHERE chain = 'executions' AND number = 3")
    assert seal(audited) == 3
    assert fault(audited) is None


@pytest.mark.parametrize("salt", ["zz", "", "00"])
def test_a_damaged_salt_keeps_nothing_from_being_recorded(audited: Database, salt: str) -> None:
    """The rows wait until it is as it was."""
    with audited.session(read_only=True) as session:
        right = (
            session.connection()
            .exec_driver_sql("SELECT salt FROM conventions_actor_salts WHERE actor = 'u-42'")
            .scalar_one()
        )
    attack(audited, f"UPDATE conventions_actor_salts SET salt = '{salt}' WHERE actor = 'u-42'")
    write(audited, *executions(50, 3))
    assert fault(audited) is not None
    attack(audited, f"UPDATE conventions_actor_salts SET salt = '{right}' WHERE actor = 'u-42'")
    assert seal(audited) == 3
    assert fault(audited) is None


ODD = {
    "sqlite": (
        "ended_at = 'soon'",
        "runtime = 'fast'",
        "code = x'00ff'",
        "number = 4.5",
        "number = 'four'",
        "attempt = 'x'",
        "actor = x'00ff'",
    ),
    "postgresql": ("ended_at = 'infinity'", "runtime = 'infinity'", "started_at = '-infinity'"),
}


def test_values_that_cannot_be_read(audited: Database) -> None:
    """They are named, and end nothing."""
    kind = "sqlite" if audited.is_sqlite else "postgresql"
    attack(audited, f"CREATE TABLE sealed AS SELECT * FROM {EXECUTIONS} WHERE number = 4")
    for change in ODD[kind]:
        attack(audited, f"UPDATE {EXECUTIONS} SET {change} WHERE number = 4")
        found = fault(audited)
        assert found is not None, change
        attack(
            audited,
            f"DELETE FROM {EXECUTIONS} WHERE id IN (SELECT id FROM sealed)",
            f"INSERT INTO {EXECUTIONS} SELECT * FROM sealed",
        )
        assert fault(audited) is None


def test_a_waiting_row_that_cannot_be_read(audited: Database) -> None:
    """It stays out of the chain, and holds up no other."""
    at = "soon" if audited.is_sqlite else "infinity"
    attack(audited, FORGED.format(at=at, number="NULL", code="NULL"))
    act(audited, AuditEntry("u-9", "cancel", "m2"))
    found = fault(audited)
    assert found is not None
    assert seal(audited) == 1
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "forged")


def test_a_row_of_before_that_cannot_be_read(audited: Database) -> None:
    """The chain does not cover it; it is named, and an erasure that meets it says what to do."""
    forged = FORGED.format(at="2026-01-01 00:00:00" if audited.is_sqlite else "-infinity", number="0", code="NULL")
    attack(audited, forged.replace("'null', 'null'", "'{', 'null'") if audited.is_sqlite else forged)
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("edited", "forged")
    with pytest.raises(BusinessError, match="row forged of actions cannot be read"):
        erase(audited, KEYS, "ceo", by="dpo", reason="asked", believed=SIGNED)


def test_a_counted_row_of_the_future(audited: Database) -> None:
    """It does not wait for its minute for ever."""
    attack(
        audited,
        FORGED.format(at="2099-01-01 00:00:00+00:00", number="NULL", code="'k1.x'").replace(
            "'cancel'", "'permission denied'"
        ),
    )
    assert seal(audited) == 0
    found = fault(audited)
    assert found is not None
    assert (found.what, found.row) == ("inserted", "forged")


def test_zero_below_zero(audited: Database) -> None:
    """SQLite has none."""
    write(audited, *executions(50, 1, runtime=-0.0, wait=-0.0))
    assert fault(audited) is None


def test_the_salt_of_an_actor_is_taken_away_or_exchanged(audited: Database) -> None:
    """Rows can be proven no more, and the first one is named."""
    attack(audited, "UPDATE conventions_actor_salts SET salt = '00000000000000000000000000000000' WHERE actor = 'u-42'")
    found = fault(audited)
    assert found is not None
    assert found.row == id_of(audited, 1)
    attack(audited, "DELETE FROM conventions_actor_salts WHERE actor = 'u-42'")
    found = fault(audited)
    assert found is not None
    assert "no salt" in found.text
