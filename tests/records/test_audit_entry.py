"""Deeds in the journal: what was done to something in Redis becomes a row of the audit, once (R22)."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow, ExecutionRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import append, contents, drain, entry, event, left, recorder, rejected

AT = 1_700_000_000_000

texts = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.none() | st.integers() | texts | st.dictionaries(texts, texts, max_size=2)


@given(st.builds(AuditEntry, texts, texts, texts, st.none() | texts, values, values))
def test_an_entry_is_read_as_it_was_written(deed: AuditEntry) -> None:
    """With its id, so that it stays the same one."""
    assert AuditEntry.decode(deed.encode(None)) == deed


@pytest.mark.parametrize("data", ['{"actor": "a", "action": "a", "target": "t", "reason": 0}', "", "[]", "7", "{}", '{"actor": 1, "action": "a", "target": "t"}', '{"actor": "a"}',
                                  '{"actor": "a", "action": "a", "target": "t", "id": "%s"}' % ("x" * 37)])  # fmt: skip
def test_what_is_no_deed_is_refused(data: str) -> None:
    """Nothing that a column would not take gets in."""
    with pytest.raises(ValueError, match=r"not an entry|Expecting value"):
        AuditEntry.decode(data)


def test_fields_of_a_later_version_are_ignored() -> None:
    """A worker of the next version may write them."""
    assert AuditEntry.decode('{"actor": "a", "action": "b", "target": "c", "id": "d", "mood": 1}').target == "c"


def deed_entry(deed: AuditEntry, **more: Any) -> dict[str, Any]:
    """The fields of an entry."""
    return {"deed": deed.encode(None), "at": AT} | more


def test_a_deed_is_recorded_beside_events_once(store: Store, database: Database) -> None:  # noqa: F811
    """In the order of the stream, when it was done, and not again when it is read a second time."""
    deed = AuditEntry("u-42", "schedule pause", "daily", "故障", None, {"reason": "故障"})
    append(store, entry(event()), deed_entry(deed), deed_entry(deed))
    drain(recorder(store, database))
    append(store, deed_entry(deed))
    drain(recorder(store, database))
    (row,) = contents(database, AuditRow)
    assert row == {
        "id": deed.id, "at": datetime.fromtimestamp(AT / 1000, UTC), "actor": "u-42", "action": "schedule pause",
        "target": "daily", "reason": "故障", "before": None, "after": {"reason": "故障"},
        "number": None, "code": None, "erased": None,
    }  # fmt: skip
    assert len(contents(database, ExecutionRow)) == 1
    assert left(store) == (0, 0)


def test_an_entry_that_is_no_deed_holds_up_nobody(store: Store, database: Database) -> None:  # noqa: F811
    """It is put aside as it was; those behind it are recorded."""
    append(
        store,
        {"deed": "{}", "at": AT},
        deed_entry(AuditEntry("a", "b", "c"), at="99999999999999999999"),
        entry(event()),
    )
    drain(recorder(store, database))
    assert [one["fields"]["deed"][:9] for one in rejected(store)] == ["{}", '{"actor":']
    assert len(contents(database, ExecutionRow)) == 1
    assert contents(database, AuditRow) == []


def test_half_a_character_in_a_deed_is_kept() -> None:
    """A terminal of another encoding brings them in names and reasons; Redis takes no text that has one."""
    deed = AuditEntry("u\udcff", "schedule pause", "nightly", "\ud800", {"a": "\ud800"})
    assert AuditEntry.decode(deed.encode(None)) == deed
