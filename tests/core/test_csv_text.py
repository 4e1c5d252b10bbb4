"""CSV for spreadsheets: nothing in it is a formula."""

import csv
import io

import pytest

from conventions.core.csv_text import csv_line


def cells(line: str) -> list[str]:
    """The cells of a line as a reader finds them."""
    (row,) = csv.reader(io.StringIO(line))
    return row


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "＝", "＋", "－", "＠"])  # noqa: RUF001  # they are meant
def test_a_text_that_begins_like_a_formula_gets_an_apostrophe(begin: str) -> None:
    """Whatever else is in it."""
    assert cells(csv_line([f"{begin}1+1", "a", f"a{begin}1"])) == [f"'{begin}1+1", "a", f"a{begin}1"]


def test_a_line_end_before_a_formula() -> None:
    """Is one, too; a carriage return is shown as an escape, as everywhere."""
    assert cells(csv_line(["\r=1", "\n=1"])) == ["'\\r=1", "'\n=1"]


def test_numbers_stay_numbers() -> None:
    """They are no text; nor is what JSON makes of a value."""
    assert csv_line([-1, -0.5, None, {"a": -1}, ["=1"], "x,y"]) == '-1,-0.5,,"{""a"": -1}","[""=1""]","x,y"\n'


def test_no_cell_steers_a_terminal() -> None:
    """Nor cannot be written: half characters become escapes."""
    assert csv_line(["\x1b]0;x\x07", "\ud800", "line\nline"]) == '\\x1b]0;x\\x07,\\ud800,"line\nline"\n'
