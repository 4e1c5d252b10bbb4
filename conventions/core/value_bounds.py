"""Bounds of the names, numbers and times in a message, so that Redis, Lua, SQL and logs can all hold them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from conventions.core.error_text import clean

MOST_CHARACTERS = 255  # of a name: the width of the SQL columns
LARGEST_COUNT = 2**31 - 2  # one more still fits the SQL columns; Lua holds far larger numbers
LONGEST = 2**31 - 1  # seconds
DEEPEST = 300  # levels of nested lists and mappings: a payload may have 200, the message around it adds a few
LOOKS = 100_000  # values that one search visits: a list that contains itself would never end
MESSAGE_LIMIT = 16 << 20  # bytes of one message, unless a setting says otherwise


def fault_of_name(value: str) -> str | None:
    """Why a text cannot be a name, such as an id, a key or an actor. `None` when it can."""
    if len(value) > MOST_CHARACTERS:
        return f"has {len(value):,} characters, and the limit is {MOST_CHARACTERS}; pass a shorter one, or a hash of it"
    if not value.isascii() and not is_text(value):
        return "holds half a character (a lone surrogate), which no text may hold; decode it from where it came, or remove it"
    if "\0" in value:
        return "holds the character NUL, which SQL refuses; remove it"
    return None


def is_text(value: str) -> bool:
    """Whether UTF-8 can encode it. It cannot encode half a character (a lone surrogate)."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def moment_of(value: str) -> datetime:
    """Read a time in ISO 8601. Raises: ValueError, also when another time zone could not express the year."""
    moment = datetime.fromisoformat(value)
    if not 1 < moment.year < 9999:
        raise ValueError("the year is out of range")
    return moment


def is_too_deep(value: object) -> bool:
    """Whether lists and mappings are nested more than `DEEPEST` levels. A reader of them would run out of stack."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            within
            for one in level
            if isinstance(one, (dict, list))
            for within in (one.values() if isinstance(one, dict) else one)
            if isinstance(within, (dict, list))
        ]
        if not level:
            return False
    return True


def refuse_half_characters(values: Mapping[str, Any]) -> None:
    """Refuse a text or a name that holds half a character. Raises: ValueError."""
    if (where := half_character(values)) is not None:
        raise ValueError(f"argument '{where}' holds half a character (a lone surrogate)")


def half_character(values: Mapping[str, Any]) -> str | None:
    """The path of the first half character, such as `rows.3.name`. JSON can escape one, UTF-8 cannot encode it."""
    left: list[tuple[str, Any]] = [("", values)]
    for _ in range(LOOKS):
        if not left:
            break
        path, value = left.pop()
        match value:
            case str() if not is_text(value):
                return path
            case Mapping():
                before = f"{path}." if path else ""
                within = [(clean(f"{before}{name}"), name, one) for name, one in value.items()]
                left += [found for at, name, one in reversed(within) for found in ((at, one), (at, name))]
            case list() | tuple():
                left += [(f"{path}.{index}", one) for index, one in reversed([*enumerate(value)])]
    return None
