"""Who may do what in the console: roles, from `CONVENTIONS_CONSOLE_ROLES` (R22)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["viewer", "operator", "admin"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")  # each role includes the ones before it
ROLES_WITH_VALUES = ("operator", "admin")
EVERYBODY = "*"
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who looks at a page.

    Attributes:
        role: `None` if the setting does not name the person.
        sees_values: whether it sees the values of arguments, and texts that may contain them.
    """

    name: str
    role: Role | None
    sees_values: bool

    def may(self, needed: Role) -> bool:
        """Whether the role is high enough."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(needed)


def visitor(user: str | None, roles: Mapping[str, Role], environment: str) -> Visitor:
    """The role of a visitor.

    Without a login everybody is a viewer, since nobody is known. In development only the owner of the machine can connect, so a
    viewer sees values there. With a login but without roles everybody may do everything, as in Flower itself. If there are roles,
    only they count.

    Args:
        user: who is logged in: a name, or an e-mail address; `None` if no login is configured.
        roles: by user; `*` is for everybody else.
        environment: `development` or `production`.
    """
    if user is None:
        return Visitor(ANONYMOUS, "viewer", sees_values=environment == "development")
    role: Role | None = None
    if user:
        role = roles.get(user, roles.get(EVERYBODY)) if roles else "admin"
    return Visitor(user, role, sees_values=role in ROLES_WITH_VALUES)
