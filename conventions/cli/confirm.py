"""Ask before something is changed, where somebody can answer."""

import sys

import click


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless `--yes` was given. Raises: UsageError if nobody can answer, Abort at a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can answer here: repeat it with --yes")
    click.confirm(question, abort=True, err=True)
