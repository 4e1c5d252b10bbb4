"""An argument that somebody looks for, as it is written: `NAME=VALUE`, or with the wide sign `＝` of a Japanese keyboard."""

import re

_SIGN = re.compile("[=＝]")


def has_value(text: str) -> bool:
    """Whether it is written like an argument and its value."""
    name, *value = _SIGN.split(text, maxsplit=1)
    return bool(value and name.strip())


def name_and_value(text: str) -> tuple[str, str]:
    """Both; spaces belong to the value alone. Raises: ValueError: it is none."""
    if not has_value(text):
        raise ValueError(f"{text[:40]!r} is no argument and value; write it like user_id=7")
    name, value = _SIGN.split(text, maxsplit=1)
    return name.strip(), value
