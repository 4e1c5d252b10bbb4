"""What comes by the channel of remote control, which anybody may write who reaches the server, ends no worker."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from base64 import b64encode
from typing import Any

import pytest
import redis

from conventions.app import ConventionsApp
from tests.integration.poison_fixtures import app, expected, keeper, worker  # noqa: F401  # fixtures
from tests.support import wait_until
from tests.workers import Worker


def asked(body: Any, /, **envelope: Any) -> bytes:
    """A message of remote control; `body` as it is, or to be written as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    properties = {
        "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        "delivery_tag": "1",
        "body_encoding": "base64",
    }
    message = {
        "body": b64encode(raw).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {},
        "properties": properties,
    }
    return json.dumps(message | envelope).encode()


def command(method: str, **arguments: Any) -> bytes:
    """A command to all workers."""
    return asked({"method": method, "arguments": arguments})


GARBAGE = {
    "empty": b"",
    "not UTF-8": b"\xff",
    "null": b"null",
    "a number": b"5",
    "a list": b"[1]",
    "a text": b'"x"',
    "nothing in it": b"{}",
    "a body that is a number": b'{"body": 5}',
    "no properties": b'{"body": "x", "properties": {}}',
    "too deep": b"[" * 100_000,
    "properties are null": asked({}, properties=None),
    "properties are empty": asked({}, properties={}),
    "a body of another type": asked({}, body=5),
    "a body that is no base64": asked({}, body="\ud800"),
    "headers are null": asked({}, headers=None),
    "a body too deep": asked(b"[" * 50_000),
    "a body that is null": asked(None),
    "a method that is a number": asked({"method": 5, "arguments": 7}),
    "an encoding that is none": asked({}, **{"content-encoding": "\ud800"}),
    "an answer to nowhere": asked({"method": "ping", "arguments": {}, "reply_to": 5}),
    "an answer to half a character": asked(
        {"method": "ping", "arguments": {}, "reply_to": {"exchange": "\ud800", "routing_key": "\ud800"}}
    ),
    "a queue that is null": command("add_consumer", queue=None),
    "a queue that is a mapping": command("add_consumer", queue={"a": 1}),
    "a queue with half a character": command("add_consumer", queue="\ud800"),
    "an exchange that is a mapping": command("add_consumer", queue="x", exchange={"a": 1}),
    "an option that nobody knows": command("add_consumer", queue="x", flavour="y"),
    "a type of exchange that there is not": command("add_consumer", queue="x", exchange_type="y"),
    "a queue to leave that is a list": command("cancel_consumer", queue=[]),
    "ids that are none": command("revoke", task_id=["\ud800", 5, None]),
    "a limit that is none": command("rate_limit", task_name="x", rate_limit={"a": 1}),
    "a size that is none": command("pool_grow", n="a"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(app: ConventionsApp, worker: Worker, expected: dict[str, int], name: str) -> None:
    """The worker goes on, and hears what comes next. That a job runs, and nothing else happened, is looked at after each."""
    expected["letters"] = 0
    client: redis.Redis = app.store.redis
    channel = f"{{{app.settings.key_prefix}}}:/{app.store.address.db}.celery.pidbox"
    wait_until(lambda: client.publish(channel, GARBAGE[name]), 30, "somebody listens")
    wait_until(lambda: app.control.ping(timeout=5, limit=1), 30, "it answers")
    assert worker.process.poll() is None
