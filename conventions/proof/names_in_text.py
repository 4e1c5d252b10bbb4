"""Takes the name of an actor out of texts and values."""

import json
import re
from typing import Any


class Replacement:
    """Replaces a name where it stands as a word: `u-4` is not in `u-42`.

    Args:
        name: the name.
        by: what stands there from then on.
    """

    def __init__(self, name: str, by: str) -> None:
        self.name, self.by = name, by
        self._pattern = _pattern(name)
        # In JSON as text a name may be spelled in two ways.
        self._spellings = [_pattern(json.dumps(name, ensure_ascii=one)[1:-1]) for one in (True, False)]

    def of_text(self, text: str) -> str:
        """The text without the name."""
        return self._pattern.sub(lambda _: self.by, text)

    def of_json_text(self, text: str) -> str:
        """JSON as text, without the name."""
        for pattern in self._spellings:
            text = pattern.sub(lambda _: self.by, text)
        return text

    def of(self, value: Any) -> Any:
        """A value of JSON without the name, also in the names of its mappings."""
        if isinstance(value, str):
            return self.of_text(value)
        if isinstance(value, dict):
            return {self.of_text(name): self.of(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.of(one) for one in value]
        return value


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w@-])(?<![\w][.+]){re.escape(name)}(?![\w@-])(?![.+]\w)")
