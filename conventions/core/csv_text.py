"""CSV that a spreadsheet shows and does not carry out: most of the text comes from other people."""

import csv
import io
import json
from collections.abc import Iterable

from conventions.core.printable_text import printable

# A spreadsheet takes a cell that begins with one of these as a formula; Japanese ones also the wide forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # they are meant


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV, with its line end. A text that begins like a formula gets an apostrophe; numbers stay as they are."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: object) -> object:
    if value is None or isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(f"'{text}" if text.startswith(FORMULA) else text, lines=True)
