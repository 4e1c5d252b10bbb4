"""Messages that cannot be run, raw in the queue: each is one dead letter, and the worker goes on as if nothing was."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from base64 import b64decode
from typing import Any
from uuid import uuid4

import pytest

from conventions import dead_letters, executions
from conventions.app import ConventionsApp
from conventions.tables import DeadLetterRow
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, expected, keeper, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Good
from tests.support import wait_until
from tests.workers import wait_for_letter

NAME = Good.name
FINE = raw.body(kwargs={"number": "1"})


def stored(letter: DeadLetterRow) -> Any:
    """The message that the letter keeps."""
    return dead_letters.message(letter)


BODIES: dict[str, bytes] = {
    "not JSON": b"{nothing",
    "not UTF-8": b"\xff\xfe\x00",
    "empty": b"",
    "truncated": FINE[:-9],
    "a mapping": b'{"a": 1}',
    "a text": b'"text"',
    "a number": b"7",
    "null": b"null",
    "a list of two": b"[[], {}]",
    "a list of four": b"[[], {}, {}, {}]",
    "an empty list": b"[]",
    "kwargs is a list": b'[[], ["number"], {}]',
    "kwargs is a text": b'[[], "number", {}]',
    "kwargs is null": b"[[], null, {}]",
    "args is a mapping": b'[{"number": "1"}, {}, {}]',
    "args is a text": b'["1", {}, {}]',
    "args is a number": b"[1, {}, {}]",
    "args is null": b'[null, {"number": 1}, {}]',
    "embed is a list": b'[[], {"number": "1"}, [1]]',
    "embed is a text": b'[[], {"number": "1"}, "x"]',
    "embed is a number": b'[[], {"number": "1"}, 5]',
    "callbacks are a number": b'[[], {"number": "1"}, {"callbacks": 5}]',
    "chain is a text": b'[[], {"number": "1"}, {"chain": "x"}]',
    "chord is a text": b'[[], {"number": "1"}, {"chord": "x"}]',
    "arguments of another signature": b'[[], {"name": "x", "other": 2}, {}]',
    "too many arguments": b'[["1", "2"], {}, {}]',
    "too deep": b"[" * 100_000,
    "a number of 5,000 digits": b'[[], {"number": ' + b"9" * 5000 + b"}, {}]",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none(app: ConventionsApp, name: str) -> None:
    """The dead letter has the body as it came, byte by byte."""
    message_id = raw.publish(app, QUEUE, BODIES[name], raw.headers(NAME))
    letter = wait_for_letter(app, message_id, 10)
    assert letter.error in ("UndeliverableMessage", "PayloadError")
    assert letter.error_message
    assert letter.traceback
    assert letter.fingerprint
    assert (letter.task, letter.queue, letter.attempts <= 1) == (NAME, QUEUE, True)
    kept = stored(letter)
    assert b64decode(kept["body"]) == BODIES[name]
    assert kept["headers"]["id"] == message_id


TYPES: dict[str, tuple[bytes, str, str]] = {
    "pickle": (b"\x80\x04N.", "application/x-python-serialize", "binary"),
    "yaml": (b"a: 1", "application/x-yaml", "utf-8"),
    "unknown": (FINE, "application/x-nothing", "utf-8"),
    "binary": (FINE, "application/data", "binary"),
    "text": (FINE, "text/plain", "utf-8"),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_content_type_that_is_not_accepted(app: ConventionsApp, name: str) -> None:
    """It is never unpickled; the letter says what it was."""
    body, content_type, encoding = TYPES[name]
    message_id = raw.publish(app, QUEUE, body, raw.headers(NAME), content_type=content_type, content_encoding=encoding)
    letter = wait_for_letter(app, message_id, 10)
    assert letter.error == "UndeliverableMessage"
    kept = stored(letter)
    assert b64decode(kept["body"]) == body
    assert (kept["content-type"], kept["content-encoding"]) == (content_type, encoding)


HEADERS: dict[str, dict[str, Any]] = {
    "an unknown task": {"task": "nowhere.Nothing"},
    "a task that is a list": {"task": ["x"]},
    "a task that is a number": {"task": 5},
    "no task": {"task": None},
    "expires that is no date": {"expires": "tomorrow"},
    "expires that is a list": {"expires": ["x"]},
    "compression that is unknown": {"compression": "nonsense"},
    "compression that does not decode": {"compression": "application/x-gzip"},
    "retries that is a text": {"retries": "many"},
    "a time limit that is a text": {"timelimit": "soon"},
    "a time limit of texts": {"timelimit": ["soon", "later"]},
    "our counts are a text": {"x_counts": "many"},
    "our key is a list": {"x_key": ["a"]},
    "our moment is none": {"x_enqueued_at": "tomorrow"},
    "our planned time is none": {"x_planned_at": 5},
    "our generation is a text": {"x_generation": "first"},
    "our actor is a list": {"x_actor": ["a"]},
    "our park count is a text": {"x_parked": "x"},
    "stamps that are a number": {"stamps": 5, "stamped_headers": 7},
    "an origin that is a list": {"origin": ["x"], "root_id": ["y"], "parent_id": {"z": 1}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_none(app: ConventionsApp, name: str) -> None:
    """Written by hand, since a sender that goes through kombu is refused some of them."""
    headers = raw.headers(NAME) | HEADERS[name]
    envelope = raw.envelope(FINE.replace(b'"1"', json.dumps(str(uuid4())).encode()), headers)
    raw.put(app, QUEUE, json.dumps(envelope))
    letter = wait_for_letter(app, headers["id"], 10)
    assert letter.fingerprint
    assert stored(letter) == envelope


HARMLESS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an eta that is no date": ({"eta": "tomorrow"}, {}),  # what is ready is due
    "a group that is a list": ({"group": ["x"]}, {}),
    "an encoding that is unknown": ({}, {"content-encoding": "nonsense-8"}),  # JSON is UTF-8
    "another encoding": ({}, {"content-encoding": "utf-16"}),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_nobody_reads_does_no_harm(app: ConventionsApp, expected: dict[str, int], name: str) -> None:
    """The job runs, once."""
    expected["letters"] = 0
    changes, more = HARMLESS[name]
    headers = raw.headers(NAME) | changes
    raw.put(app, QUEUE, json.dumps(raw.envelope(raw.body(kwargs={"number": str(uuid4())}), headers, **more)))

    def ends() -> list[str]:
        with app.database.session() as session:
            return [row.kind for row in executions.of_message(session, headers["id"])]

    wait_until(lambda: ends() == ["succeeded"], 10, f"it succeeds, and not {ends()}")
