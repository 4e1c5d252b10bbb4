"""What callers may not give to a message: names that cannot be stored, and headers that are the platform's own."""

import ast
import functools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.app.task import Context

import conventions
from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, Priority, acting_as
from conventions.app import ConventionsApp
from conventions.broker.caller_headers import LIMIT, AcceptedHeaders, OwnHeaders
from conventions.broker.header_names import ENQUEUED_AT, KEY, LATER, OURS, TOKEN
from conventions.core.errors import PayloadError
from conventions.execution.attempt_event import envelope_of, headers_to_go_on
from conventions.library_internals.celery import NOT_HEADERS
from tests.workers import messages


class Batched(BatchTask):
    """A batch of no items."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = True

    def items(self, number: int) -> list[int]:
        return [number]

    def process(self, items: list[int], number: int) -> None: ...


class Named(ImmediateTask):
    """Take one number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None: ...


NAMES = {
    "half a character": ("\ud800", "half a character"),
    "too long": ("x" * 256, "256 characters, and the limit is 255"),
    "NUL": ("a\0b", "NUL"),
}
SENDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "idempotency_key": ("idempotency_key", lambda name: Named.apply_async((1,), idempotency_key=name)),
    "task_id": ("task_id", lambda name: Named.apply_async((1,), task_id=name)),
    "actor": ("actor", lambda name: Named.apply_async((1,), actor=name)),
    "actor of many": ("actor", lambda name: Named.enqueue_many([{"number": 1}], actor=name)),
    "queue": ("queue", lambda name: Named.apply_async((1,), queue=name)),
    "queue of many": ("queue", lambda name: Named.enqueue_many([{"number": 1}], queue=name)),
    "shadow": ("shadow", lambda name: Named.apply_async((1,), shadow=name)),
    "signature": ("task_id", lambda name: Named.s(1).set(task_id=name).apply_async()),
    "group": ("group_id", lambda name: Named.apply_async((1,), group_id=name)),
}


@pytest.mark.parametrize("fault", NAMES)
@pytest.mark.parametrize("send", SENDS)
def test_a_name_that_cannot_be_stored_is_refused_where_it_is_sent(app: ConventionsApp, send: str, fault: str) -> None:
    """The error names the argument, and nothing was sent: a worker could not even say that it holds such a message."""
    (value, wrong), (argument, call) = NAMES[fault], SENDS[send]
    with pytest.raises(ValueError, match=f"Named: {argument} .*{wrong}"):
        call(value)
    assert messages(app) == []


@pytest.mark.parametrize("fault", NAMES)
def test_an_actor_that_cannot_be_stored_is_refused(fault: str) -> None:
    """Where it is named, and not at the first send."""
    value, wrong = NAMES[fault]
    with pytest.raises(ValueError, match=f"acting_as: the actor .*{wrong}"):
        acting_as(value)


def test_a_name_of_255_characters_is_sent(app: ConventionsApp) -> None:
    """Whatever its bytes are."""
    Named.apply_async((1,), task_id="注" * 255, idempotency_key="é" * 255, actor="\U0001f600" * 255)
    (sent,) = messages(app)
    assert (sent.id, sent.headers[KEY], sent.headers["x_actor"]) == ("注" * 255, "é" * 255, "\U0001f600" * 255)


@pytest.mark.parametrize(
    "limit",
    [
        {"time_limit": 2**31, "soft_time_limit": 1}, {"expires": 2**31}, {"retries": 2**31}, {"countdown": -1e300}, {"countdown": 10**400},
        {"expires": float("inf")}, {"expires": -float("inf")}, {"countdown": float("nan")}, {"time_limit": -1},
    ],
)  # fmt: skip
def test_a_number_that_is_out_of_range_is_refused(app: ConventionsApp, limit: dict[str, Any]) -> None:
    """SQL would refuse it, or a clock."""
    with pytest.raises(
        ValueError,
        match=r"a number of seconds.*, not |how often it was tried, from 0 to 2,147,483,64\d, not 2147483648",
    ):
        Named.apply_async((1,), **limit)
    assert messages(app) == []


