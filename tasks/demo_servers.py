"""Local stand-ins for the two servers that the demo's jobs speak to: a mail server and a webhook receiver."""

import json
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from uuid import uuid4

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "127.0.0.1"
BUSY_ONCE = "answered-503-first"  # an event with this word in its id is refused the first time


class MailFolder:
    """Takes every e-mail and keeps it as a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        """Keep one e-mail."""
        content = envelope.original_content or b""
        (self._folder / f"{uuid4().hex}.eml").write_bytes(content)
        return "250 kept"


class Receiver(BaseHTTPRequestHandler):
    """Takes every event that is posted and appends it to a file, one JSON object a line."""

    protocol_version = "HTTP/1.1"
    server: "ReceiverServer"

    def do_POST(self) -> None:  # the standard library's name
        """Take one event, or refuse it once when its id says so."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.take(event, self.headers["Idempotency-Key"])
        self.send_response(status)
        if status == 503:
            self.send_header("Retry-After", "2")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the standard library's name
        """Keep quiet: the console belongs to the demo."""


class ReceiverServer(ThreadingHTTPServer):
    """The webhook receiver; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, file: Path) -> None:
        super().__init__((HOST, 0), Receiver)
        self._file = file
        self._lock = Lock()
        self._refused: set[str] = set()

    def take(self, event: dict[str, Any], key: str | None) -> int:
        """Keep the event; return the HTTP status."""
        with self._lock:
            if BUSY_ONCE in event["id"] and event["id"] not in self._refused:
                self._refused.add(event["id"])
                return 503
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event | {"idempotency_key": key}) + "\n")
        return 204


@contextmanager
def environment(folder: Path) -> Iterator[Mapping[str, str]]:
    """Run both servers on free ports of this machine, and point the settings at them.

    What they receive is in `demo/mail` and `demo/events.jsonl` below the folder, anew for each run; what the jobs
    write is in `demo/output` and stays.
    """
    mail, events = mail_folder(folder), events_file(folder)
    shutil.rmtree(mail, ignore_errors=True)
    mail.mkdir(parents=True)
    events.unlink(missing_ok=True)
    events.touch()
    controller = Controller(MailFolder(mail), hostname=HOST, port=_free_port())
    receiver = ReceiverServer(events)
    thread = Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, name="webhook", daemon=True)
    controller.start()
    thread.start()
    try:
        yield {
            "CONVENTIONS_SMTP_HOST": HOST,
            "CONVENTIONS_SMTP_PORT": str(controller.port),
            "CONVENTIONS_SMTP_TLS": "none",
            "CONVENTIONS_SMTP_USER": "",
            "CONVENTIONS_SMTP_PASSWORD": "",
            "CONVENTIONS_WEBHOOK_URL": f"http://{HOST}:{receiver.server_port}/events",
            "CONVENTIONS_OUTPUT_DIR": str(folder / "demo" / "output"),
        }
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join()
        controller.stop()


def mail_folder(folder: Path) -> Path:
    """Where the mail server keeps what it takes."""
    return folder / "demo" / "mail"


def events_file(folder: Path) -> Path:
    """Where the webhook receiver keeps what it takes."""
    return folder / "demo" / "events.jsonl"


def received_mail(folder: Path) -> Counter[str]:
    """How often each e-mail was received, by its Message-ID."""
    messages = (message_from_bytes(path.read_bytes(), policy=default) for path in mail_folder(folder).glob("*.eml"))
    return Counter(str(message["Message-ID"]).strip() for message in messages)


def received_events(folder: Path) -> Counter[str]:
    """How often each event was received, by its id."""
    lines = events_file(folder).read_text(encoding="utf-8").splitlines()
    return Counter(json.loads(line)["id"] for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
