"""A real Flower with the console, and somebody who uses it over HTTP."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple
from uuid import uuid4

import httpx

from tests import prepared_python
from tests.support import wait_until
from tests.workers import Installation

ADDRESS = re.compile(r"Visit me at (http://127\.0\.0\.1:\d+)")
ROLES = '{"alice": "admin", "oscar": "operator", "vera": "viewer"}'
LOOPBACK = ("--address=127.0.0.1",)
LOGINS = "alice:a,oscar:o,vera:v,nobody:n"


class Running(NamedTuple):
    """A Flower that answers."""

    address: str
    pid: int  # of its process group, too


@contextmanager
def flower(
    installation: Installation,
    *arguments: str,
    app: str = "installed",
    listen: Sequence[str] = LOOPBACK,
    **variables: str,
) -> Iterator[str]:
    """Run `celery flower` on a free port; gives its address."""
    with running_flower(installation, *arguments, app=app, listen=listen, port=0, **variables) as running:
        yield running.address


@contextmanager
def running_flower(
    installation: Installation,
    *arguments: str,
    app: str = "installed",
    listen: Sequence[str] = LOOPBACK,
    port: int = 0,
    **variables: str,
) -> Iterator[Running]:
    """Run `celery flower` on this port, or on a free one; for who stops it, or ends it before its time."""
    log_path = installation.folder / f"flower-{uuid4().hex[:8]}.log"
    with log_path.open("w") as log:
        process = prepared_python.start(
            installation.celery("flower", *listen, f"--port={port}", *arguments, app=app),
            cwd=installation.folder,
            env=installation.environment | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def found() -> str | None:
            text = log_path.read_text(encoding="utf-8")
            assert process.poll() is None, text
            match = ADDRESS.search(text)
            return match[1] if match else None

        yield Running(wait_until(found, 30, "Flower answers"), process.pid)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class User:
    """Somebody with a browser's manners: keeps cookies, and sends the token of the forms.

    Args:
        address: Flower's.
        login: `user:password`; nothing for nobody.
    """

    def __init__(self, address: str, login: str = "") -> None:
        user, _, password = login.partition(":")
        self.client = httpx.Client(base_url=address, auth=(user, password) if login else None, timeout=20)

    def get(self, path: str, **words: str) -> httpx.Response:
        """Look at a page."""
        return self.client.get(path, params=words or None)

    def post(self, path: str, form: dict[str, str] | None = None, *, token: bool = True) -> httpx.Response:
        """Send a form, with the token that the last page set unless it is left out."""
        if token and "_xsrf" not in self.client.cookies:
            self.get("/dead-letters")
        values = dict(form or {}) | ({"_xsrf": self.client.cookies.get("_xsrf") or ""} if token else {})
        return self.client.post(path, data=values)

    def post_bytes(self, path: str, form: bytes) -> httpx.Response:
        """Send a form as it was written, with the token."""
        self.get("/dead-letters")
        form += b"&_xsrf=" + self.client.cookies["_xsrf"].encode()
        return self.client.post(path, content=form, headers={"Content-Type": "application/x-www-form-urlencoded"})

    def send(self, path: str, form: dict[str, str] | None = None) -> str:
        """Send a form that is taken; gives the page to which it leads."""
        answer = self.post(path, form)
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["Location"]).text
