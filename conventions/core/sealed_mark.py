"""How a sealed text is known, and what people see in its place; `sealing/` makes and opens them (R21)."""

from typing import Any

MARK = "x-conventions-sealed:"  # begins each sealed text
SHOWN = "(sealed)"


def is_sealed_text(value: object) -> bool:
    """Whether a value is a sealed text."""
    return isinstance(value, str) and value.startswith(MARK)


def for_people(value: Any) -> Any:
    """The value, or what is shown in the place of a sealed one."""
    return SHOWN if is_sealed_text(value) else value