RESERVED: dict[str, Any] = {
    **dict.fromkeys(OURS, "a"), "X_Key": "a", "x_generation": 5, "x_batch": ["b", "chunk", 0, 1], "conventions_later": 1,
    "x_conventions_later": 1, "checkpoint": 5, "committed": True, "id": "i",
    "task": "other", "retries": 3, "root_id": "r", "timelimit": [1, 1], "expires": "2020-01-01", "ignore_result": True,
    "job": {"ended": True}, "called_directly": True, "conventions_run_by": {}, "compression": "gzip", "callbacks": [], "lang": "c",
}  # fmt: skip
WAYS: dict[str, Callable[[Any], Any]] = {
    "one": lambda headers: Named.apply_async((1,), headers=headers),
    "within those of tracing": lambda headers: Named.apply_async((1,), headers={"headers": headers}),
    "many": lambda headers: Named.enqueue_many([{"number": 1}], headers=headers),
    "a signature": lambda headers: Named.s(1).set(headers=headers).delay(),
    "link": lambda headers: Named.apply_async((1,), link=Named.si(2).set(headers=headers)),
    "link_error": lambda headers: Named.apply_async((1,), link_error=[Named.si(2).set(headers=headers)]),
    "a later step": lambda headers: chain(Named.si(1), Named.si(2), Named.si(3).set(headers=headers)).delay(),
    "a step in a group": lambda headers: chain(
        Named.si(1), group(Named.si(2), Named.si(3).set(headers=headers))
    ).delay(),
    "a chord's body": lambda headers: chain(
        Named.si(1), chord([Named.si(2), Named.si(3)], Named.si(4).set(headers=headers))
    ).delay(),
    "a link of a link": lambda headers: Named.apply_async(
        (1,), link=Named.si(2).set(link=[Named.si(3).set(headers=headers)])
    ),
}


@pytest.mark.parametrize("header", RESERVED)
def test_a_header_of_the_platform_is_refused(app: ConventionsApp, header: str) -> None:
    """It says what the message is: with a key of a caller's, a payload of any size went, in anybody's name."""
    with pytest.raises(TypeError, match=f"the header {header} is the platform's own"):
        Named.apply_async((1,), headers={header: RESERVED[header]})
    assert messages(app) == []


@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused_whatever_way_it_goes(app: ConventionsApp, way: str) -> None:
    """Also with what follows a message, before that is sent."""
    with pytest.raises(TypeError, match=r"the header x_key is the platform's own.*pass idempotency_key"):
        WAYS[way]({"x_key": "a"})
    assert messages(app) == []


def test_what_json_or_a_copy_makes_of_our_headers_is_not_ours(app: ConventionsApp) -> None:
    """Only what is made here counts as checked before."""
    own = AcceptedHeaders({KEY: "k"})
    for copy in (json.loads(json.dumps(own)), dict(own), own | {}):
        with pytest.raises(TypeError, match="the platform's own"):
            Named.apply_async((1,), headers=copy)
    assert messages(app) == []


PACKAGE = Path(conventions.__file__).parent
IN_LUA = re.compile(r"headers[.]([a-z_]+)|[\"'](x_[a-z_]+)[\"']")


