"""Actors have roles, and roles have permissions: two tables in SQL, and each change with its row in the audit (R20, R22)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from conventions.core.actor import UNSIGNED
from conventions.core.value_bounds import fault_of_name
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import insert_into
from conventions.storage.tables import ActorRoleRow, RolePermissionRow

EVERY = "*"  # a permission that stands for all of them


@dataclass(frozen=True, slots=True)
class Role:
    """A role, with its permissions and its actors, both in order."""

    name: str
    permissions: Sequence[str]
    actors: Sequence[str]


def has(session: Session, actor: str, permission: str) -> bool:
    """Whether a role of the actor has the permission. Only the very same texts are equal."""
    held, given = ActorRoleRow, RolePermissionRow
    found = session.execute(
        select(held.actor, given.permission)
        .join(given, given.role == held.role)
        .where(held.actor == actor, given.permission.in_((permission, EVERY)))
    )
    return any(one == actor and other in {permission, EVERY} for one, other in found)


def grant(session: Session, role: str, permission: str, by: str, reason: str | None) -> bool:
    """Give a permission to a role, which exists as soon as it has one. False: it has it. Raises: ValueError: a name that cannot be stored."""
    _check(role=role, permission=permission)
    new = _add(session, RolePermissionRow, {"role": role, "permission": permission})
    return _noted(session, new, AuditEntry(by, "permissions grant", role, reason, None, {"permission": permission}))


def revoke(session: Session, role: str, permission: str, by: str, reason: str | None) -> bool:
    """Take a permission from a role. False: it has it not."""
    row = RolePermissionRow
    gone = session.scalar(delete(row).where(row.role == role, row.permission == permission).returning(row.role))
    return _noted(
        session, gone is not None, AuditEntry(by, "permissions revoke", role, reason, {"permission": permission})
    )


def assign(session: Session, actor: str, role: str, by: str, reason: str | None) -> bool:
    """Give a role to an actor. False: it has it. Raises: ValueError: a name that cannot be stored, or the actor of unsigned messages."""
    _check(actor=actor, role=role)
    if actor == UNSIGNED:
        raise ValueError(f"the actor {UNSIGNED} stands for messages that nobody has signed, and has no permission")
    new = _add(session, ActorRoleRow, {"actor": actor, "role": role})
    return _noted(session, new, AuditEntry(by, "permissions assign", actor, reason, None, {"role": role}))


def unassign(session: Session, actor: str, role: str, by: str, reason: str | None) -> bool:
    """Take a role from an actor. False: it has it not."""
    row = ActorRoleRow
    gone = session.scalar(delete(row).where(row.actor == actor, row.role == role).returning(row.role))
    return _noted(session, gone is not None, AuditEntry(by, "permissions unassign", actor, reason, {"role": role}))


def listing(session: Session, actor: str | None = None) -> list[Role]:
    """All roles by name, also those without a permission or without an actor; or those of one actor."""
    held, given = ActorRoleRow, RolePermissionRow
    permissions: dict[str, list[str]] = {}
    actors: dict[str, list[str]] = {}
    for role, permission in session.execute(select(given.role, given.permission).order_by(given.permission)):
        permissions.setdefault(role, []).append(permission)
    for role, one in session.execute(select(held.role, held.actor).order_by(held.actor)):
        actors.setdefault(role, []).append(one)
    names = sorted(permissions.keys() | actors.keys())
    return [
        Role(name, permissions.get(name, []), actors.get(name, []))
        for name in names
        if actor is None or actor in actors.get(name, [])
    ]


def _check(**names: str) -> None:
    for what, name in names.items():
        if fault := "is empty" if not name.strip() else fault_of_name(name):
            raise ValueError(f"the {what} {fault}")


def _add(session: Session, table: type[ActorRoleRow | RolePermissionRow], values: dict[str, str]) -> bool:
    insert = insert_into(session, table).values(**values).on_conflict_do_nothing()
    return session.scalar(insert.returning(table.role)) is not None


def _noted(session: Session, changed: bool, entry: AuditEntry) -> bool:
    if changed:
        audit.record(session, entry)
    return changed
