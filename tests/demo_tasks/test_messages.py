"""Composing e-mails, and the connection to the mail server."""

import smtplib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conventions import BusinessError
from conventions.core.network_errors import is_network_error
from tasks.messages import TEMPLATES, address, compose, deliver
from tasks.settings import TaskSettings

VALUES = {
    "user_id": "7",
    "name": "Operations desk HND",
    "email": "hnd@example.com",
    "company": "Tokyo International Airport",
    "day": "2026-01-05",
}
EXTRA = {"headline": "News", "text": "None", "number": "42", "amount": "1,000 JPY", "due": "2026-02-01"}


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_template_can_be_filled_in(path: Path) -> None:
    """Each has a subject and a text, and needs nothing that its readers cannot know."""
    message = compose(path.stem, VALUES | EXTRA)
    assert message["Subject"]
    assert "$" not in message["Subject"] + message.get_content()


def test_a_line_break_in_a_value_makes_no_header() -> None:
    """A value cannot add a recipient."""
    message = compose("invoice", VALUES | EXTRA | {"number": "42\r\nBcc: all@example.com"})
    assert message["Bcc"] is None
    assert message["Subject"] == "Invoice 42 Bcc: all@example.com"


def test_japanese_text_survives() -> None:
    """Names are not ASCII."""
    message = compose("welcome", VALUES | {"name": "羽田空港"})
    assert message["Subject"] == "Welcome, 羽田空港"
    assert "羽田空港" in message.get_content()


@pytest.mark.parametrize("recipient", ["nobody", "a@b@c", "a b@example.com", "x@example.com\r\nBcc: all@example.com"])
def test_what_is_no_address_is_refused(recipient: str) -> None:
    """A broken address is found before the mail server is asked."""
    with pytest.raises(BusinessError, match="not an e-mail address"):
        address(compose("welcome", VALUES), sender="a@example.com", recipient=recipient, message_id="<1@example.com>")


def test_a_server_that_does_not_answer_is_a_time_out() -> None:
    """The setting `smtp_timeout` holds, and the error is one of the network."""
    message = compose("welcome", VALUES)
    address(message, sender="a@example.com", recipient="b@example.com", message_id="<1@example.com>")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = TaskSettings.load(smtp_host="127.0.0.1", smtp_port=silent.getsockname()[1], smtp_timeout=0.2)
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out") as raised:
            deliver(message, settings)
    assert is_network_error(raised.value)


def test_starttls_is_not_skipped_when_the_server_has_none(mail_server: Callable[[Any], int]) -> None:
    """An e-mail that must be encrypted is not sent in the clear."""
    settings = TaskSettings.load(smtp_host="127.0.0.1", smtp_port=mail_server(Refuses()), smtp_tls="starttls")
    message = compose("welcome", VALUES)
    address(message, sender="a@example.com", recipient="b@example.com", message_id="<1@example.com>")
    with pytest.raises(OSError, match="STARTTLS"):
        deliver(message, settings)


class Refuses:
    """Fails the test when an e-mail arrives."""

    async def handle_DATA(self, *_: Any) -> str:  # noqa: N802  # aiosmtpd's name
        raise AssertionError("the e-mail was sent in the clear")
