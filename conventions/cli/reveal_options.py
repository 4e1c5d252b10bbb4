"""`--reveal`: show what a sealed job holds, which the audit keeps (R21, R22)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from conventions.cli.actor_option import actor_option
from conventions.cli.shared_options import REASON
from conventions.core.audit_reason import fault_of_reason


def check_reason(reason: str | None) -> None:
    """Raises: click.UsageError: nobody is told why."""
    if fault := fault_of_reason(reason):
        raise click.UsageError(f"--reveal needs --reason: {fault}, with who has looked")


class RevealedTo(NamedTuple):
    """Who looks, and why."""

    actor: str
    reason: str


def reveal_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--reveal`, with `--reason` and `--actor`; the function receives them as `revealed_to`, which is `None` where nothing is to be shown."""

    @functools.wraps(function)
    def with_reveal(*args: Any, reveal: bool, reason: str | None, actor: str, **options: Any) -> Any:
        if reveal:
            check_reason(reason)
        return function(*args, revealed_to=RevealedTo(actor, reason or "") if reveal else None, **options)

    shown = click.option("--reveal", is_flag=True, help="Show what is sealed, where the key is. The audit keeps it.")
    return shown(REASON(actor_option(with_reveal)))
