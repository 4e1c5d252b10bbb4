"""`SendEmail` against a real mail server and a real database."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from conventions import BusinessError
from conventions.app import ConventionsApp
from conventions.storage.tables import IdempotencyRow
from tasks.demo_servers import mail_folder
from tasks.emails import SendEmail
from tasks.tables import EmailLog

DAY = date(2026, 1, 5)


@pytest.fixture
def user(app: ConventionsApp, add_contact: Callable[..., int]) -> int:
    return add_contact(app.database, "hnd@example.com", company="Tokyo International Airport")


def send(user_id: int, *, template_id: str = "welcome", day: date = DAY, job: str = "job-1", **values: str) -> str:
    arguments = {"user_id": user_id, "template_id": template_id, "day": day, "template_vars": values}
    result: str = SendEmail.apply(kwargs=arguments, task_id=job).get()
    return result


def mails(received: Path) -> list[EmailMessage]:
    return [message_from_bytes(path.read_bytes(), policy=default) for path in mail_folder(received).glob("*.eml")]


def logged(app: ConventionsApp) -> int:
    with app.database.session() as session:
        return session.scalar(select(func.count()).select_from(EmailLog)) or 0


def test_the_mail_server_is_given_the_filled_in_template(received: Path, app: ConventionsApp, user: int) -> None:
    """The recipient is looked up by the user's id, and the text names the user."""
    message_id = send(user)
    (mail,) = mails(received)
    assert mail["To"] == "hnd@example.com"
    assert mail["From"] == "no-reply@example.com"
    assert mail["Subject"] == "Welcome, Operations desk HND"
    assert mail["Message-ID"] == message_id
    assert "Tokyo International Airport" in mail.get_content()


def test_the_log_row_names_the_job(received: Path, app: ConventionsApp, user: int) -> None:
    """Who sent what to whom can be read afterwards."""
    message_id = send(user, job="job-7")
    with app.database.session() as session:
        row = session.scalars(select(EmailLog)).one()
        assert (row.user_id, row.template_id, row.day, row.job_id) == (user, "welcome", DAY, "job-7")
        assert (row.recipient, row.message_id) == ("hnd@example.com", message_id)


def test_a_second_run_sends_nothing_and_logs_the_first_job(
    received: Path, app: ConventionsApp, user: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that was given a key of its own finds the row of the first (R4)."""
    first = send(user, job="job-1")
    forget_effects(app)
    with caplog.at_level(logging.INFO, "tasks.emails"):
        assert send(user, job="job-2") == first
    assert len(mails(received)) == 1
    assert "was sent by job job-1 (this is job job-2)" in caplog.text


def test_another_day_template_or_user_is_another_email(
    received: Path, app: ConventionsApp, user: int, add_contact: Callable[..., int]
) -> None:
    """Each part of the key counts."""
    other = add_contact(app.database, "nrt@example.com")
    ids = {
        send(user),
        send(other),
        send(user, day=date(2026, 1, 6)),
        send(user, template_id="newsletter", headline="News", text="None"),
    }
    assert len(ids) == len(mails(received)) == logged(app) == 4


def test_a_failed_delivery_leaves_no_row(
    make_app: Callable[..., ConventionsApp], add_contact: Callable[..., int], mail_server: Callable[[Any], int]
) -> None:
    """The retry finds nothing in the log and sends."""
    server = RefusesTwice()
    app = make_app(smtp_host="127.0.0.1", smtp_port=mail_server(server))
    user = add_contact(app.database, "hnd@example.com")
    send(user)
    assert server.asked == 3
    assert logged(app) == 1


def test_a_recipient_refused_for_good_is_a_business_error(
    make_app: Callable[..., ConventionsApp], add_contact: Callable[..., int], mail_server: Callable[[Any], int]
) -> None:
    """No retry can mend an address that the server does not know."""
    server = KnowsNobody()
    app = make_app(smtp_host="127.0.0.1", smtp_port=mail_server(server))
    user = add_contact(app.database, "hnd@example.com")
    with pytest.raises(BusinessError, match=r"refused hnd@example.com: 550 5.1.1 unknown"):
        send(user)
    assert server.asked == 1
    assert logged(app) == 0


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no-such", "no such e-mail template: 'no-such'"),
        ("../emails", "no such e-mail template"),
        ("newsletter", "needs the value 'text'"),
    ],
)
def test_what_cannot_be_composed_is_a_business_error(
    received: Path, app: ConventionsApp, user: int, template: str, message: str
) -> None:
    """Neither is sent, neither is logged, neither is tried again."""
    with pytest.raises(BusinessError, match=message):
        send(user, template_id=template, headline="News")
    assert mails(received) == []
    assert logged(app) == 0


def test_an_unknown_user_is_a_business_error(received: Path, app: ConventionsApp) -> None:
    """There is no address to write to."""
    with pytest.raises(BusinessError, match="no user 404"):
        send(404)


def test_two_runs_at_once_send_one_email(
    received: Path,
    make_app: Callable[..., ConventionsApp],
    database_url: str,
    add_contact: Callable[..., int],
) -> None:
    """The second insert waits for the first one's commit, on each database."""
    app = make_app(database_url=database_url)
    user = add_contact(app.database, "hnd@example.com")
    with ThreadPoolExecutor(4, initializer=app.set_current) as threads:
        jobs = [threads.submit(run_under_own_key, user, f"job-{number}") for number in range(4)]
        ids = {job.result(timeout=60) for job in jobs}
    assert len(ids) == len(mails(received)) == logged(app) == 1
    with app.database.session() as session:
        assert session.scalar(select(func.count()).select_from(IdempotencyRow)) == 4


def run_under_own_key(user: int, job: str) -> str:
    arguments = {"user_id": user, "template_id": "welcome", "day": DAY, "template_vars": {}}
    result: str = SendEmail.apply(kwargs=arguments, task_id=job, headers={"x_key": job}).get()
    return result


def forget_effects(app: ConventionsApp) -> None:
    with app.database.session() as session:
        session.query(IdempotencyRow).delete()


class RefusesTwice:
    """Asks to come back later two times, then takes the e-mail."""

    asked = 0

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802  # aiosmtpd's name
        self.asked += 1
        if self.asked < 3:
            return "450 4.2.1 busy"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, _envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        return "250 OK"


class KnowsNobody:
    """Refuses every recipient."""

    asked = 0

    async def handle_RCPT(self, *_: Any) -> str:  # noqa: N802  # aiosmtpd's name
        self.asked += 1
        return "550 5.1.1 unknown"
