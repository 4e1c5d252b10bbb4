"""The files in `examples/` are what the README there says."""

import re
from pathlib import Path

import pytest
from PIL import Image

from tasks.contact_rows import detect_encoding, fault_of, read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_every_row_of_the_contact_list_is_good() -> None:
    """It is real data, of the number of rows that the README names, with no address twice and none that exists."""
    path = EXAMPLES / "contacts.csv"
    assert detect_encoding(path) == "utf-8-sig"
    rows = list(read_rows(path))
    assert f"{len(rows):,} contacts" in README
    assert [row for row in rows if fault_of(row)] == []
    assert len({row["email"] for row in rows}) == len(rows)
    assert all(row["email"].endswith("@example.com") for row in rows)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "pictures").iterdir()), ids=lambda path: path.name)
def test_every_picture_has_its_origin_named(path: Path) -> None:
    """In a row of the table, with its true size and a licence that lets it be passed on."""
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{path.name}` |")]
    with Image.open(path) as picture:
        assert f"{picture.width} x {picture.height}" in row
    assert re.search(r"CC0|public domain", row)


def test_the_examples_stay_small() -> None:
    """They are in every clone."""
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 3 * 1024 * 1024
