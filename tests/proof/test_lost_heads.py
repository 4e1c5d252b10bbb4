"""A database that was restored from a copy: somebody says that older heads are right to be missed, and for these alone (R22)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import pytest

from conventions.core.errors import BusinessError
from conventions.proof import chain_ends
from conventions.proof.chain_report import ChainReport
from conventions.proof.signed_heads import Head
from conventions.records.accept_lost_heads import accept, missed_heads
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database
from tests.databases import database  # noqa: F401  # a fixture
from tests.proof.proven import KEYS, SIGNED, act, acts, attack, executions, fault, reports, seal, write

EXECUTIONS, SEGMENTS = "conventions_executions", "conventions_audit_segments"


def head_of(database: Database, chain: str = "executions") -> Head:
    """The end of a chain."""
    with database.session(read_only=True) as session:
        return chain_ends.heads(session, KEYS)[chain]


@pytest.fixture
def lost(database: Database) -> list[Head]:
    """Heads of rows 5 to 20, in a database that ends with row 5 of another chain, and goes on."""
    write(database, *acts(1, 2))
    found = []
    for first in (1, 6, 11, 16):
        write(database, *executions(first, 5))
        found.append(head_of(database))
    attack(database, f"DELETE FROM {EXECUTIONS}", f"DELETE FROM {SEGMENTS} WHERE chain = 'executions'")
    write(database, *executions(31, 12))
    return found


def said(database: Database, *heads: Head) -> list[ChainReport]:
    """Accept these heads; returns what was accepted of which chain."""
    missed = missed_heads(database, KEYS, heads, SIGNED)
    accept(database, KEYS, missed, by="ops", reason="restored")
    return missed


def test_what_was_accepted_is_no_fault(database: Database, lost: list[Head]) -> None:
    """Each head, of rows that are there and of rows that are not; the action has who and why."""
    found = fault(database, *lost)
    assert found is not None
    assert (found.what, "`audit accept`" in found.text) == ("edited", True)
    assert [len(report.missed) for report in said(database, *lost)] == [4]
    found_now = reports(database, *lost)
    assert [(one.fault, one.accepted) for one in found_now.values()] == [(None, 4), (None, 0)]
    assert found_now["actions"].rows == 3
    assert said(database, *lost) == []


def test_another_head_is_still_a_fault(database: Database, lost: list[Head]) -> None:
    """Also one of a row between two that were accepted, and one of the chain as it is when its end is cut off."""
    said(database, lost[0], lost[2])
    found = fault(database, *lost)
    assert found is not None
    assert "row 10," in found.text
    now = head_of(database)
    assert fault(database, lost[0], lost[2], now) is None
    attack(database, f"DELETE FROM {EXECUTIONS}", f"DELETE FROM {SEGMENTS} WHERE chain = 'executions'")
    found = fault(database, lost[0], lost[2], now)
    assert found is not None
    assert (found.what, "row 12" in found.text) == ("cut", True)


@pytest.mark.parametrize(
    "attacked",
    [
        f"UPDATE {EXECUTIONS} SET runtime = 9 WHERE number = 3",
        f"UPDATE {EXECUTIONS} SET runtime = 9 WHERE number = 11",
        f"UPDATE {EXECUTIONS} SET number = -1 WHERE number = 12",
        "UPDATE conventions_audit SET reason = 'none' WHERE number = 1",
    ],
)
def test_nothing_is_accepted_beside_another_fault(database: Database, lost: list[Head], attacked: str) -> None:
    """Who accepts must not sign what he has not seen: also what is behind a head that is missed, and in the other chain."""
    attack(database, attacked)
    with pytest.raises(BusinessError, match="is broken otherwise"):
        said(database, *lost)


def test_who_has_no_key_of_the_audit_accepts_nothing(database: Database, lost: list[Head]) -> None:
    """Neither by an action that waits, nor by a change of one."""
    act(database, AuditEntry("ops", "audit accept", "executions", "restored", [str(head) for head in lost]))
    seal(database)
    found = reports(database, *lost)
    assert found["executions"].fault is not None
    attack(database, "DELETE FROM conventions_audit WHERE number = -1")
    said(database, lost[0])
    attack(database, "UPDATE conventions_audit SET action = 'audit accept' WHERE number = 1")
    found = reports(database, *lost)
    assert all(one.fault is not None for one in found.values())


def test_many_heads(database: Database, lost: list[Head]) -> None:
    """Some for each action."""
    for first in range(101, 351):
        write(database, *executions(first, 1))
        lost.append(head_of(database))
    attack(database, f"DELETE FROM {EXECUTIONS}", f"DELETE FROM {SEGMENTS} WHERE chain = 'executions'")
    write(database, *executions(401, 1))
    assert [len(report.missed) for report in said(database, *lost)] == [254]
    found = reports(database, *lost)
    assert (found["executions"].fault, found["executions"].accepted, found["actions"].rows) == (None, 254, 5)
