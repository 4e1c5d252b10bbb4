"""A job of a group is the same whether its process was told of some headers, or reads the whole message."""

import json
from typing import Any

import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.codec import FORM
from conventions.broker.delivery import Delivery
from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    COPY,
    COUNTS,
    EDITED_BY,
    ENQUEUED_AT,
    FINGERPRINT,
    FOUND_BY,
    GENERATION,
    KEY,
    OTHER_NAMES,
    OURS,
    PARKED,
    PLANNED_AT,
    READY_AT,
    REDRIVEN_BY,
    SCHEDULE,
    SEALED,
    SIGNATURE,
    SIGNED,
    TOGETHER,
    TOKEN,
    TRACING,
    UNKNOWN,
    UNKNOWN_SINCE,
)
from conventions.broker.simple_message import plain
from conventions.execution.attempt import Attempt
from conventions.fast_lane.group_member import GroupMember
from conventions.fast_lane.lazy_request import LazyRequest

# A value of each header that says something. Who adds a header adds it here: what `Attempt.read` takes of it must then be in `TOLD`.
VALUES: dict[str, Any] = {
    ACTOR: "u-7",
    KEY: "a key",
    FINGERPRINT: "f" * 32,
    ENQUEUED_AT: "2026-01-05T00:00:00+00:00",
    PLANNED_AT: "2026-01-04T00:00:00+00:00",
    COUNTS: {"ConnectionError": 2},
    BATCH: ["b-1", "chunk", 1, 3],
    COPY: "a copy",
    SCHEDULE: "daily",
    UNKNOWN: 3,
    UNKNOWN_SINCE: "2026-01-03T00:00:00+00:00",
    TOGETHER: True,
    FOUND_BY: {"order": "0123"},
    SIGNATURE: "new.abc",
    SIGNED: ["tenant"],
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "congo=t61rcWkgMzE",
    "baggage": "tenant=t-1",
}
ABSENT = {
    PARKED,
    GENERATION,
    TOKEN,
    FORM,
    READY_AT,
    EDITED_BY,
    REDRIVEN_BY,
    SEALED,
    OTHER_NAMES,
}  # with another value than that of a first attempt, a message is not plain; TOKEN is no header of a message


class Sent(ImmediateTask):
    """A task with an argument."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


def test_each_header_has_a_value_here() -> None:
    """Else the next test would say nothing of it."""
    assert VALUES.keys() | ABSENT == {*OURS, *TRACING}


@pytest.mark.parametrize(
    "names", [(), *((name,) for name in VALUES), tuple(VALUES)], ids=lambda names: ",".join(names)[:20] or "none"
)
def test_the_job_is_the_same(app: ConventionsApp, names: tuple[str, ...]) -> None:
    """Each field of `Attempt`, also its claim."""
    Sent.delay(number=7)
    (came,) = app.broker.reserve([Sent.queue_name], 1)
    message = json.loads(came.payload)
    message["headers"] |= {name: VALUES[name] for name in names}
    delivery = Delivery(*came._replace(payload=json.dumps(message).encode()))
    found = plain(delivery.payload)
    assert found is not None

    member = GroupMember((tuple(delivery), Sent.name, found.kwargs, found.told))
    member.read(app, "worker@here", "a start")
    whole = LazyRequest({}, delivery, "worker@here")
    assert member.job == Attempt.read(app.tasks[Sent.name], found.kwargs, whole.get, "a start")
