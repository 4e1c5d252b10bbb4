"""`Lines`: the head and the tail of a log, within a bound. `LogLine`: one line, and how it is written."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from conventions.core.error_text import clean
from conventions.core.secrets_in_text import without_secrets

MOST_CHARACTERS = 8000  # of a message, and of an exception: one line must not take the place of all others
LEFT_OUT, SEALED = "left_out", "sealed"
_FIELDS = ("time", "level", "logger", "message", "exception")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log.

    Attributes:
        time: ISO 8601, UTC; empty of a line that stands for others.
        exception: the traceback, where it has one.
        left_out: how many lines this one stands for; 0 for a real line.
    """

    time: str
    level: str
    logger: str
    message: str
    exception: str | None = None
    left_out: int = 0


class Changes(NamedTuple):
    """What has changed since the last look.

    Attributes:
        new: lines by number.
        dropped: numbers of lines that may have been stored and are not kept any more.
    """

    new: dict[int, bytes]
    dropped: frozenset[int]


class Lines:
    """Keeps the first and the last lines, half of the bound each. The middle goes. A line keeps its number, so a gap says how many went.

    Args:
        limit: bytes of all lines that are kept.

    Attributes:
        count: how many lines came.
    """

    def __init__(self, limit: int) -> None:
        self._head_room = limit // 2
        self._tail_room = limit - limit // 2
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_is_full = False
        self.count = 0
        self._new: dict[int, bytes] = {}
        self._stored: set[int] = set()  # also where nobody knows
        self._dropped: set[int] = set()

    def add(self, line: bytes) -> None:
        """Add a line."""
        number, self.count = self.count, self.count + 1
        self._new[number] = line
        if not self._head_is_full and len(line) <= self._head_room:
            self._head.append(line)
            self._head_room -= len(line)
            return
        self._head_is_full = True
        self._tail.append(line)
        self._tail_room -= len(line)
        while self._tail_room < 0:
            self._drop_first_of_tail()

    def _drop_first_of_tail(self) -> None:
        number = self.count - len(self._tail)
        self._tail_room += len(self._tail.popleft())
        self._new.pop(number, None)
        if number in self._stored:
            self._stored.discard(number)
            self._dropped.add(number)

    def kept(self) -> dict[int, bytes]:
        """The lines that are kept, by number."""
        return dict(enumerate(self._head)) | dict(enumerate(self._tail, self.count - len(self._tail)))

    def take(self) -> Changes:
        """What is to be stored. The caller gives it back where it was not stored."""
        changes = Changes(self._new, frozenset(self._dropped))
        self._stored.update(self._new)
        self._new, self._dropped = {}, set()
        return changes

    def give_back(self, changes: Changes) -> None:
        """It is not known to be stored: take it again the next time."""
        kept = self.kept()
        self._new = {number: line for number, line in changes.new.items() if number in kept} | self._new
        self._dropped |= changes.dropped

    def take_all(self) -> Changes:
        """All that is kept, for a place that has lost what it had."""
        self._new, self._stored, self._dropped = self.kept(), set(), set()
        return self.take()


def encode(line: LogLine, most: int, seals: Callable[[str], str] | None = None) -> bytes:
    """A line as JSON, without secrets, of at most so many bytes where that can be reached by shorter texts; of a sealed job as `seals` makes it."""
    if seals is not None:
        return json.dumps(
            {SEALED: seals(encode(line, most * 3 // 4 - 200).decode())}
        ).encode()  # base64 takes a third more
    logger, level = clean(line.logger)[:255], clean(line.level)[:50]
    message = clean(without_secrets(line.message))
    exception = clean(without_secrets(line.exception)) if line.exception else None
    room = MOST_CHARACTERS
    while True:
        fields = {"time": line.time, "level": level, "logger": logger, "message": _shortened(message, room)}
        if exception:
            fields["exception"] = _shortened(exception, room)
        written = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        if len(written) <= most or room <= 1:
            return written
        room //= 2


def _shortened(text: str, room: int) -> str:
    """Head and tail of a text that is too long. The end of a traceback says what failed."""
    if len(text) <= room:
        return text
    return f"{text[: room // 2]} … {len(text) - room:,} characters … {text[len(text) - room // 2 :]}"


def joined(kept: Iterable[tuple[int, bytes]]) -> tuple[str, int]:
    """Lines as one text, each in a line, and how many were left out. Where some were, a line says so."""
    parts: list[str] = []
    left_out = expected = 0
    for number, line in sorted(kept):
        if gap := number - expected:
            parts.append(json.dumps({LEFT_OUT: gap}))
            left_out += gap
        parts.append(line.decode(errors="replace"))
        expected = number + 1
    return "\n".join(parts), left_out


def read(text: str, opens: Callable[[str], str] = str) -> tuple[LogLine, ...]:
    """The lines of such a text. What cannot be read is shown as it is; `opens` opens one that is sealed, and says so where it cannot."""
    return tuple(_read(one, opens) for one in text.split("\n") if one)


def _read(text: str, opens: Callable[[str], str]) -> LogLine:
    try:
        found = json.loads(text)
        if isinstance(sealed := found.get(SEALED), str):
            return _read(opens(sealed), str)
        if isinstance(left_out := found.get(LEFT_OUT), int):
            return LogLine("", "", "", f"… {left_out:,} lines were left out …", left_out=left_out)
        return LogLine(*_texts([found.get(name) for name in _FIELDS]))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return LogLine("", "", "", text)


def _texts(values: Sequence[object]) -> tuple[str, str, str, str, str | None]:
    time, level, logger, message = ("" if one is None else str(one) for one in values[:4])
    return time, level, logger, message, None if values[4] is None else str(values[4])
