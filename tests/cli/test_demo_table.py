"""The table of `demo` shows names as they are."""

from io import StringIO

from rich.console import Console

from conventions.cli import demo
from conventions.demo import Outcome


def test_a_name_with_brackets_is_no_markup() -> None:
    """Code of a team names them."""
    told = StringIO()
    vars(demo)["_show"](Console(file=told, width=100), [Outcome("mail [/x]", 1, 1, 0, 0, 1.0)])
    assert "mail [/x]" in told.getvalue()
