"""Redrive: send a dead letter again, with its id and idempotency key, and with fresh attempts (R18)."""

from typing import Any

from sqlalchemy.orm import Session

from conventions import dead_letters
from conventions.errors import PayloadError
from conventions.job import COUNTS


def redrive(app: Any, id: str) -> bool:  # noqa: A002  # the word of the glossary
    """Send one dead letter again. False when it is not dead any more, or its task is not registered.

    Raises:
        BrokerUnavailable: nothing was sent and the letter stays dead.
        PayloadError: its arguments do not fit the task any more.
    """
    with app.database.session() as session:
        # The row stays locked until the message is out: a second redrive at the same time sends nothing.
        return _send(app, session, id)


def _send(app: Any, session: Session, id: str) -> bool:  # noqa: A002
    letter = dead_letters.get(session, id)
    task = app.tasks.get(letter.task) if letter is not None else None
    if letter is None or task is None or not dead_letters.move(session, id, ("dead",), "redriven"):
        return False
    if not isinstance(letter.arguments, dict):
        raise PayloadError(f"{id}: its arguments are not a mapping")
    headers = {name: value for name, value in letter.headers.items() if name != COUNTS}  # fresh attempts
    try:
        task.apply_async(kwargs=letter.arguments, task_id=id, headers=headers)
    except TypeError as error:
        raise PayloadError(str(error)) from error
    return True
