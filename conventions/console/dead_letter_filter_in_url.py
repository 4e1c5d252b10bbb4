"""Filters of dead letters in a URL, with the names that `Filter` and the command line use."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from conventions.console.filter_in_url import PageQuery
from conventions.core.name_and_value import name_and_value
from conventions.core.time_units import age
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.dead_letters.letters import Position

TEXTS = ("task", "queue", "error", "group", "redrive", "left_by", "text")
AGES = ("older_than", "newer_than")
FILTERS = ("state", *TEXTS, *AGES)
MOST_IDS = 500


class Query(PageQuery[Filter]):
    """That of the pages of dead letters, and of their forms."""

    @classmethod
    def read(cls, values: Callable[[str], Sequence[str]]) -> Self:
        """Read the parameters of a request.

        Args:
            values: returns the values of a name in the URL or in a form.

        Raises:
            ValueError: what is wrong, for people.
        """
        written: list[tuple[str, str]] = []
        found: dict[str, Any] = {}
        for name in FILTERS:
            if text := "".join(values(name)[-1:]).strip():
                written.append((name, text))
                found[name] = age(text) if name in AGES else text
        if found.get("state", "dead") not in dead_letters.STATES:
            raise ValueError(f"there is no state {found['state']!r}; it is one of {', '.join(dead_letters.STATES)}")
        pairs = [text for text in values("arg") if text.strip()]
        arguments = tuple(name_and_value(text) for text in pairs)
        ids = tuple(dict.fromkeys(values("id")))
        if len(ids) > MOST_IDS:
            raise ValueError(f"{len(ids)} letters are too many to be named one by one; use a filter")
        written += [("arg", text) for text in pairs] + [("id", id_) for id_ in ids]
        return cls(Filter(arguments=arguments, ids=ids, **found), tuple(written))

    @classmethod
    def from_invalid(cls, values: Callable[[str], Sequence[str]]) -> Self:
        """An invalid query: only its parameters, so that the visitor can correct them."""
        words = [(name, text) for name in FILTERS for text in values(name)[-1:]]
        return cls(Filter(), (*words, *(("arg", text) for text in values("arg"))))

    @classmethod
    def empty(cls) -> Self:
        """All dead letters."""
        return cls(Filter(), ())

    @property
    def arguments(self) -> list[str]:
        """The parameters `arg`, as they were written: `user_id=7`."""
        return [text for name, text in self.parameters if name == "arg"]

    @property
    def has_filter(self) -> bool:
        """Whether it filters by more than the state."""
        return any(name != "state" for name, _ in self.parameters)

    @property
    def dead(self) -> Filter:
        """The same filter, for dead letters only."""
        return replace(self.filter, state="dead")


def position_text(position: Position) -> str:
    """A position in a list as text, for a URL."""
    return f"{position[0].isoformat()}~{position[1]}"


def read_position(text: str) -> Position | None:
    """The position that `position_text` wrote; `None` for an empty text. Raises: ValueError."""
    if not text:
        return None
    moment, tilde, id_ = text.partition("~")
    try:
        when = datetime.fromisoformat(moment)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or not tilde:
        raise ValueError("this link to a page is not whole; go back to the first page")
    return when, id_
