"""What cannot be recorded holds up the worker's loop once, not for each message."""

import json
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from conventions.broker.delivery import tag_of
from conventions.broker.redis_broker import HeldMessage
from conventions.worker import refused_messages
from tests import raw_messages as raw
from tests.recorded import drain, recorder
from tests.support import wait_until
from tests.workers import application, letters


@pytest.fixture
def connections() -> Iterator[tuple[int, list[socket.socket]]]:
    """The port of a server that never answers, and the connections that it has taken."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield server.getsockname()[1], taken
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for one in taken:
        one.close()


@pytest.mark.thorough
def test_a_store_that_does_not_answer_is_not_asked_for_each_message(
    connections: tuple[int, list[socket.socket]],
    new_database: Callable[[Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first try takes its time. For a while others fail at once, and after that the store is asked again."""
    monkeypatch.setattr(refused_messages, "WITHIN", 0.2)
    monkeypatch.setattr(refused_messages, "AWAY", 3.0)
    port, taken = connections
    addresses = {"broker_url": "amqp://guest:guest@127.0.0.1:1//", "redis_url": f"redis://127.0.0.1:{port}/0"}
    with application(**addresses, database_url=new_database(tmp_path), key_prefix=tmp_path.name) as app:

        def refuse() -> bool:
            return app.refusals.record({}, ValueError("no"), None, stored=False)

        assert not refuse()
        asked = len(taken)
        assert asked
        assert not any(refuse() for _ in range(20))
        assert len(taken) == asked
        wait_until(lambda: not refuse() and len(taken) > asked, 20, "it is asked again")


def test_what_cannot_be_refused_as_it_is(app: ConventionsApp) -> None:
    """Two messages of which nothing is known have two letters, each with all that Redis has of it."""
    texts = [raw.envelope(b"[]", {"id": "of a victim", "task": f"task {number}"}) for number in range(2)]
    for text in texts:
        raw.put(app, "immediate", json.dumps(text))
    for delivery in app.broker.reserve(["immediate"], 2):
        held = HeldMessage(tag_of(delivery.tag), delivery.queue, delivery.receipt)
        assert app.refusals._record_bare(delivery, ValueError("no"), held)
    drain(recorder(app.store, app.database))
    found = letters(app)
    assert len({one.id for one in found}) == len(found) == 2
    assert all(one.id.startswith("unsigned-") and one.actor == "unsigned" for one in found)
    kept = [b64decode(json.loads(one.message or "")["base64"]) for one in found]
    assert {json.loads(one)["headers"]["task"] for one in kept} == {"task 0", "task 1"}
