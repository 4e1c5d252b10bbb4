"""What is handed to a process as it came, and what goes the long way."""

import base64
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from celery.exceptions import InvalidTaskError
from hypothesis import given
from hypothesis import strategies as st

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.codec import read_message
from conventions.broker.delivery import Delivery
from conventions.broker.message_form import Headers, Properties
from conventions.broker.simple_message import TOLD, PlainMessage, plain
from conventions.fast_lane.eligible import may_go_together
from conventions.worker.request import Request

Message: TypeAlias = dict[str, Any]


class Sent(ImmediateTask):
    """A task with an argument."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture
def delivery(app: ConventionsApp) -> Delivery:
    """A message of the task, as it was handed out."""
    Sent.delay(number=7)
    (delivery,) = app.broker.reserve([Sent.queue_name], 1)
    return delivery


def test_a_first_delivery_of_a_simple_message_is_plain(delivery: Delivery) -> None:
    """And what the main process needs is read from it."""
    headers = json.loads(delivery.payload)["headers"]
    told = {"id", "x_actor", "x_enqueued_at", "x_fingerprint", "x_key", "argsrepr", "kwargsrepr"}
    found = plain(delivery.payload)
    assert found is not None
    assert found == PlainMessage(
        headers["id"],
        Sent.name,
        headers["x_key"],
        tuple(headers["timelimit"]),
        "()",
        "{'number': 7}",
        {"number": 7},
        tuple(headers[name] if name in told else None for name in TOLD),
        b"",
        b"",
    )


def header(name: str, value: Any) -> Callable[[Message], None]:
    """A message with this header."""

    def change(message: Message) -> None:
        message["headers"][name] = value

    return change


def without(name: str) -> Callable[[Message], None]:
    """A message without this header."""

    def change(message: Message) -> None:
        del message["headers"][name]

    return change


def body(value: Any) -> Callable[[Message], None]:
    """A message with this body."""

    def change(message: Message) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        message["body"] = base64.b64encode(text.encode()).decode()

    return change


def part(name: str, value: Any) -> Callable[[Message], None]:
    """A message one part of which is this."""

    def change(message: Message) -> None:
        message[name] = value

    return change


NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.mark.parametrize(
    "change",
    [
        header("retries", 1),
        header("eta", "2026-11-26T00:00:00+00:00"),
        header("expires", "2036-11-26T00:00:00+00:00"),
        header("ignore_result", False),
        header("x_generation", 1),
        header("shadow", "another name"),
        header("compression", "application/x-gzip"),
        header("stamped_headers", ["stamp"]),
        header("x_enqueued_at", "yesterday"),
        header("x_planned_at", "noon"),
        header("x_conventions_ready_at", None),
        header("x_conventions_ready_at", ""),
        header("x_conventions_ready_at", "2026-11-26T00:00:00+00:00"),
        header("id", 1),
        header("timelimit", "soon"),
        without("x_key"),
        without("x_actor"),
        without("task"),
        body([[7], {}, NOTHING]),
        body([[], {"number": 7}, NOTHING | {"callbacks": [{}]}]),
        body([[], {"number": 7}, NOTHING | {"chain": [{}]}]),
        body([[], {"number": 7}, NOTHING | {"another": 1}]),
        body([[], ["number"], NOTHING]),
        body([[], {}]),
        body(7),
        body("[[], {"),
        part("body", "no base64!"),
        part("body", {}),
        part("content-type", "application/x-yaml"),
        part("content-encoding", "utf-16"),
        part("properties", {"body_encoding": None}),
        part("headers", None),
        part("properties", {"body_encoding": "base64"}),
        part("properties", {"body_encoding": "base64", "delivery_info": []}),
        header("x_parked", "often"),
        *(header(name, "x" * 256) for name in ("id", "task", "x_key", "x_actor", "x_fingerprint", "root_id", "x_copy")),
        *(header(name, "a\0b") for name in ("id", "x_key", "x_actor")),
        *(header(name, "\ud800") for name in ("id", "x_key", "x_actor", "kwargsrepr")),
        *(header(name, 2**31) for name in ("x_parked", "x_generation", "retries", "replaced_task_nesting")),
        header("x_counts", {"error": 2**31}),
        header("timelimit", [1e300, None]),
        header("timelimit", [-1, None]),
        header("x_enqueued_at", "9999-12-31T23:59:59-14:00"),
        header("group", 7),
        header("x_counts", {"error": -1}),
        body([[], {"number": {"__type__": "nonsense", "__value__": 1}}, NOTHING]),
    ],
)
def test_what_needs_more_than_a_process_is_not(change: Callable[[Message], None], delivery: Delivery) -> None:
    """It goes by Celery's own request, which says what is wrong with it, if anything is."""
    message = json.loads(delivery.payload)
    change(message)
    assert plain(json.dumps(message).encode()) is None


@pytest.mark.parametrize("payload", [b"", b"no message", b"\xff\xfe", b"[]", b"{}", b"[" * 10_000])
def test_what_is_no_message_is_not(payload: bytes) -> None:
    """Whatever lies in the queue."""
    assert plain(payload) is None


ODD = st.sampled_from(["x" * 256, "a\0", 2**31, -1, 2**70, 1e300, "9999-12-31T23:59:59-14:00"])
SCALARS = ODD | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


class TestEveryPlainMessage:
    """Of whatever headers."""

    message: Message

    @pytest.fixture(autouse=True)
    def _message(self, app: ConventionsApp, delivery: Delivery) -> None:
        type(self).message, type(self).app = json.loads(delivery.payload), app

    app: ConventionsApp

    @given(data=st.data())
    def test_is_one_that_the_long_way_takes(self, data: st.DataObject) -> None:
        """So nothing is wrong with it that is found too late."""
        message = json.loads(json.dumps(self.message))
        names = sorted(
            message["headers"].keys() | set(Headers.__annotations__) | {"job", "update", "conventions_run_by"}
        )
        for name in data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=3)):
            message["headers"][name] = data.draw(VALUES)
        for name in data.draw(st.sets(st.sampled_from(sorted(Properties.__annotations__)), max_size=1)):
            message["properties"][name] = data.draw(VALUES)
        delivery = Delivery(b"tag", "immediate", json.dumps(message).encode(), "receipt", 1, {})
        if plain(delivery.payload) is None or message["headers"]["task"] != Sent.name:
            return  # one of another task goes to that one
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            try:
                request = Request(
                    channel.Message(read_message(delivery), channel=channel),
                    app=self.app,
                    task=self.app.tasks[Sent.name],
                    hostname="h",
                )
            except InvalidTaskError as error:
                raise AssertionError(f"refused: {error}") from error
        assert may_go_together(request)
