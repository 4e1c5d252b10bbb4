"""A table that fits its terminal: an id stays whole, or is as short as commands take it; other columns take the loss."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

from rich.cells import cell_len
from rich.table import Column, Table
from rich.text import Text

IDS = ("id", "message_id", "example", "last_id", "fingerprint")  # columns whose cells people copy
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
WHOLE, SHORT = 36, 8  # characters of an id that its sender has not chosen, and of its beginning
LEAST = 8  # characters that each other column has, before ids are made short
GAP = 2  # spaces between two columns, where there is room


class FittedTable(NamedTuple):
    """A table, and whether ids in it are short."""

    table: Table
    is_short: bool


class _Column(NamedTuple):
    """A column.

    Attributes:
        size: characters of its longest line.
        floor: characters that it keeps.
    """

    name: str
    cells: Sequence[str]
    size: int
    floor: int

    @classmethod
    def of(cls, name: str, cells: Sequence[str], least: int = LEAST) -> Self:
        """With its cells. One of ids keeps them whole, if they are not longer than those that nobody has chosen."""
        size = max((cell_len(line) for cell in (name, *cells) for line in cell.splitlines()), default=0)
        kept = [cell_len(cell) for cell in cells if is_id(cell) or (name in IDS and cell_len(cell) <= WHOLE)]
        return cls(name, cells, size, max([min(size, least), *kept]))

    @property
    def is_long(self) -> bool:
        """Whether it has ids that can be short."""
        return any(map(is_id, self.cells))

    def shortened(self) -> Self:
        """The same with the beginnings of its ids."""
        return self.of(self.name, [cell[:SHORT] if is_id(cell) else cell for cell in self.cells])

    def narrow(self) -> Self:
        """The same, and only its ids keep their place."""
        return self.of(self.name, self.cells, least=1)


def is_id(text: str) -> bool:
    """Whether this is an id that its sender has not chosen."""
    return ID.fullmatch(text) is not None


def fitted_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, short: Collection[str] = ()
) -> FittedTable:
    """A table of plain text.

    Args:
        columns: their names.
        rows: their cells.
        width: characters of a line.
        short: columns of ids of which commands take the beginning, which is all that they have where lines are too short.
    """
    found = [_Column.of(name, [row[at] for row in rows]) for at, name in enumerate(columns)]
    gap = GAP if sum(one.size + GAP for one in found) <= width else 1
    room = width - gap * len(columns)
    may_be_short = [one.name in short and one.is_long for one in found]
    is_short = any(may_be_short) and not _fit(found, room)
    if is_short:
        found = [one.shortened() if may else one for one, may in zip(found, may_be_short, strict=True)]
    if not _fit(found, room):
        found = [one.narrow() for one in found]
    sized = zip(found, _sizes(found, room), strict=True)
    named = [Column(one.name.replace("_", " "), width=size, overflow="fold") for one, size in sized]
    table = Table(*named, box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for cells in zip(*(one.cells for one in found), strict=True):
        table.add_row(*map(Text, cells))  # plain text, without markup
    return FittedTable(table, is_short)


def _fit(columns: Sequence[_Column], room: int) -> bool:
    return sum(one.floor for one in columns) <= room


def _sizes(columns: Sequence[_Column], room: int) -> list[int]:
    """The width of each: the widest gives way first, as long as it has more than it keeps; at last those of ids, too."""
    sizes = [max(one.floor, min(one.size, room)) for one in columns]
    while sum(sizes) > room:
        free = [at for at, one in enumerate(columns) if sizes[at] > one.floor]
        widest = max(free or range(len(sizes)), key=sizes.__getitem__)
        if sizes[widest] == 1:
            break
        sizes[widest] -= 1
    return sizes
