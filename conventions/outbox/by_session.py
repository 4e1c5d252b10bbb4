"""`enqueue_in`: a row in the transaction of a session of SQLAlchemy."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from conventions.outbox.entry import AT_ONCE, Entry
from conventions.outbox.wake_relay import nudge
from conventions.sending.application import SendingApplication

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_LISTENS, _WROTE = "conventions_outbox_listens", "conventions_outbox_wrote"  # of a session


def add(app: SendingApplication, session: Any, entries: Sequence[Entry]) -> None:
    """Add rows. They are sent after the session's transaction has committed; never, if it is rolled back.

    Args:
        app: the application.
        session: a `Session`, an `AsyncSession`, or what gives the one of this thread or task.
        entries: the messages. One whose id is there already changes nothing.

    Raises:
        TypeError: it is no session, or it writes into another database than that of our tables.
        SQLAlchemyError: the database takes no row; with what to do where our tables are not there.
    """
    from sqlalchemy import event  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.database import insert_by  # noqa: PLC0415  # the same
    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    within, is_async = _session_of(session)
    bind = _bind_of(app, within)
    rows = [{**one._asdict(), "due_at": AT_ONCE, "tries": 0} for one in entries]
    if is_async:  # which executes nothing here: the rows go with the next flush
        within.add_all(OutboxRow(**row) for row in rows)
    elif rows:
        insert = insert_by(bind, OutboxRow.__table__).on_conflict_do_nothing()
        with _telling_what_is_missing():
            within.execute(insert, rows, bind_arguments={"bind": bind})
    within.info[_WROTE] = True
    if not within.info.get(_LISTENS):
        within.info[_LISTENS] = True
        event.listen(within, "after_commit", partial(_tell, app))


def _tell(app: SendingApplication, session: "Session") -> None:
    if session.info.pop(_WROTE, False):
        nudge(app)


def _session_of(session: Any) -> tuple["Session", bool]:
    """The session itself, and whether it is one of asyncio."""
    from sqlalchemy.orm import Session, scoped_session  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    of_asyncio: Any = sys.modules.get("sqlalchemy.ext.asyncio")  # it needs greenlet: not everybody has that
    if isinstance(session, scoped_session) or (of_asyncio and isinstance(session, of_asyncio.async_scoped_session)):
        session = session()
    if of_asyncio and isinstance(session, of_asyncio.AsyncSession):
        return session.sync_session, True
    if not isinstance(session, Session):
        raise TypeError(f"enqueue_in writes a row by a session of SQLAlchemy, and this is {type(session).__name__}")
    return session, False


def _bind_of(app: SendingApplication, session: "Session") -> Any:
    """What the session writes our row by. Raises: TypeError: that is another database than ours."""
    from sqlalchemy.exc import UnboundExecutionError  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    from conventions.storage.database import place_of, shown_place  # noqa: PLC0415  # the same
    from conventions.storage.tables import OutboxRow  # noqa: PLC0415  # the same

    try:
        bind = session.get_bind(mapper=OutboxRow)
    except UnboundExecutionError:
        raise TypeError(
            "the session has no engine for our table conventions_outbox: give it one for all tables, "
            "Session(engine), or for this one, too: binds={..., conventions.storage.tables.Base: engine}"
        ) from None
    theirs, ours = bind.engine.url, app.database.url
    is_unsaid = theirs.database is None and theirs.host is None  # as where `creator=` makes the connections
    if not is_unsaid and place_of(theirs) != place_of(ours):
        raise TypeError(
            f"the session writes into {shown_place(theirs)}, and our tables are in {shown_place(ours)}; one commit needs one "
            "database: set CONVENTIONS_DATABASE_URL to that of the session"
        )
    return bind


@contextmanager
def _telling_what_is_missing() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if "conventions_outbox" in str(getattr(error, "orig", "")):
            error.add_note("our table conventions_outbox is not there: run `celery -A <app> db upgrade`")
        raise
