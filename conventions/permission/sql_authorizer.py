"""`SqlAuthorizer`: roles and permissions in our SQL tables, which `celery permissions` changes. The default."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from conventions.storage.database import Database

WITHIN = 5.0  # seconds in which PostgreSQL must answer


class HasDatabase(Protocol):
    """An application."""

    @property
    def database(self) -> "Database":
        """The SQL records."""


class SqlAuthorizer:
    """An actor has the permissions of its roles.

    Args:
        app: the application, whose database has the tables.
    """

    looks_at_arguments = False

    def __init__(self, app: HasDatabase) -> None:
        self._database: Callable[[], Database] = lambda: app.database

    def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:  # noqa: ARG002  # of `Authorizer`
        """Whether a role of the actor has the permission, or all of them. Raises: SQLAlchemyError."""
        from conventions.permission import roles  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        with self._database().session(read_only=True, within=WITHIN) as session:
            return roles.has(session, actor, permission)
