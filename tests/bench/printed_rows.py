"""What the measures by turns print."""


def cells_of(head: str, row: str) -> dict[str, str]:
    """The cells of a row of Markdown, by the titles of its columns."""
    titles, cells = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in (head, row))
    return dict(zip(titles, cells, strict=True))


def check_ratios(cells: dict[str, str]) -> None:
    """A quick run has no jobs of 5 ms, and all other ratios."""
    assert cells.pop("jobs of 5 ms/s") == "none"
    assert cells
    assert all(float(cell.split()[0]) > 0 for cell in cells.values())
