"""A denied job is counted once in the audit, however often its death is told (R20, R22)."""

from conventions.records.denials import ACTION
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import AuditRow
from tests.databases import database  # noqa: F401  # a fixture
from tests.recorded import append, contents, drain, entry, event, recorder


def test_each_denial_counts_once(store: Store, database: Database) -> None:  # noqa: F811  # the fixture
    """Each delivery has a token of its own, and so has each event; a redrive is another denial. Equal ones are one row."""
    append(
        store,
        entry(event("m1", "dead", denied="u-1", token="a")),
        entry(event("m1", "dead", denied="u-1", token="b")),
        entry(event("m1", "dead", denied="bob", token="c", generation=1)),
        entry(event("m2", "dead", denied="u-1", token="d")),
        entry(event("m3", "dead", token="e")),
    )
    drain(recorder(store, database))
    rows = [
        (row["target"], row["actor"], row["after"]["generation"], row["after"]["count"])
        for row in contents(database, AuditRow)
    ]
    assert sorted(rows) == [("m1", "bob", 1, 1), ("m1", "u-1", 0, 2)]
    assert {row["action"] for row in contents(database, AuditRow)} == {ACTION}


def test_a_death_that_is_told_again_later(store: Store, database: Database) -> None:  # noqa: F811  # the same
    """In another batch."""
    append(store, entry(event("m1", "dead", denied="u-1", token="a")))
    drain(recorder(store, database))
    append(
        store, entry(event("m1", "dead", denied="u-1", token="b")), entry(event("m2", "dead", denied="u-1", token="c"))
    )
    drain(recorder(store, database))
    assert [row["after"]["count"] for row in contents(database, AuditRow)] == [2]


def test_an_attempt_that_was_taken_over_has_none(store: Store, database: Database) -> None:  # noqa: F811  # the same
    """Its outcome was refused: another delivery has ended the job, perhaps well."""
    append(store, entry(event("m1", "dead", denied="u-1"), refused="1"), entry(event("m1", token="b")))
    drain(recorder(store, database))
    assert contents(database, AuditRow) == []
