"""Foreign bytes in a queue, written into Redis by hand: each is one dead letter with all of them."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from conventions.app import ConventionsApp
from conventions.dead_letters import letters as dead_letters
from conventions.records import executions
from conventions.storage.newer_data import left_alone
from conventions.storage.tables import DeadLetterRow
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, expected, keeper, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Good
from tests.support import patient, wait_until
from tests.workers import Worker, letters

NAME = Good.name
FINE = raw.body(kwargs={"number": "1"})


def stored(letter: DeadLetterRow) -> Any:
    """The message that the letter keeps."""
    return dead_letters.message(letter)


def stored_bytes(letter: DeadLetterRow) -> bytes:
    """The same, of what was no JSON."""
    (encoding,) = stored(letter)
    assert encoding == "base64"
    return b64decode(stored(letter)["base64"])


def new_letter(app: ConventionsApp, known: set[str]) -> DeadLetterRow:
    """Wait for a letter that was not there before."""
    found = wait_until(lambda: [one for one in letters(app, state=None) if one.id not in known], 30, "a letter")
    assert found[0].error == "UndeliverableMessage"
    return found[0]


def known_letters(app: ConventionsApp) -> set[str]:
    """The ids of the letters that are there."""
    return {letter.id for letter in letters(app, state=None)}


IDS: dict[str, Any] = {"a number": 5, "a list": ["a"], "a mapping": {"a": 1}, "null": None, "very long": "x" * 100_000}


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_is_none(app: ConventionsApp, name: str) -> None:
    """The letter is there, under what the id is as text or under the tag."""
    known = known_letters(app)
    envelope = raw.envelope(b"nothing", {"task": NAME, "id": IDS[name]})
    raw.put(app, QUEUE, json.dumps(envelope))
    letter = new_letter(app, known)
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
def test_an_envelope_that_is_none(app: ConventionsApp, name: str) -> None:
    """JSON, but no message: the letter has all of it."""
    known = known_letters(app)
    envelope = ENVELOPES[name]()
    raw.put(app, QUEUE, json.dumps(envelope))
    letter = new_letter(app, known)
    assert stored(letter) == envelope


FOREIGN = (b"no JSON at all", b"\xff\xfe\x00\x01", b"", b"[" * 100_000, b'{"a": NaN')


@pytest.mark.parametrize("payload", FOREIGN, ids=range(len(FOREIGN)))
def test_a_payload_that_is_not_json(app: ConventionsApp, payload: bytes) -> None:
    """The letter has its bytes."""
    known = known_letters(app)
    raw.put(app, QUEUE, payload)
    assert stored_bytes(new_letter(app, known)) == payload


TAGS = (b"just a member", b"\xff\xfe\x00", b'{"id": "x"}', b"y" * 5000)


@pytest.mark.parametrize("tag", TAGS, ids=range(len(TAGS)))
def test_a_member_without_a_message(app: ConventionsApp, tag: bytes) -> None:
    """The letter has the member."""
    known = known_letters(app)
    raw.put(app, QUEUE, None, tag)
    letter = new_letter(app, known)
    if tag.startswith(b"{"):
        assert stored(letter) == json.loads(tag)
    else:
        assert stored_bytes(letter) == tag


@pytest.mark.parametrize("fine", [True, False])
def test_a_message_under_a_tag_that_is_no_text(app: ConventionsApp, expected: dict[str, int], fine: bool) -> None:
    """It is there once: it runs, or is one dead letter, and is gone."""
    expected["letters"] = 0 if fine else 1
    headers = raw.headers(NAME, str(uuid4()))
    raw.put(
        app,
        QUEUE,
        json.dumps(raw.envelope(raw.body(kwargs={"number": str(uuid4()) if fine else 1}), headers)),
        b"\xff\xfe",
    )

    def ends() -> list[str]:
        with app.database.session() as session:
            return [row.kind for row in executions.of_message(session, headers["id"])]

    wait_until(lambda: ends() == ["succeeded" if fine else "dead"], 10, f"it ends once, and not {ends()}")


# Another kind of key.


@pytest.mark.parametrize("kind", ["list", "string", "set", "hash"])
def test_something_else_under_the_key_of_the_queue(app: ConventionsApp, expected: dict[str, int], kind: str) -> None:
    """As kombu's own transport would have left it: its content is a dead letter."""
    known = known_letters(app)
    redis, key = app.store.redis, app.store.key("queue", QUEUE)
    text = f"foreign {uuid4()}"
    wait_until(lambda: not redis.exists(key))
    writes: dict[str, Callable[[], Any]] = {
        "list": lambda: redis.lpush(key, text),
        "string": lambda: redis.set(key, text),
        "set": lambda: redis.sadd(key, text),
        "hash": lambda: redis.hset(key, text, text),
    }
    writes[kind]()
    app.broker.wake([QUEUE])
    letter = new_letter(app, known)
    expected["letters"] = 2 if kind == "hash" else 1  # a field and its value
    assert stored_bytes(letter).decode() == text


def test_a_string_under_the_key_of_a_message(app: ConventionsApp) -> None:
    """The messages beside it are not lost."""
    known, tag, redis = known_letters(app), str(uuid4()), app.store.redis
    mates = [str(uuid4()) for _ in range(5)]
    redis.set(app.store.key("message", tag), "text")
    redis.zadd(app.store.key("queue", QUEUE), {tag: 9e14})
    results = [Good.delay(mate) for mate in mates]
    assert [result.get(timeout=patient(10)) for result in results] == mates
    assert stored_bytes(new_letter(app, known)).decode() == "text"


def test_what_a_later_release_has_written_is_left(
    app: ConventionsApp, worker: Worker, expected: dict[str, int]
) -> None:
    """In its queue, with no letter; `check` names it, and the messages beside it run."""
    expected["letters"], redis = 0, app.store.redis
    listed, marked = str(uuid4()), str(uuid4())
    redis.lpush(app.store.key("message", listed), "text")
    redis.zadd(app.store.key("queue", QUEUE), {listed: 9e14})
    raw.put(app, QUEUE, json.dumps(raw.envelope(FINE, raw.headers(NAME, marked, x_form=9))), marked.encode())
    mate = str(uuid4())
    assert Good.delay(mate).get(timeout=patient(10)) == mate
    delayed = app.store.key("delayed", QUEUE)
    wait_until(lambda: redis.zcard(delayed) == 2, 30, "both wait")
    assert {one.name for one in left_alone(app.store)} == {f"message:{listed}", f"message:{marked}"}
    assert redis.lrange(app.store.key("message", listed), 0, -1) == [b"text"]
    assert "its form '9' belongs to a later release" in worker.output
    checked = worker.installation.run("check")
    assert checked.returncode == 1
    assert "2 keys" in checked.stdout
    redis.delete(delayed, *(app.store.key("message", tag) for tag in (listed, marked)))
