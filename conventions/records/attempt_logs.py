"""The log lines of attempts in SQL."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from conventions.attempt_log.live_logs import LiveLog
from conventions.core.error_text import clean, cut
from conventions.storage.database import insert_into
from conventions.storage.tables import AttemptLogRow

MOST_RUNS = 5  # of one attempt, the latest: a long job that goes on in turns has one for each turn
_LARGEST = 2**31 - 1  # of the columns


def record(session: Session, logs: Sequence[LiveLog], now: datetime) -> None:
    """Store lines. Those of a run that are there already are replaced: what is in Redis is always the whole."""
    rows = [_row(one, now) for one in logs if one.text]
    if not rows:
        return
    insert = insert_into(session, AttemptLogRow)
    key = ["message_id", "generation", "attempt", "token"]
    new = {name: insert.excluded[name] for name in ("lines", "left_out", "at")}
    session.connection().execute(insert.on_conflict_do_update(index_elements=key, set_=new), rows)
    for message_id, generation, attempt in {tuple(row[name] for name in key[:3]) for row in rows}:
        row = AttemptLogRow
        these = (row.message_id == message_id, row.generation == generation, row.attempt == attempt)
        latest = session.scalars(select(row.token).where(*these).order_by(row.at.desc(), row.token)).all()
        if old := latest[MOST_RUNS:]:
            session.execute(delete(row).where(*these, row.token.in_(old)))


def of_message(session: Session, message_id: str) -> Sequence[AttemptLogRow]:
    """Those of one message, in order."""
    row = AttemptLogRow
    query = select(row).where(row.message_id == cut(message_id))
    return session.scalars(query.order_by(row.generation, row.attempt, row.at, row.token)).all()


def _row(log: LiveLog, now: datetime) -> dict[str, str | int | datetime]:
    name = log.name
    return {
        "message_id": cut(name.message_id),
        "generation": min(name.generation, _LARGEST),
        "attempt": min(name.attempt, _LARGEST),
        "token": cut(name.token),
        "lines": clean(log.text),
        "left_out": min(log.left_out, _LARGEST),
        "at": now,
    }
