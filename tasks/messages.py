"""E-mails: composed from the templates in `tasks/templates/`, handed to the mail server by smtplib."""

import re
import smtplib
import ssl
from collections.abc import Mapping
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime
from pathlib import Path
from string import Template

from conventions import BusinessError
from tasks.settings import TaskSettings

TEMPLATES = Path(__file__).with_name("templates")

_PERMANENT = 500  # SMTP answers from here on say that trying again is of no use


def compose(template_id: str, values: Mapping[str, str]) -> EmailMessage:
    """Fill in a template: `Subject: …`, an empty line, the text.

    Raises:
        BusinessError: no such template, or the template needs a value that is not there.
    """
    path = TEMPLATES / f"{template_id}.txt"
    # The name comes from a payload: it must not lead to another folder.
    if not re.fullmatch(r"[a-z0-9_-]{1,64}", template_id) or not path.is_file():
        raise BusinessError(f"no such e-mail template: {template_id!r}")
    subject, _, text = path.read_text(encoding="utf-8").partition("\n\n")
    message = EmailMessage()
    try:
        # A line break in a value would begin another header.
        message["Subject"] = " ".join(Template(subject.removeprefix("Subject:")).substitute(values).split())
        message.set_content(Template(text).substitute(values))
    except KeyError as error:
        raise BusinessError(f"template {template_id!r} needs the value {error.args[0]!r}") from None
    return message


def address(message: EmailMessage, *, sender: str, recipient: str, message_id: str) -> None:
    """Write the envelope's headers.

    Raises:
        BusinessError: the recipient is not an e-mail address.
    """
    message["From"] = sender
    try:
        message["To"] = Address(addr_spec=recipient)
    except (ValueError, IndexError, MessageError) as error:
        raise BusinessError(f"not an e-mail address: {recipient!r}") from error
    message["Date"] = localtime()
    message["Message-ID"] = message_id


def deliver(message: EmailMessage, settings: TaskSettings) -> None:
    """Hand the message to the mail server of the settings.

    Raises:
        BusinessError: the server refused the recipient for good.
        smtplib.SMTPException, OSError: anything else, which a retry may mend.
    """
    try:
        with _connect(settings) as server:
            if settings.smtp_user and settings.smtp_password:
                server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        code, reason = next(iter(error.recipients.values()))
        if code >= _PERMANENT:
            raise BusinessError(f"the mail server refused {message['To']}: {code} {_text(reason)}") from error
        raise


def _connect(settings: TaskSettings) -> smtplib.SMTP:
    host, port, timeout = settings.smtp_host, settings.smtp_port, settings.smtp_timeout
    if settings.smtp_tls == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=ssl.create_default_context())
    server = smtplib.SMTP(host, port, timeout=timeout)
    if settings.smtp_tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except (smtplib.SMTPException, OSError):
            server.close()
            raise
    return server


def _text(reason: bytes | str) -> str:
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
