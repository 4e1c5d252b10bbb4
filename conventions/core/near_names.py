"""Which names somebody may have meant who has written one that does not exist."""

import difflib
from collections.abc import Collection

LIKE = 0.6  # by `difflib`: two letters of a short word changed places, or one of it is missing
MOST = 3  # names


def near_names(name: str, known: Collection[str]) -> list[str]:
    """Those that are nearly this one, the nearest first: in full, or their last part, as of a task in its module."""
    by_end = {one.rpartition(".")[2]: one for one in sorted(known, reverse=True)}
    found = [
        *difflib.get_close_matches(name, sorted(known), MOST, LIKE),
        *(by_end[one] for one in difflib.get_close_matches(name.rpartition(".")[2], by_end, MOST, LIKE)),
    ]
    return list(dict.fromkeys(found))[:MOST]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The question, to be put behind what is said of the name; empty where no name is near."""
    names = near_names(name, known)
    return f" (did you mean {' or '.join(names)}?)" if names else ""
