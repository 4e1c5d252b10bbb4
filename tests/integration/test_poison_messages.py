"""Messages that cannot be run, raw in the queue: each is one dead letter, and the worker goes on as if nothing was."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask, dead_letters
from conventions.app import ConventionsApp
from conventions.database import DeadLetterRow
from tests import raw_messages as raw
from tests.support import wait_until
from tests.workers import Installation, Worker, letters, wait_for_letter

QUEUE = "immediate"


class Good(ImmediateTask):
    """Return a number."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, number: str) -> str:
        return number


@pytest.fixture(scope="module")
def keeper(module_installation: Installation) -> Iterator[raw.Keeper]:
    """Runs the worker of these tests."""
    with raw.Keeper(module_installation) as keeper:
        yield keeper


@pytest.fixture
def worker(keeper: raw.Keeper) -> Worker:
    """The worker: the same one for all tests, unless one of them ended it."""
    return keeper.running()


@pytest.fixture(autouse=True)
def _unharmed(worker: Worker, live_app: ConventionsApp) -> Iterator[None]:
    """Whatever a test sends, the same main process runs a good job afterwards, and nothing is left in the broker."""
    before = len(letters(live_app, state=None))
    yield
    assert worker.process.poll() is None, worker.output[-5000:]
    assert Good.delay(str(uuid4())).get(timeout=10)
    try:
        wait_until(lambda: raw.left(live_app, QUEUE) == (raw.EMPTY, []), 10)
    except AssertionError:
        left = raw.left(live_app, QUEUE)
        raw.clear(live_app, QUEUE)
        raise AssertionError(f"left in the broker: {left}") from None
    wait_until(lambda: live_app.journal.length() == 0, description="everything is recorded")
    assert live_app.store.redis.exists(live_app.store.key("journal", "rejected")) == 0
    assert len(letters(live_app, state=None)) == before + 1, worker.output[-5000:]


def stored(letter: DeadLetterRow) -> Any:
    """The message that the letter keeps."""
    return dead_letters.message(letter)


# Through kombu.

NAME = Good.name
FINE = raw.body(kwargs={"number": "1"})
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
def test_a_body_that_is_none(live_app: ConventionsApp, name: str) -> None:
    """The dead letter has the body as it came, byte by byte."""
    message_id = raw.publish(live_app, QUEUE, BODIES[name], raw.headers(NAME))
    letter = wait_for_letter(live_app, message_id, 10)
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
    "unknown encoding": (FINE, "application/json", "nonsense-8"),
    "another encoding": (FINE, "application/json", "utf-16"),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_content_type_that_is_not_accepted(live_app: ConventionsApp, name: str) -> None:
    """It is never unpickled; the letter says what it was."""
    body, content_type, encoding = TYPES[name]
    message_id = raw.publish(
        live_app, QUEUE, body, raw.headers(NAME), content_type=content_type, content_encoding=encoding
    )
    letter = wait_for_letter(live_app, message_id, 10)
    assert letter.error == "UndeliverableMessage"
    kept = stored(letter)
    assert b64decode(kept["body"]) == body
    assert (kept["content-type"], kept["content-encoding"]) == (content_type, encoding)


HEADERS: dict[str, dict[str, Any]] = {
    "an unknown task": {"task": "nowhere.Nothing"},
    "a task that is a list": {"task": ["x"]},
    "a task that is a number": {"task": 5},
    "no task": {"task": None},
    "an eta that is no date": {"eta": "tomorrow"},
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
    "a group that is a list": {"group": ["x"]},
    "stamps that are a number": {"stamps": 5, "stamped_headers": 7},
    "an origin that is a list": {"origin": ["x"], "root_id": ["y"], "parent_id": {"z": 1}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_none(live_app: ConventionsApp, name: str) -> None:
    """Written by hand, since a sender that goes through kombu is refused some of them."""
    headers = raw.headers(NAME) | HEADERS[name]
    envelope = raw.envelope(FINE.replace(b'"1"', json.dumps(str(uuid4())).encode()), headers)
    raw.put(live_app, QUEUE, json.dumps(envelope))
    letter = wait_for_letter(live_app, headers["id"], 10)
    assert letter.fingerprint
    assert stored(letter) == envelope


IDS: dict[str, Any] = {"a number": 5, "a list": ["a"], "a mapping": {"a": 1}, "null": None, "very long": "x" * 100_000}


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_is_none(live_app: ConventionsApp, name: str) -> None:
    """The letter is there, under what the id is as text or under the tag."""
    known = {letter.id for letter in letters(live_app, state=None)}
    envelope = raw.envelope(b"nothing", {"task": NAME, "id": IDS[name]})
    raw.put(live_app, QUEUE, json.dumps(envelope))
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in known], 10)
    assert stored(letter) == envelope


# By hand.

