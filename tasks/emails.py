"""E-mail to one user (R1, R4, R5)."""

import logging
from collections.abc import Mapping
from datetime import UTC, date, datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from conventions import BusinessError, ImmediateTask
from tasks.messages import address, compose, deliver
from tasks.tables import Contact, EmailLog

logger = logging.getLogger(__name__)


class SendEmail(ImmediateTask):
    """Deliver one templated e-mail to one user, once per day and template.

    Check, do, record (R4): the row in `email_log` is inserted first, then the mail server takes the message, then
    the row is committed. What that guarantees:

    - A second run of the same user, template and day sends nothing, whatever its id or idempotency key: it finds
      the row, logs which job sent the e-mail, and returns that e-mail's Message-ID. Two runs at once: the second
      waits for the first one's commit.
    - A failed delivery takes the row back, and the retry sends.
    - A mail server is not part of an SQL transaction: a process killed after the server took the message and
      before the commit sends it once more when it is retried. Both copies carry the same Message-ID.

    On SQLite a delivery holds the database's one write lock, so e-mails go out one after the other; PostgreSQL
    locks the one row.

    Raises:
        BusinessError: no such user or template, a value of the template is missing, or the server refused the
            recipient for good.
    """

    idempotent_on = ("user_id", "template_id", "day")

    def run(self, user_id: int, template_id: str, day: date, template_vars: dict[str, str]) -> str:
        """Send the e-mail and return its Message-ID.

        Args:
            user_id: the id of a contact; its address is looked up here, not carried by the message (R20).
            template_id: a file in `tasks/templates/`, without `.txt`.
            day: the day that the e-mail belongs to.
            template_vars: values for the template, besides the contact's own (`name`, `email`, `company`, ...).
        """
        settings = self.app.settings
        with self.transaction() as session:
            contact = session.get(Contact, user_id)
            if contact is None:
                raise BusinessError(f"no user {user_id}")
            message_id = f"<{template_id}.{user_id}.{day:%Y%m%d}@{settings.smtp_from.rpartition('@')[2].strip('> ')}>"
            message = compose(template_id, _values(contact, day) | template_vars)
            address(message, sender=settings.smtp_from, recipient=contact.email, message_id=message_id)
            row = {
                "user_id": user_id,
                "template_id": template_id,
                "day": day,
                "job_id": self.job.id,
                "recipient": contact.email,
                "message_id": message_id,
                "sent_at": datetime.now(UTC),
            }
            if _reserve(session, row):
                deliver(message, settings)
            else:
                message_id = _earlier(session, user_id, template_id, day, self.job.id)
            session.info["result"] = message_id
        return message_id


def _values(contact: Contact, day: date) -> dict[str, str]:
    return {
        "user_id": str(contact.id),
        "name": contact.name,
        "email": contact.email,
        "company": contact.company,
        "day": day.isoformat(),
    }


def _reserve(session: Session, row: Mapping[str, object]) -> bool:
    """Insert the log row; false when this user, template and day have one. Waits for one not yet committed."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    return session.scalar(insert(EmailLog).values(row).on_conflict_do_nothing().returning(EmailLog.id)) is not None


def _earlier(session: Session, user_id: int, template_id: str, day: date, job_id: str) -> str:
    row = session.scalars(select(EmailLog).filter_by(user_id=user_id, template_id=template_id, day=day)).one()
    logger.info(
        "not sent again: %s to user %d for %s was sent by job %s (this is job %s)",
        template_id, user_id, day, row.job_id, job_id,
    )  # fmt: skip
    return row.message_id
