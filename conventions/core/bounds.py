"""What a name, a number and a moment of a message may be, so that Redis, Lua, SQL and logs all hold it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from conventions.core.error_text import clean

MOST_CHARACTERS = 255  # of a name, as the columns have it
LARGEST_COUNT = 2**31 - 2  # one more is a number that the columns hold; Lua holds far larger ones
LONGEST = 2**31 - 1  # seconds
DEEPEST = 300  # lists and mappings within each other: what may be sent has 200 at most, and what follows it some more
LOOKS = 100_000  # values, among which half a character is looked for: what holds itself has no end
MESSAGE_LIMIT = 16 << 20  # bytes of one message, where no setting says so


def fault_of_name(value: str) -> str | None:
    """Why a text is no name, such as an id, a key or an actor; `None` when it is one."""
    if len(value) > MOST_CHARACTERS:
        return f"has {len(value):,} characters, and the limit is {MOST_CHARACTERS}; pass a shorter one, or a hash of it"
    if not value.isascii() and not is_text(value):
        return "holds half a character (a lone surrogate), which no text may hold; decode it from where it came, or remove it"
    if "\0" in value:
        return "holds the character NUL, which SQL refuses; remove it"
    return None


def is_text(value: str) -> bool:
    """Whether UTF-8 can write it: half a character is none."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def moment_of(value: str) -> datetime:
    """A moment in ISO 8601. Raises: ValueError, also of one in whose year no other zone can say it."""
    moment = datetime.fromisoformat(value)
    if not 1 < moment.year < 9999:
        raise ValueError("the year is out of range")
    return moment


def is_too_deep(value: object) -> bool:
    """Whether lists and mappings within each other are more than `DEEPEST`: whoever reads them would run out of stack."""
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
    """Raises: ValueError, where a text or a name in these holds one."""
    if (where := half_character(values)) is not None:
        raise ValueError(f"argument '{where}' holds half a character (a lone surrogate)")


def half_character(values: Mapping[str, Any]) -> str | None:
    """Where the first half of a character is, as in `rows.3.name`. JSON can name one, and UTF-8 cannot write it."""
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
