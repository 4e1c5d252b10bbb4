"""Roles in SQL: who has what, by the commands that say so, and each change in the audit (R20, R22)."""

from types import SimpleNamespace

import pytest

from conventions.permission import roles
from conventions.permission.decisions import NoAnswer, Permissions
from conventions.permission.question import Question
from conventions.permission.sql_authorizer import SqlAuthorizer
from conventions.storage.database import Database
from conventions.storage.tables import AuditRow
from tests.databases import database as database  # noqa: PLC0414  # a fixture, on both databases
from tests.recorded import contents


def has(database: Database, actor: str, permission: str) -> bool:
    """What the authorizer says."""
    return SqlAuthorizer(SimpleNamespace(database=database)).allows(actor, permission, "mine.Task", {})


def test_an_actor_has_what_its_roles_have(database: Database) -> None:
    """The very same permission, or the one that stands for all; no other actor, and no other spelling."""
    with database.session() as session:
        assert roles.grant(session, "reader", "report:read", "ann", None)
        assert roles.assign(session, "u-1", "reader", "ann", None)
        assert roles.grant(session, "root", roles.EVERY, "ann", None)
        assert roles.assign(session, "u-2", "root", "ann", None)
        assert roles.assign(session, "u-3", "empty", "ann", None)
    assert has(database, "u-1", "report:read")
    assert has(database, "u-2", "report:read")
    assert has(database, "u-2", "anything")
    for actor, permission in (
        ("u-1", "report:write"), ("u-1", "Report:Read"), ("u-1", "report:rea_"), ("u-1", "%"), ("U-1", "report:read"), ("u-1 ", "report:read"),
        ("u-3", "report:read"), ("u-4", "report:read"), ("", "report:read"), ("reader", "report:read"), ("u-1", ""),
    ):  # fmt: skip
        assert not has(database, actor, permission), (actor, permission)
    with database.session() as session:
        assert roles.revoke(session, "reader", "report:read", "ann", None)
        assert not roles.revoke(session, "reader", "report:read", "ann", None)
        assert roles.unassign(session, "u-2", "root", "ann", None)
        assert not roles.unassign(session, "u-2", "root", "ann", None)
    assert not has(database, "u-1", "report:read")
    assert not has(database, "u-2", "report:read")


def test_tables_that_are_not_there(database: Database) -> None:
    """The error says what to do, in a line."""
    with database.session() as session:
        session.connection().exec_driver_sql("DROP TABLE conventions_role_permissions")
    permissions = Permissions(lambda: SqlAuthorizer(SimpleNamespace(database=database)))
    with pytest.raises(NoAnswer) as unknown:
        permissions.check(["u-1"], Question("report:read", "mine.Read", {}))
    assert "db upgrade" in str(unknown.value)
    assert "\n" not in str(unknown.value)


def test_a_change_is_in_the_audit_and_what_changes_nothing_is_not(database: Database) -> None:
    """With who, why, and what it was."""
    with database.session() as session:
        for _ in range(2):
            roles.grant(session, "reader", "report:read", "ann", "a new report")
            roles.assign(session, "u-1", "reader", "ann", None)
        for _ in range(2):
            roles.unassign(session, "u-1", "reader", "bob", "has left")
            roles.revoke(session, "reader", "report:read", "bob", None)
    rows = {row["action"]: row for row in contents(database, AuditRow)}
    assert len(contents(database, AuditRow)) == 4
    told = {
        name: (row["actor"], row["target"], row["reason"], row["before"], row["after"]) for name, row in rows.items()
    }
    assert told == {
        "permissions grant": ("ann", "reader", "a new report", None, {"permission": "report:read"}),
        "permissions assign": ("ann", "u-1", None, None, {"role": "reader"}),
        "permissions unassign": ("bob", "u-1", "has left", {"role": "reader"}, None),
        "permissions revoke": ("bob", "reader", None, {"permission": "report:read"}, None),
    }


@pytest.mark.parametrize("names", [("", "p"), ("r", " "), ("r" * 256, "p"), ("r", "a\0b"), ("\ud800", "p")])
def test_a_name_that_cannot_be_stored(database: Database, names: tuple[str, str]) -> None:
    """It is refused, and nothing is changed."""
    with pytest.raises(ValueError, match=r"the (role|permission) "), database.session() as session:
        roles.grant(session, *names, "ann", None)
    assert contents(database, AuditRow) == []


def test_what_nobody_has_signed_gets_no_role(database: Database) -> None:
    """Its actor is a word for nobody."""
    with pytest.raises(ValueError, match="stands for messages that nobody has signed"), database.session() as session:
        roles.assign(session, "unsigned", "reader", "ann", None)
