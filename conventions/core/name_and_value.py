"""An argument that somebody looks for, as it is written: `NAME=VALUE`."""


def name_and_value(text: str) -> tuple[str, str]:
    """Both; spaces belong to the value alone. Raises: ValueError: it is none."""
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        raise ValueError(f"{text[:40]!r} is no argument and value; write it like user_id=7")
    return name.strip(), value
