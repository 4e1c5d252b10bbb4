"""What Flower refuses to start with (R22)."""

from types import SimpleNamespace
from typing import Any

import pytest

from conventions.console.flower_start import OPEN_API, check
from conventions.console.local_addresses import is_local
from conventions.core.errors import ConfigurationError


def options(address: str = "127.0.0.1", **others: Any) -> Any:
    """Flower's options, as far as they matter."""
    return SimpleNamespace(
        **{"address": address, "basic_auth": None, "auth": "", "unix_socket": "", "debug": False} | others
    )


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "10.0.0.7", "flower.example"])  # that is the point
def test_an_address_that_others_reach_needs_a_login(address: str) -> None:
    """Refused without one, whichever it is, and taken with one."""
    with pytest.raises(ConfigurationError, match="FLOWER_BASIC_AUTH"):
        check(options(address), "development")
    check(options(address, basic_auth=["a:k3-long-enough"]), "production")
    check(options(address, auth=".*@example.com"), "production")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_local_address_needs_none_but_in_production(address: str) -> None:
    """A developer looks at it without one."""
    assert is_local(address)
    check(options(address), "development")
    with pytest.raises(ConfigurationError, match="production"):
        check(options(address), "production")


def test_a_socket_is_local() -> None:
    """Its folder says who reaches it."""
    check(options("", unix_socket="/run/flower.sock"), "development")


def test_an_open_api_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets any web page run tasks."""
    for value in ("true", "1", "yes"):
        monkeypatch.setenv(OPEN_API, value)
        with pytest.raises(ConfigurationError, match=OPEN_API):
            check(options(), "development")
    for value in ("", "false", "0"):
        monkeypatch.setenv(OPEN_API, value)
        check(options(), "development")


@pytest.mark.parametrize(
    "logins", [[""], ["alice:a", ""], ["alice"], ["alice:"], [":a"], ["\u00e9:a"], ["alice:\u00e9"]]
)
def test_a_login_that_is_none_is_refused(logins: list[str]) -> None:
    """An empty one would let in whoever sends nothing, and Flower cannot compare other letters than ASCII."""
    for environment in ("development", "production"):
        with pytest.raises(ConfigurationError, match="login"):
            check(options("", basic_auth=logins), environment)
    check(options("", basic_auth=["alice:a b", "bob@example.com:p:q"]), "development")
    with pytest.raises(ConfigurationError, match="login 2 of FLOWER_BASIC_AUTH: its password has 3 characters"):
        check(options("", basic_auth=["alice:k3-long enough", "bob@example.com:p:q"]), "production")


def test_tracebacks_are_not_for_production() -> None:
    """Whoever causes an error would read them, with no login."""
    with pytest.raises(ConfigurationError, match="--debug"):
        check(options(basic_auth=["a:b"], debug=True), "production")
    check(options(basic_auth=["a:b"], debug=True), "development")
