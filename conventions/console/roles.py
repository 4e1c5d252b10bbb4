"""Who may do what in the console: roles, from `CONVENTIONS_CONSOLE_ROLES` (R22)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

type Role = Literal["viewer", "operator", "admin"]

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")  # each may do what the one before it may
SEEING = ("operator", "admin")
EVERYBODY = "*"
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who looks at a page.

    Attributes:
        role: `None` for one whom the roles do not name.
        sees: whether the values of arguments are shown, and texts that may hold them.
    """

    name: str
    role: Role | None
    sees: bool

    def may(self, needed: Role) -> bool:
        """Whether the role is enough."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(needed)


def visitor(user: str | None, roles: Mapping[str, Role], environment: str) -> Visitor:
    """Give somebody a role.

    Without a login everybody is a viewer, since nobody knows who it is; in development, where that is the one who owns
    the machine, with values shown. With a login and without roles there is one kind of user, who may do everything, as
    in Flower itself. Where there are roles, only they count.

    Args:
        user: who is logged in: a name, or an e-mail address; `None` where no login is configured.
        roles: by user; `*` is for those who are not named.
        environment: `development` or `production`.
    """
    if user is None:
        return Visitor(ANONYMOUS, "viewer", sees=environment == "development")
    role: Role | None = None
    if user:
        role = roles.get(user, roles.get(EVERYBODY)) if roles else "admin"
    return Visitor(user, role, sees=role in SEEING)
