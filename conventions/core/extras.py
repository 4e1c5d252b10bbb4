"""Packages that a plain install leaves out: whether one is there, and how to install it."""

from importlib.util import find_spec
from typing import Literal, TypeAlias

Extra: TypeAlias = Literal[
    "apprise", "cryptography", "flower", "holidays", "prometheus-client", "psycopg", "watchfiles"
]  # each has the name of the package it brings


def is_installed(extra: Extra) -> bool:
    """Whether this environment has the package. It is not imported."""
    return find_spec(extra.replace("-", "_")) is not None


def how_to_install(extra: Extra) -> str:
    """A line for the person who needs it."""
    return f"{extra} is not installed: pip install 'celery-conventions[{extra}]'"
