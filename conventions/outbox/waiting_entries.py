"""The rows of the outbox that wait, for who looks at them."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from conventions.outbox.entry import Entry
from conventions.storage.tables import OutboxRow

AT_ONCE = 500  # rows in memory


def entries_of(session: Session, application: str) -> Iterator[Entry]:
    """Those of an application, by its key prefix, the oldest first."""
    own = select(OutboxRow).where(OutboxRow.application == application).order_by(OutboxRow.written_at, OutboxRow.id)
    for row in session.scalars(own.execution_options(yield_per=AT_ONCE)):
        yield Entry(*(getattr(row, name) for name in Entry._fields))
