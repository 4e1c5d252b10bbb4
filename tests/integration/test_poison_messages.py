"""Messages that cannot be run, raw in the queue: each is one dead letter, and the worker goes on as if nothing was."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.compression import encoders

from conventions.app import ConventionsApp
from conventions.core.error_text import cut
from conventions.core.errors import PayloadError
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.resend import redrive
from conventions.records import executions
from conventions.storage.tables import DeadLetterRow
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, expected, keeper, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Good
from tests.support import wait_until
from tests.workers import Worker, letters, wait_for_letter

NAME = Good.name
FINE = raw.body(kwargs={"number": "1"})


def stored(letter: DeadLetterRow) -> Any:
    """The message that the letter keeps."""
    return dead_letters.message(letter)


def step(**parts: Any) -> bytes:
    """A body with a callback of these parts."""
    callback = {"task": NAME, "args": [], "kwargs": {}, "options": {}, **parts}
    return json.dumps([[], {"number": "1"}, {"callbacks": [callback]}]).encode()


EVERYDAY = {"not JSON": pytest.mark.everyday}
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
    "a step without options": b'[[], {"number": "1"}, {"chain": [{"task": "x", "args": [], "kwargs": {}}]}]',
    "an errback that is a text": b'[[], {"number": "1"}, {"errbacks": ["x"]}]',
    "a step of a type that there is none of": step(subtask_type="nonsense"),
    "a group of no list": step(subtask_type="group", kwargs={"tasks": 5}),
    "a chord without parts": step(subtask_type="chord"),
    "a chord without a body": step(
        subtask_type="chord", kwargs={"header": [{"task": NAME, "args": [], "kwargs": {}, "options": {}}]}
    ),
    "a group of a number": step(subtask_type="group", kwargs={"tasks": [5]}),
    "a step within a group with an option that is an argument": step(
        subtask_type="group", kwargs={"tasks": [{"task": NAME, "args": [], "kwargs": {}, "options": {"name": "x"}}]}
    ),
    "a step with an option that is an argument": step(options={"self": 1}),
    "chord is a text": b'[[], {"number": "1"}, {"chord": "x"}]',
    "a header in the body": b'[[], {"number": "1"}, {"x_generation": 9, "id": "other"}]',
    "arguments of another signature": b'[[], {"name": "x", "other": 2}, {}]',
    "too many arguments": b'[["1", "2"], {}, {}]',
    "an argument with the name of a method's first one": raw.body(kwargs={"number": "1", "self": 2}),
    "too deep": b"[" * 100_000,
    "a number of 5,000 digits": b'[[], {"number": ' + b"9" * 5000 + b"}, {}]",
}


@pytest.mark.parametrize("name", [pytest.param(one, marks=EVERYDAY.get(one, ())) for one in BODIES])
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


def test_the_log_does_not_have_a_whole_body(app: ConventionsApp, worker: Worker) -> None:
    """Python's own error about a text that is none has all of it."""
    before = len(worker.output)
    message_id = raw.publish(app, QUEUE, b"\xff" * 1_000_000, raw.headers(NAME))
    assert "can't decode byte" in wait_for_letter(app, message_id, 10).error_message
    wait_until(lambda: "Can't decode message body" in worker.output[before:], 10, "Celery has said so")
    assert len(worker.output) - before < 100_000


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


