"""Takes the name of an actor out of texts and values."""

import json
import re
from typing import Any

SHORTEST = 3  # characters of a name that is looked for within texts


class Replacement:
    """Replaces a name where it stands as a word: `u-4` is not in `u-42`.

    A name that is a number, or has one or two characters, is replaced only where it is the whole text: elsewhere it may be anything.

    Args:
        name: the name.
        by: what stands there from then on.
    """

    def __init__(self, name: str, by: str) -> None:
        self.name, self.by = name, by
        self._is_word = len(name) >= SHORTEST and not name.isdecimal()
        self._pattern = re.compile(rf"(?<![\w@-])(?<![\w][.+]){re.escape(name)}(?![\w@-])(?![.+]\w)")

    def of_text(self, text: str) -> str:
        """The text without the name."""
        if text == self.name:
            return self.by
        return self._pattern.sub(lambda _: self.by, text) if self._is_word else text

    def of_json_lines(self, text: str) -> str:
        """Lines of JSON without the name in their texts; a line that is none, as a text."""
        return "\n".join(self._line(line) for line in text.split("\n"))

    def of(self, value: Any) -> Any:
        """A value of JSON without the name, also in the names of its mappings."""
        if isinstance(value, str):
            return self.of_text(value)
        if isinstance(value, dict):
            return {self.of_text(name): self.of(one) for name, one in value.items()}
        if isinstance(value, list):
            return [self.of(one) for one in value]
        return value

    def _line(self, line: str) -> str:
        try:
            found = json.loads(line)
        except ValueError:
            return self.of_text(line)
        changed = self.of(found)
        return line if changed == found else json.dumps(changed, ensure_ascii=False)
