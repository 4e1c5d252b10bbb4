"""Roles: who may do what."""

import pytest

from conventions.console.login_roles import ROLES, Role, visitor


def test_roles_are_steps() -> None:
    """Each role may do what the one before it may, and no more."""
    for index, role in enumerate(ROLES):
        found = visitor("alice", {"alice": role}, "production")
        assert [found.may(needed) for needed in ROLES] == [place <= index for place in range(len(ROLES))]


@pytest.mark.parametrize(
    ("user", "roles", "role"),
    [
        (None, {}, "viewer"),
        (None, {"*": "admin"}, "viewer"),  # nobody knows who it is
        ("alice", {}, "admin"),  # one kind of user, as in Flower
        ("alice", {"alice": "operator", "*": "viewer"}, "operator"),
        ("bob", {"alice": "operator", "*": "viewer"}, "viewer"),
        ("bob", {"alice": "operator"}, None),
        ("*", {"*": "admin", "alice": "viewer"}, "admin"),
        ("", {}, None),  # a login without a name
        ("", {"*": "admin"}, None),
    ],
)
def test_who_has_which_role(user: str | None, roles: dict[str, Role], role: Role | None) -> None:
    """Where roles are set only they count; without a login everybody only looks."""
    found = visitor(user, roles, "production")
    assert found.role == role
    assert found.may("viewer") == (role is not None)


@pytest.mark.parametrize("environment", ["development", "production"])
def test_who_sees_values(environment: str) -> None:
    """Operators and admins; where there is no login, the one who owns the machine, in development."""
    assert [visitor("a", {"a": role}, environment).sees_values for role in ROLES] == [False, True, True]
    assert not visitor("b", {"a": "admin"}, environment).sees_values
    assert visitor(None, {}, environment).sees_values == (environment == "development")
