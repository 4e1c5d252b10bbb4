"""`delay_on_commit`: a row in Django's transaction."""

from collections.abc import Sequence
from functools import partial

from conventions.outbox.entry import AT_ONCE, Entry
from conventions.outbox.wake_relay import nudge
from conventions.sending.application import SendingApplication


def insert(app: SendingApplication, using: str, entries: Sequence[Entry]) -> None:
    """Insert rows by Django's connection. They are sent after its transaction has committed; never, if it is rolled back.

    Args:
        app: the application.
        using: an alias of `DATABASES`.
        entries: the messages.

    Raises:
        TypeError: that database is not where our tables are, or not one of those that have them.
    """
    from conventions.django.outbox_rows import insert_rows  # noqa: PLC0415  # only where there is Django

    insert_rows(app.database, using, [one._asdict() for one in entries], AT_ONCE, partial(nudge, app))
