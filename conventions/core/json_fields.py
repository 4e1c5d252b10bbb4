"""Values of a dataclass as JSON. Fields that a later release adds are ignored by this one."""

import json
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any


def to_json(value: Any) -> str:
    """A dataclass as JSON; times are ISO 8601."""
    return json.dumps(asdict(value), default=datetime.isoformat, ensure_ascii=False)


def from_json(cls: type[Any], raw: bytes, *moments: str) -> dict[str, Any]:
    """The fields of a class from JSON; those of `moments` are times. Raises: ValueError, TypeError."""
    found = json.loads(raw)
    values = {one.name: found[one.name] for one in fields(cls) if one.name in found}
    return values | {name: datetime.fromisoformat(values[name]) for name in moments if values.get(name)}
