"""`enqueue_in`: a row in the transaction of a session of SQLAlchemy."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from conventions.outbox.entry import Entry
from conventions.outbox.nudge import nudge
from conventions.sending.application import SendingApplication

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_LISTENS, _WROTE = "conventions_outbox_listens", "conventions_outbox_wrote"  # of a session


def add(app: SendingApplication, session: Any, entries: Iterable[Entry]) -> None:
    """Add rows. They are sent after the session's transaction has committed; never, if it is rolled back.

    Args:
        app: the application.
        session: a `Session`, or an `AsyncSession`.
        entries: the messages.

    Raises:
        TypeError: it is no session, or it writes into another database than that of our tables.
    """
    from sqlalchemy import event  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    within = _session_of(app, session)
    within.add_all(OutboxRow(**one._asdict(), due_at=one.written_at, tries=0) for one in entries)
    within.info[_WROTE] = True
    if not within.info.get(_LISTENS):
        within.info[_LISTENS] = True
        event.listen(within, "after_commit", partial(_tell, app))


def _tell(app: SendingApplication, session: "Session") -> None:
    if session.info.pop(_WROTE, False):
        nudge(app)


def _session_of(app: SendingApplication, session: Any) -> "Session":
    from sqlalchemy.orm import Session  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.database import place_of, shown_place  # noqa: PLC0415  # the same
    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    within = getattr(session, "sync_session", session)
    if not isinstance(within, Session):
        raise TypeError(f"enqueue_in writes a row by a session of SQLAlchemy, and this is {type(session).__name__}")
    theirs, ours = within.get_bind(mapper=OutboxRow).engine.url, app.database.url
    if place_of(theirs) != place_of(ours):
        raise TypeError(
            f"the session writes into {shown_place(theirs)}, and our tables are in {shown_place(ours)}; one commit needs one "
            "database: set CONVENTIONS_DATABASE_URL to that of the session"
        )
    return within