def named_in(path: Path) -> set[str]:
    """The texts of a file of Python that look like a header of ours, and names of annotations that do."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if re.fullmatch(r"x_[a-z_]+", name)}


def test_the_list_of_our_headers_is_all_of_them() -> None:
    """Each that the code names, in Python and in Lua: another one could be given by a caller."""
    named = {name for path in PACKAGE.rglob("*.py") for name in named_in(path)}
    for path in PACKAGE.rglob("*.lua"):
        named |= {name for pair in IN_LUA.findall(path.read_text(encoding="utf-8")) for name in pair if name}
    assert {name for name in named if name in OURS or not name.startswith(LATER)} - {"task"} == set(OURS)


def test_every_header_that_a_sender_writes_is_celerys_or_ours(app: ConventionsApp) -> None:
    """Whichever way a message is sent."""
    Named.delay(1)
    Named.apply_async((2,), planned_at=datetime.now(UTC), countdown=5, link=Named.si(20))
    Named.enqueue_many([{"number": 3}, {"number": 4}], priority=Priority.HIGH)
    chord([Named.si(5), Named.si(6)], Named.si(7)).delay()
    Named.chunks([(8,), (9,)], 1).apply_async()
    Batched.delay(1)
    sent = messages(app)
    assert len(sent) == 9
    for one in sent:
        assert one.headers.keys() - NOT_HEADERS <= set(OURS), one.headers
    assert {name for one in sent for name in one.headers} & set(OURS) >= {
        "x_actor",
        "x_key",
        "x_fingerprint",
        "x_enqueued_at",
        "x_planned_at",
    }


def test_a_message_that_goes_on_as_another_one_keeps_the_headers_of_others() -> None:
    """As a retry does where the broker is no Redis, and the letter of one that came from there."""
    ours: dict[str, Any] = {KEY: "k", "x_generation": 2, "x_batch": ["b", "chunk", 0, 1]}
    others = {"x_request_id": "r", "traceparent": "00"}
    kept = {TOKEN: "t", "x-death": [1], "x-first-death-queue": "q", "job": 1, "conventions_run_by": 1}
    request = Context({"id": "i", "task": "t", "args": [], "kwargs": {}, **ours, **others, **kept})
    assert headers_to_go_on(request) == ours | others
    assert envelope_of(request)["headers"].items() >= (ours | others).items()
    # Tracing may put its own under that very name: those of them that look like ours are not.
    request = Context({"id": "i", **ours, "headers": others | {KEY: "forged", "x_actor": "ceo"}})
    assert headers_to_go_on(request) == ours | others


def test_headers_of_others_travel(app: ConventionsApp) -> None:
    """Those of tracing, once more within themselves as some of them do; also with many messages, and with what follows."""
    tracing = {
        "traceparent": "00-ab-cd-01",
        "sentry-trace": "1",
        "baggage": "a=b",
        "x_request_id": "r-1",
        "x-b3-traceid": "80f198ee",
        "x_": 1,
        "注": {"deep": [1.5, None, True]},
    }
    given: dict[str, Any] = tracing | {"headers": dict(tracing)}
    Named.apply_async((1,), headers=given)
    Named.enqueue_many([{"number": 2}, {"number": 3}], headers=given)
    Named.apply_async((4,), headers=given, link=Named.si(5).set(headers=given))
    sent = messages(app)
    assert len(sent) == 4
    for one in sent:
        assert {name: one.headers[name] for name in given} == given
        assert len(one.headers[KEY]) == 32


FAULTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no mapping": ([1], TypeError, "headers is a mapping"),
    "a name that is none": ({5: 1}, TypeError, "name of a header is text"),
    "a name that is too long": ({"x" * 256: 1}, ValueError, "name of a header has 256 characters"),
    "no JSON": ({"a": object()}, PayloadError, "cannot be written as JSON"),
    "a number that JSON has not": ({"a": [float("inf")]}, PayloadError, "cannot be written as JSON"),
    "half a character": ({"a": ["\ud800"]}, PayloadError, r"'a\.0' holds half a character"),
    "too large": ({"a": "x" * LIMIT}, PayloadError, "bytes of JSON, the limit is 16,384"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_headers_that_cannot_travel_are_refused(app: ConventionsApp, fault: str) -> None:
    """They are in every message, beside its arguments."""
    headers, error, wrong = FAULTS[fault]
    with pytest.raises(error, match=wrong):
        Named.apply_async((1,), headers=headers)
    assert messages(app) == []


def test_headers_of_ours_are_kept_where_they_are_made(app: ConventionsApp) -> None:
    """As those of a redrive, which is checked no more; with those of a schedule a message is checked like any other."""
    since = datetime.now(UTC).isoformat()
    Named.apply_async((1,), headers=AcceptedHeaders({KEY: "k", ENQUEUED_AT: since}))
    Named.apply_async((2,), headers=OwnHeaders({"x_schedule": "daily", ENQUEUED_AT: since}))
    kept, planned = sorted(messages(app), key=lambda one: one.arguments["number"])
    assert (kept.headers[KEY], kept.headers[ENQUEUED_AT]) == ("k", since)
    assert (planned.headers["x_schedule"], planned.headers[ENQUEUED_AT]) == ("daily", since)
    assert len(planned.headers[KEY]) == 32


def test_a_compressed_message_is_refused(app: ConventionsApp) -> None:
    """A small one may become too large for a worker, which refuses all of them."""
    sends: list[Callable[..., Any]] = [
        functools.partial(Named.apply_async, (1,)),
        functools.partial(Named.enqueue_many, [{"number": 1}]),
    ]
    for send in sends:
        with pytest.raises(TypeError, match="compressed messages are refused"):
            send(compression="gzip")
    assert messages(app) == []