NAMES = ("id", "x_key", "x_actor", "x_fingerprint", "root_id", "parent_id", "group", "shadow", "x_copy", "x_schedule")
NUMBERS = ("retries", "x_generation", "x_parked", "replaced_task_nesting")
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
    "a group that is a list": {"group": ["x"]},
    "a stamp that is a list": {"stamps": [["x"]]},
    "a nesting that is a text": {"replaced_task_nesting": "deep"},
    "an index that is a text": {"group_index": "first"},
    "a shadow that is a list": {"shadow": ["x"]},
    "headers of tracing that are a list": {"headers": ["x"]},
    "a schedule that is a number": {"x_schedule": 7},
    "an argsrepr that is a list": {"argsrepr": ["x"]},
    **{f"{name} of half a character": {name: "a\ud800"} for name in NAMES},
    **{f"{name} with NUL": {name: "a\0"} for name in NAMES},
    **{f"{name} that is too long": {name: "x" * 256} for name in NAMES},
    **{f"{name} beyond a column": {name: 2**31 - 1} for name in NUMBERS},
    **{f"{name} beyond a double": {name: 2**70} for name in NUMBERS},
    "counts beyond a column": {"x_counts": {"other": 2**31}},
    "a time limit beyond a clock": {"timelimit": [1e300, None]},
    "a time limit below nothing": {"timelimit": [-1, -1]},
    "a moment that no zone can say": {"x_enqueued_at": "9999-12-31T23:59:59-14:00"},
    "a planned time that no zone can say": {"x_planned_at": "0001-01-01T00:00:00+14:00"},
    "an origin that is a list": {"origin": ["x"], "root_id": ["y"], "parent_id": {"z": 1}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_none(app: ConventionsApp, name: str) -> None:
    """Written by hand, since a sender that goes through kombu is refused some of them."""
    headers = raw.headers(NAME) | HEADERS[name]
    envelope = raw.envelope(FINE.replace(b'"1"', json.dumps(str(uuid4())).encode()), headers)
    raw.put(app, QUEUE, json.dumps(envelope))
    letter = wait_for_letter(app, cut(headers["id"]), 10)
    assert letter.fingerprint
    assert stored(letter) == envelope


NO_TASKS: dict[str, dict[str, Any]] = {
    "a list": {"task": ["x"]},
    "a number": {"task": 5},
    "true": {"task": True},
    "null": {"task": None},
    "empty": {"task": ""},
    "NUL": {"task": "a\0b"},
    "half a character": {"task": "a\ud800"},
    "too long": {"task": "x" * 256},
    "unknown, with a key that none is": {"task": "nowhere.Nothing", "x_key": ["a"]},
    "unknown, with an id that none is": {"task": "nowhere.Nothing", "id": "b\0"},
}


@pytest.mark.parametrize("name", NO_TASKS)
def test_a_message_that_no_worker_could_run_is_no_unknown_task(app: ConventionsApp, name: str) -> None:
    """It does not wait for a deploy that knows its task: the letter says what is wrong."""
    headers = raw.headers(NAME) | NO_TASKS[name]
    raw.put(app, QUEUE, json.dumps(raw.envelope(FINE, headers)))
    letter = wait_for_letter(app, cut(headers["id"]), 10)
    assert letter.error == "UndeliverableMessage"
    assert "headers." in letter.error_message or name == "a list"


def memory_of(worker: Worker) -> int:
    """The most that its main process has had so far, bytes."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


ZEROS = zlib.compress(b"[" + b"0," * 50_000_000 + b"0]", 1)[: 1 << 20]  # what comes of it is 100 MB
ENCODERS: list[str] = encoders()  # type: ignore[no-untyped-call]  # kombu has few types
PACKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{f"compression {name}": ({"compression": name}, {}) for name in [*ENCODERS, "gzip", "zstd", "br", "snappy"]},
    **{
        f"content-encoding {name}": ({}, {"content-encoding": name})
        for name in ("zlib", "bz2", "hex", "utf-16", "nonsense")
    },
}


@pytest.mark.parametrize("name", PACKED)
def test_what_is_packed_is_not_unpacked(app: ConventionsApp, worker: Worker, name: str) -> None:
    """A megabyte may become a gigabyte: the letter has it as it came, and the worker has not grown."""
    before = memory_of(worker)
    changes, more = PACKED[name]
    headers = raw.headers(NAME) | changes
    envelope = raw.envelope(ZEROS, headers, **more)
    raw.put(app, QUEUE, json.dumps(envelope))
    letter = wait_for_letter(app, headers["id"], 10)
    assert (letter.task, letter.error) == (NAME, "UndeliverableMessage")
    assert "compressed" in letter.error_message or "content-encoding" in letter.error_message
    assert stored(letter) == envelope
    assert memory_of(worker) < before + 60 * 1024 * 1024


def nested(depth: int) -> bytes:
    """The body of a message whose argument is lists within each other."""
    return raw.body(kwargs={"number": "1"}).replace(b'"1"', b"[" * depth + b"]" * depth)


def within_its_body(depth: int, message_id: str) -> str:
    """A message whose body is nested so deep."""
    return json.dumps(raw.envelope(nested(depth), raw.headers(NAME, message_id)))


def within_a_header(depth: int, message_id: str, name: str = "deep") -> str:
    """A message whose header is nested so deep."""
    envelope = raw.envelope(FINE, raw.headers(NAME, message_id) | {name: "@"})
    return json.dumps(envelope).replace('"@"', "[" * depth + "]" * depth)


DEEP: dict[str, Callable[[str], str]] = {
    **{f"a body of {depth}": partial(within_its_body, depth) for depth in (301, 900, 5000)},
    **{f"a header of {depth}": partial(within_a_header, depth) for depth in (301, 900, 50_000)},
    "a task": partial(within_a_header, 900, name="task"),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_nested_too_deep(app: ConventionsApp, name: str) -> None:
    """Nobody's stack is that high; what the standard library cannot read either has no id that could be told."""
    known, message_id = {one.id for one in letters(app, state=None)}, str(uuid4())
    text = DEEP[name](message_id)
    raw.put(app, QUEUE, text)
    (letter,) = wait_until(lambda: [one for one in letters(app, state=None) if one.id not in known], 30, "a letter")
    assert letter.error in ("UndeliverableMessage", "PayloadError")
    assert letter.id == message_id or name == "a header of 50000"
    assert letter.message == text or b64decode(stored(letter)["base64"]).decode() == text


@pytest.mark.parametrize("plain", [True, False])
def test_a_message_that_is_too_large_is_not_read(app: ConventionsApp, worker: Worker, plain: bool) -> None:
    """No process gets it. Its letter has its headers and how it begins, and cannot be sent again."""
    message_id = str(uuid4())
    headers = raw.headers(NAME, message_id, x_actor="u-42") | (
        {} if plain else {"expires": "2099-01-01T00:00:00+00:00"}
    )
    text = json.dumps(raw.envelope(raw.body(kwargs={"number": "1" * 13_000_000}), headers))
    before = memory_of(worker)
    raw.put(app, QUEUE, text)
    letter = wait_for_letter(app, message_id, 20)
    assert (letter.task, letter.actor, letter.error) == (NAME, "u-42", "UndeliverableMessage")
    assert f"{len(text):,} bytes, the limit is 16,777,216" in letter.error_message
    kept = stored(letter)
    assert (b64decode(kept["base64"]).decode(), kept["bytes"]) == (text[: 64 * 1024], len(text))
    assert memory_of(worker) < before + 5 * len(text)
    with pytest.raises(PayloadError, match="was not kept in full"):
        redrive(app, message_id, "ann")


def test_half_a_character_in_an_argument_is_kept(app: ConventionsApp) -> None:
    """JSON can name it; the letter says where it is, and has it as it came."""
    body = b'[[], {"number": {"rows": ["a\\ud800"]}}, {}]'
    message_id = raw.publish(app, QUEUE, body, raw.headers(NAME))
    letter = wait_for_letter(app, message_id, 10)
    assert letter.error == "PayloadError"
    assert "'number.rows.0' holds half a character" in letter.error_message
    assert letter.arguments == {"number": {"rows": ["a\ud800"]}}
    assert b64decode(stored(letter)["body"]) == body


def test_a_letter_of_a_message_with_headers_of_tracing_has_ours(app: ConventionsApp) -> None:
    """Some put theirs under the very name by which Celery finds all."""
    ours = {"x_key": "k", "x_actor": "u-42", "x_fingerprint": "f", "x_schedule": "daily"}
    message_id = raw.publish(
        app, QUEUE, raw.body(kwargs={"number": 5}), raw.headers(NAME, **ours, headers={"trace": "1"})
    )
    letter = wait_for_letter(app, message_id, 10)
    assert (letter.error, {name: letter.headers[name] for name in ours}) == ("PayloadError", ours)


def test_an_errback_that_cannot_be_sent_is_a_letter_of_its_own(app: ConventionsApp, expected: dict[str, int]) -> None:
    """The message that died does not come again for it."""
    expected["letters"] = 2
    errback = {"task": NAME, "args": [], "kwargs": {"other": 1}, "options": {"task_id": str(uuid4())}}
    body = raw.body(kwargs={"number": 5}, embed={"errbacks": [errback]})
    message_id = raw.publish(app, QUEUE, body, raw.headers(NAME))
    assert wait_for_letter(app, message_id, 10).error == "PayloadError"

    def others() -> list[str]:
        return [one.error_message for one in letters(app, state=None) if one.arguments.get("other") == 1]

    assert "unexpected keyword argument 'other'" in wait_until(others, 10)[0]


HARMLESS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an eta that is no date": ({"eta": "tomorrow"}, {}),  # what is ready is due
    "names that a request has already": (
        {
            "job": {"ended": True},
            "update": "x",
            "get": 5,
            "_late": {},
            "conventions_run_by": {},
            "called_directly": True,
        },
        {},
    ),
    "a batch that is none": ({"x_batch": ["\ud800", "chunk", 0, 1]}, {}),
    "headers of tracing": ({"sentry-trace": "1", "headers": {"sentry-trace": "1"}, "traceparent": "00-1"}, {}),
    "headers of ours below those of tracing": (
        {"headers": {"x_key": "\ud800", "x_generation": 2**70, "x_actor": ["a"], "retries": "many"}},
        {},
    ),
    "parts of the body as headers": ({"callbacks": "x", "errbacks": "x", "chain": "x", "chord": "x"}, {}),
    "an encoding in capitals": ({}, {"content-encoding": "UTF-8"}),
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
