"""`DjangoAuthorizer`: the permissions of Django's users, of their groups, and of superusers."""

from collections.abc import Mapping
from typing import Any, ClassVar

from conventions.core.actor import BEAT, SYSTEM
from conventions.library_internals.django import manager_of
from conventions.permission.sql_authorizer import HasDatabase, SqlAuthorizer


class DjangoAuthorizer:
    """A permission is one of Django's, such as `shop.view_order`. `user.has_perm` answers, so each authentication backend counts.

    The actor is a user's primary key. `system` and `beat` are no users: they have the roles of `celery permissions`.

    Attributes:
        field: the field of the user that an actor names. A subclass may say another one, such as `username`; it must be unique.
    """

    field: ClassVar[str] = "pk"
    looks_at_arguments = False

    def __init__(self, app: HasDatabase) -> None:
        self._roles = SqlAuthorizer(app)

    def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the user exists, is active, and has the permission now. Raises: django.db.Error."""
        if actor in {SYSTEM, BEAT}:
            return self._roles.allows(actor, permission, task, arguments)
        from django.contrib.auth import get_user_model  # noqa: PLC0415  # only with the settings of the project
        from django.core.exceptions import ValidationError  # noqa: PLC0415  # the same

        users: Any = get_user_model()
        try:
            user = manager_of(users).get(**{self.field: actor})
        except (users.DoesNotExist, ValidationError, ValueError, TypeError):  # no such user, or a text that is no key
            return False
        # Where a database takes upper for lower case, another one may have been found.
        same = str(getattr(user, self.field)) == actor
        return same and bool(user.is_active) and bool(user.has_perm(permission))
