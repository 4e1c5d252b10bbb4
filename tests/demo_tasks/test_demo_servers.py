"""The demo's mail server and webhook receiver keep what they are given."""

import smtplib
import socket
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from tasks.demo_servers import BUSY_ONCE, environment, received_events, received_mail


def test_what_is_received_is_counted_by_its_id(tmp_path: Path) -> None:
    """An e-mail sent twice is seen twice, or the demo could not tell."""
    message = EmailMessage()
    message["From"], message["To"], message["Message-ID"] = "a@example.com", "b@example.com", "<1@example.com>"
    with environment(tmp_path) as variables:
        with smtplib.SMTP(variables["CONVENTIONS_SMTP_HOST"], int(variables["CONVENTIONS_SMTP_PORT"])) as server:
            server.send_message(message)
            server.send_message(message)
        statuses = [
            httpx.post(
                variables["CONVENTIONS_WEBHOOK_URL"], json={"id": id}, headers={"Idempotency-Key": "k"}
            ).status_code
            for id in ("1", BUSY_ONCE, BUSY_ONCE)  # noqa: A001  # the receiver's word
        ]
    assert received_mail(tmp_path) == {"<1@example.com>": 2}
    assert statuses == [204, 503, 204]
    assert received_events(tmp_path) == {"1": 1, BUSY_ONCE: 1}


def test_each_run_begins_empty_and_ends_closed(tmp_path: Path) -> None:
    """What the last run received is gone, and nobody listens afterwards."""
    (tmp_path / "demo" / "mail").mkdir(parents=True)
    (tmp_path / "demo" / "mail" / "old.eml").touch()
    with environment(tmp_path) as variables:
        assert received_mail(tmp_path).total() == received_events(tmp_path).total() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((variables["CONVENTIONS_SMTP_HOST"], int(variables["CONVENTIONS_SMTP_PORT"])))