ENVELOPES: dict[str, Callable[[], Any]] = {
    "headers missing": lambda: {k: v for k, v in raw.envelope(FINE, {}).items() if k != "headers"},
    "headers null": lambda: raw.envelope(FINE, None),
    "headers a list": lambda: raw.envelope(FINE, ["a"]),
    "headers a text": lambda: raw.envelope(FINE, "text"),
    "headers empty": lambda: raw.envelope(FINE, {}),
    "no properties": lambda: {k: v for k, v in raw.envelope(FINE, {}).items() if k != "properties"},
    "properties null": lambda: raw.envelope(FINE, {}, properties=None),
    "properties a list": lambda: raw.envelope(FINE, {}, properties=["x"]),
    "properties without delivery_info": lambda: raw.envelope(FINE, {}, properties={"body_encoding": "base64"}),
    "delivery_info null": lambda: raw.envelope(FINE, {}, properties={"delivery_info": None}),
    "delivery_info a text": lambda: raw.envelope(FINE, {}, properties={"delivery_info": "x"}),
    "an empty mapping": dict,
    "a list": lambda: [1, 2],
    "a text": lambda: "text",
    "a number": lambda: 7,
    "null": lambda: None,
    "no body": lambda: {k: v for k, v in raw.envelope(FINE, raw.headers(NAME)).items() if k != "body"},
    "a body that is not base64": lambda: raw.envelope(FINE, raw.headers(NAME), body="***"),
    "a body that is a number": lambda: raw.envelope(FINE, raw.headers(NAME), body=5),
    "a body that is a list": lambda: raw.envelope(FINE, raw.headers(NAME), body=[1]),
    "a body that is null": lambda: raw.envelope(FINE, raw.headers(NAME), body=None),
    "an unknown body encoding": lambda: raw.envelope(
        FINE, raw.headers(NAME), properties=raw.envelope(FINE, {})["properties"] | {"body_encoding": "nonsense"}
    ),
    "a content type that is a list": lambda: raw.envelope(FINE, raw.headers(NAME), **{"content-type": ["x"]}),
    "a content encoding that is a number": lambda: raw.envelope(FINE, raw.headers(NAME), **{"content-encoding": 5}),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_that_is_none(live_app: ConventionsApp, name: str) -> None:
    """JSON, but no message: the letter has all of it."""
    known = {letter.id for letter in letters(live_app, state=None)}
    envelope = ENVELOPES[name]()
    raw.put(live_app, QUEUE, json.dumps(envelope))
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in known], 10)
    assert letter.error == "UndeliverableMessage"
    assert stored(letter) == envelope


FOREIGN = (b"no JSON at all", b"\xff\xfe\x00\x01", b"", b"[" * 100_000, b'{"a": NaN')


@pytest.mark.parametrize("payload", FOREIGN, ids=range(len(FOREIGN)))
def test_a_payload_that_is_not_json(live_app: ConventionsApp, payload: bytes) -> None:
    """The letter has its bytes."""
    tag = str(raw.put(live_app, QUEUE, payload))
    letter = wait_for_letter(live_app, tag, 10)
    assert letter.error == "UndeliverableMessage"
    kept = stored(letter)
    assert b64decode(kept.get("base64") or kept.get("body")) == payload


TAGS = (b"just a member", b"\xff\xfe\x00", b'{"id": "x"}', b"x" * 5000)


@pytest.mark.parametrize("tag", TAGS, ids=range(len(TAGS)))
def test_a_member_without_a_message(live_app: ConventionsApp, tag: bytes) -> None:
    """The letter has the member."""
    known = {letter.id for letter in letters(live_app, state=None)}
    raw.put(live_app, QUEUE, None, tag)
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in known], 10)
    assert letter.error == "UndeliverableMessage"
    kept = stored(letter)
    assert kept == json.loads(tag) if tag.startswith(b"{") else b64decode(kept["body"]) == tag


# Another kind of key.


@pytest.mark.parametrize("kind", ["list", "string", "set", "hash", "stream"])
def test_something_else_under_the_key_of_the_queue(live_app: ConventionsApp, kind: str) -> None:
    """As kombu's own transport would have left it: its content is a dead letter."""
    known = {letter.id for letter in letters(live_app, state=None)}
    redis, key = live_app.store.redis, live_app.store.key("queue", QUEUE)
    text = f"foreign {uuid4()}"
    wait_until(lambda: not redis.exists(key))
    writes: dict[str, Callable[[], Any]] = {
        "list": lambda: redis.lpush(key, text),
        "string": lambda: redis.set(key, text),
        "set": lambda: redis.sadd(key, text),
        "hash": lambda: redis.hset(key, text, text),
        "stream": lambda: redis.xadd(key, {"text": text}),
    }
    writes[kind]()
    live_app.broker.wake([QUEUE])
    (letter,) = wait_until(lambda: [one for one in letters(live_app, state=None) if one.id not in known], 10)
    assert letter.error == "UndeliverableMessage"
    assert text in b64decode(stored(letter)["body"]).decode()


@pytest.mark.parametrize("kind", ["string", "list"])
def test_something_else_under_the_key_of_a_message(live_app: ConventionsApp, kind: str) -> None:
    """The messages beside it are not lost."""
    tag, redis = str(uuid4()), live_app.store.redis
    key = live_app.store.key("message", tag)
    mates = [str(uuid4()) for _ in range(5)]
    redis.set(key, "text") if kind == "string" else redis.lpush(key, "text")
    with redis.pipeline() as pipe:
        pipe.zadd(live_app.store.key("queue", QUEUE), {tag: 9e14})
        pipe.execute()
    results = [Good.delay(mate) for mate in mates]
    assert [result.get(timeout=10) for result in results] == mates
    letter = wait_for_letter(live_app, tag, 10)
    assert letter.error == "UndeliverableMessage"
