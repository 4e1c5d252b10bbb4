"""Chapter 11: a job is tested as a job: send it, wait until it finished, look at its result and at its effect (R23)."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask, PayloadError
from tests.support import patient


class Notify(ImmediateTask):
    """Post one notification to a service and return its answer."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, url: str, user_id: int, text: str) -> int:
        body = json.dumps({"user": user_id, "text": text}).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as answer:
            return int(answer.status)


class Service:
    """A service that remembers what it was sent."""

    def __init__(self) -> None:
        self.received: list[object] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its name

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def service() -> Iterator[Service]:
    """A real service on a free port."""
    service = Service()
    thread = threading.Thread(target=service.server.serve_forever, args=(0.05,))
    thread.start()
    yield service
    service.server.shutdown()
    service.server.server_close()
    thread.join()


def test_a_job_is_tested_as_a_job(service: Service) -> None:
    """It was sent, it finished, its result is there, and the service got what was sent."""
    message = Notify.delay(service.url, user_id=7, text="hello")
    assert message.get(timeout=patient(10)) == 202
    assert service.received == [{"user": 7, "text": "hello"}]


def test_a_task_called_directly_is_its_body(service: Service) -> None:
    """No message, no claim, no retries; the arguments are checked all the same."""
    task = Notify.registered
    assert task(service.url, 8, "directly") == 202
    with pytest.raises(PayloadError, match="'user_id'"):
        task(service.url, "8", "directly")
    assert service.received == [{"user": 8, "text": "directly"}]


def test_apply_runs_a_job_within_the_test(service: Service) -> None:
    """`apply` needs no worker: attempts follow each other at once."""
    assert Notify.apply((service.url, 9, "here")).get() == 202
    assert service.received == [{"user": 9, "text": "here"}]
