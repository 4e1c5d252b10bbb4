"""Filters of the audit in a URL, with the names that `AuditFilter` and the command line use."""

from datetime import datetime
from typing import Any

from conventions.console.filter_in_url import MOMENTS, ListingQuery
from conventions.records.audit_filter import OF, AuditFilter
from conventions.records.audit_listing import KINDS, Position
from conventions.records.journal import KINDS as OUTCOMES

FILTERS = ("of", "actor", "task", "queue", "id", "action", "outcome", "worker", "release", *MOMENTS)
CHOICES = {"of": OF, "outcome": OUTCOMES}


class AuditQuery(ListingQuery[AuditFilter]):
    """That of `/audit`."""

    NAMES = FILTERS
    CHOICES = CHOICES

    @classmethod
    def meant(cls, found: dict[str, Any]) -> AuditFilter:
        """The filter. Raises: ValueError: two of the parameters exclude each other."""
        which = AuditFilter(**found)
        if fault := which.fault():
            raise ValueError(fault)
        return which


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
