"""Filters of the audit in a URL, with the names that `AuditFilter` and the command line use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Self
from urllib.parse import urlencode

from conventions.core.units import moment_or_age
from conventions.records.audit_filter import OF, AuditFilter
from conventions.records.audit_listing import KINDS, Position
from conventions.records.journal import KINDS as OUTCOMES

MOMENTS = ("since", "until")
FILTERS = ("of", "actor", "task", "queue", "id", "action", "outcome", "worker", "release", *MOMENTS)
CHOICES = {"of": OF, "outcome": OUTCOMES}


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """The parameters of the page as they were written, and the filter that they mean."""

    filter: AuditFilter
    parameters: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, values: Callable[[str], Sequence[str]], now: datetime, zone: tzinfo) -> Self:
        """Read the parameters of a request.

        Args:
            values: returns the values of a name in the URL.
            now: the moment from which ages count back.
            zone: of a time that names none.

        Raises:
            ValueError: what is wrong, for people.
        """
        written = _written(values)
        found: dict[str, Any] = {}
        for name, text in written:
            if name in CHOICES and text not in CHOICES[name]:
                raise ValueError(f"there is no {name} {text[:40]!r}; it is one of {', '.join(CHOICES[name])}")
            try:
                found[name] = moment_or_age(text, now, zone) if name in MOMENTS else text
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        which = AuditFilter(**found)
        if fault := which.fault():
            raise ValueError(fault)
        return cls(which, written)

    @classmethod
    def from_invalid(cls, values: Callable[[str], Sequence[str]]) -> Self:
        """An invalid query: only its parameters, so that the visitor can correct them."""
        return cls(AuditFilter(), _written(values))

    def get(self, name: str) -> str:
        """The parameter of this name, or an empty text."""
        return dict(self.parameters).get(name, "")

    def url(self, **changes: str) -> str:
        """The query of a link, with some parameters changed. An empty value removes a parameter."""
        kept = [(name, text) for name, text in self.parameters if name not in changes]
        return urlencode(kept + [(name, text) for name, text in changes.items() if text])


def position_text(position: Position) -> str:
    """A position in the listing as text, for a URL."""
    return f"{position.at.isoformat()}~{position.of}~{position.row_id}"


def read_position(text: str) -> Position | None:
    """The position that `position_text` wrote; `None` for an empty text. Raises: ValueError."""
    if not text:
        return None
    moment, _, rest = text.partition("~")
    of, tilde, row_id = rest.partition("~")
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        at = None
    kind = next((one for one in KINDS if one == of), None)
    if at is None or at.tzinfo is None or kind is None or not tilde:
        raise ValueError("this link to a page is not whole; go back to the first page")
    return Position(at, kind, row_id)


def _written(values: Callable[[str], Sequence[str]]) -> tuple[tuple[str, str], ...]:
    words = ((name, "".join(values(name)[-1:]).strip()) for name in FILTERS)
    return tuple((name, text) for name, text in words if text)
