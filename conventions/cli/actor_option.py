"""`--actor`: who does what a command does, for the audit."""

import getpass
from collections.abc import Callable
from typing import Any

import click


def actor_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--actor`, for the audit."""
    return click.option("--actor", default=_login, show_default="your login", help="Who does this; kept in the audit.")(
        function
    )


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may have no name
        return "command line"
