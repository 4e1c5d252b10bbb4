"""Filters of dead letters: the same for listings, selections, the command line and the console (R18)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self

from sqlalchemy import ColumnElement, Text, cast, literal, or_

from conventions.broker.header_names import FOUND_BY
from conventions.core.errors import SelectionChanged
from conventions.sealing.blind_index import Codes, Pairs
from conventions.storage.tables import DeadLetterRow

BOUNDS = ("counted_at", "newest")  # words of a filter for letters that were counted before


@dataclass(frozen=True, slots=True)
class Counted:
    """When somebody counted letters, to decide about just these: none that dies or becomes old enough later.

    Attributes:
        at: by the clock of who counted: ages count from then; `None`: nobody has.
        newest: the newest last failure that was counted: later ones do not match; `None`: none was there, or nobody has counted.
    """

    at: datetime | None = None
    newest: datetime | None = None

    def words(self) -> dict[str, datetime | None]:
        """As a filter's words have it, also those of a release that had no such type."""
        return dict(zip(BOUNDS, (self.at, self.newest), strict=True))


NOBODY = Counted()


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects dead letters. Every given field must match.

    Attributes:
        state: of the letter; `None` for all.
        task: a task's name, or the last part of it.
        group: a fingerprint.
        redrive: the last redrive run that sent the letter.
        left_by: a redrive run that was to send the letter, and has not; see `selected`.
        text: occurs in the error's message, the traceback or the arguments, in upper or lower case.
        arguments: pairs of an argument's name and its value, as text or as JSON.
        codes: the same of sealed letters, see `sealing/blind_index.py`. A name that has both matches in either way.
        older_than: the last failure was longer ago than this.
        newer_than: the last failure was at most this long ago.
        ids: the letter has one of these ids.
        counted: when somebody counted them; only who asks before he acts has that.
    """

    state: str | None = "dead"
    task: str | None = None
    queue: str | None = None
    error: str | None = None
    group: str | None = None
    text: str | None = None
    arguments: Pairs = ()
    codes: Codes = ()
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    ids: tuple[str, ...] = ()
    redrive: str | None = None
    left_by: str | None = None
    counted: Counted = NOBODY

    def conditions(self, now: datetime) -> list[ColumnElement[bool]]:
        """The filter as SQL conditions, but for `left_by`. Ages count from `now`, unless the letters were counted before."""
        row, now = DeadLetterRow, self.counted.at or now
        pairs = (
            (row.state, self.state),
            (row.queue, self.queue),
            (row.error, self.error),
            (row.fingerprint, self.group),
            (row.redrive_id, self.redrive),
        )
        found: list[ColumnElement[bool]] = [column == value for column, value in pairs if value is not None]
        if self.task is not None:
            found.append(row.task == self.task if "." in self.task else _ends(self.task))
        if self.text is not None:
            found.append(_holds(self.text))
        found += _by_arguments(self.arguments, self.codes)
        if self.older_than is not None:
            found.append(row.last_failed_at < now - self.older_than)
        if self.newer_than is not None:
            found.append(row.last_failed_at >= now - self.newer_than)
        if self.counted.newest is not None:
            found.append(row.last_failed_at <= self.counted.newest)
        return [*found, row.id.in_(self.ids)] if self.ids else found

    @property
    def open(self) -> Self:
        """The same filter for whenever it is asked: letters that have died since the count match, too."""
        return replace(self, counted=NOBODY)

    @property
    def name(self) -> str:
        """The audit's name for the letters: an id, a group, or "a selection"."""
        if len(self.ids) == 1:
            return self.ids[0]
        if self.open.words().keys() == {"group"}:
            return f"group {self.group}"
        return "a selection"

    def words(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as JSON, for an SQL row."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Counted):
                found |= {name: _word(at) for name, at in value.words().items() if at is not None}
            elif value != one.default:
                found[one.name] = _word(value)
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # tuples become lists

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Self:
        """The filter that `words` described. Raises: TypeError for an unknown word."""
        values = dict(words)
        for name in ("older_than", "newer_than"):
            if name in values:
                values[name] = timedelta(seconds=values[name])
        found = [values.pop(name, None) for name in BOUNDS]
        values["counted"] = Counted(*(None if at is None else datetime.fromisoformat(at) for at in found))
        if "arguments" in values:
            values["arguments"] = tuple((name, value) for name, value in values["arguments"])
        if "codes" in values:
            values["codes"] = tuple((name, tuple(codes)) for name, codes in values["codes"])
        if "ids" in values:
            values["ids"] = tuple(values["ids"])
        return cls(**values)


def _word(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case datetime():
            return value.isoformat()
        case _:
            return value


def _ends(task: str) -> ColumnElement[bool]:
    row = DeadLetterRow
    return or_(row.task == task, row.task.endswith(f".{task}", autoescape=True))


def _holds(text: str) -> ColumnElement[bool]:
    row, escaped = DeadLetterRow, json.dumps(text)[1:-1]  # the text as JSON escapes it in the arguments
    arguments = cast(row.arguments, Text)
    return or_(
        row.error_message.icontains(text, autoescape=True),
        row.traceback.icontains(text, autoescape=True),
        arguments.icontains(escaped, autoescape=True),
    )


def _by_arguments(arguments: Pairs, codes: Codes) -> list[ColumnElement[bool]]:
    """Each argument in either way."""
    plain, coded = dict(arguments), dict(codes)
    found = [_argument(name, value) for name, value in arguments if name not in coded]
    for name, of_name in codes:
        ways = [_code(name, of_name)] + ([_argument(name, plain[name])] if name in plain else [])
        found.append(or_(*ways))
    return found


def _code(name: str, codes: Sequence[str]) -> ColumnElement[bool]:
    found = DeadLetterRow.headers.op("->")(cast(literal(FOUND_BY), Text)).op("->")(cast(literal(name), Text))
    return cast(found, Text).in_([json.dumps(code) for code in codes])


def _argument(name: str, value: str) -> ColumnElement[bool]:
    # In both databases `->` returns an argument as JSON text: quoted for a text, plain for any other value.
    found = cast(DeadLetterRow.arguments.op("->")(cast(literal(name), Text)), Text)
    return found.in_([json.dumps(value), value])


def check_agreed(which: Filter, expected: int | None, found: int) -> None:
    """Refuse to act on other letters than somebody confirmed. Raises: SelectionChanged; the transaction must end."""
    if (
        expected is not None and found < expected and which.counted.newest is not None
    ):  # newer ones are not among those found
        raise SelectionChanged(
            f"of the {expected:,} dead letters to which you agreed, {found:,} are still there; nothing was done"
        )
    if expected is not None and found != expected:
        raise SelectionChanged(
            f"there are {found:,} dead letters now, and were {expected:,} when you agreed; nothing was done"
        )
