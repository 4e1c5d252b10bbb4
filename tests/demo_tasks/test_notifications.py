"""`SendNotification` against a real HTTP server."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from conventions import BusinessError
from conventions.app import ConventionsApp
from tasks.demo_servers import events_file
from tasks.notifications import SendNotification


def post(event_id: str = "order-7-shipped", **options: Any) -> int:
    arguments = {"event_id": event_id, "event": "order.shipped", "data": {"order": "7"}}
    status: int = SendNotification.apply(kwargs=arguments, **options).get()
    return status


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Run a web server that always answers so, and return its address."""
    servers: list[tuple[HTTPServer, threading.Thread]] = []

    def run(status: int, headers: dict[str, str], asked: list[str]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.append(self.path)
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                for name, value in (headers | {"Content-Length": "0"}).items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/hook"

    yield run
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_webhook_is_given_the_event_and_the_key(received: Path, app: ConventionsApp) -> None:
    """What was sent is what arrives, and the receiver can tell a repetition by the key."""
    assert post(headers={"x_key": "注文 7"}) == 204
    (line,) = events_file(received).read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "id": "order-7-shipped",
        "event": "order.shipped",
        "data": {"order": "7"},
        "idempotency_key": "%E6%B3%A8%E6%96%87%207",  # a header is ASCII
    }


def test_the_key_of_two_sends_of_one_event_is_the_same(received: Path, app: ConventionsApp) -> None:
    """The key is made of the event's id, not of the message's."""
    post(task_id="one")
    post(task_id="two")
    keys = [json.loads(line)["idempotency_key"] for line in events_file(received).read_text().splitlines()]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_refusal_is_a_business_error(
    make_app: Callable[..., ConventionsApp], answering: Callable[..., str], status: int
) -> None:
    """The same event would be refused again, so it is asked once."""
    asked: list[str] = []
    make_app(webhook_url=answering(status, {"Location": "/elsewhere"}, asked))
    with pytest.raises(BusinessError, match=f"refused 'order.shipped' 'order-7-shipped': {status}"):
        post()
    assert asked == ["/hook"]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_an_answer_that_may_change_is_tried_again(
    make_app: Callable[..., ConventionsApp],
    answering: Callable[..., str],
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Five attempts in all; the policy reads the answer's Retry-After."""
    asked: list[str] = []
    address = answering(status, {"Retry-After": "33"}, asked)
    make_app(webhook_url=address.replace("://", "://user:word@") + "?token=word")
    with pytest.raises(httpx.HTTPError, match=str(status)) as fault:
        post()
    assert len(asked) == 5
    assert "word" not in str(fault.value)
    assert "/hook" not in str(fault.value)
    assert caplog.text.count("next attempt in 33.0 s") == (4 if status in (429, 503) else 0)


def test_nobody_there_is_a_network_error(make_app: Callable[..., ConventionsApp]) -> None:
    """Ten attempts, by the policy's own kind of error."""
    make_app(webhook_url="http://127.0.0.1:1/")
    with pytest.raises(httpx.ConnectError):
        post()
    assert SendNotification.retry_policy.kind_of(httpx.ConnectError("refused")) == "network"


def test_without_an_address_the_message_says_what_to_set(app: ConventionsApp) -> None:
    """No retry can mend a setting."""
    with pytest.raises(BusinessError, match="CONVENTIONS_WEBHOOK_URL"):
        post()
