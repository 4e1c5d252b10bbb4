"""Raw messages of any headers, bodies and properties, many of them to one worker: each id ends with a row."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import json
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conventions.app import ConventionsApp
from conventions.dead_letters import letters as dead_letters
from conventions.records import executions
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, keeper, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Good
from tests.support import patient, wait_until
from tests.workers import Worker

TEXTS = st.text(st.characters(codec=None), max_size=6) | st.sampled_from(["\ud800", "a\0b", "x" * 256, ""])
NUMBERS = st.integers(-2, 9) | st.sampled_from([2**31 - 1, 2**31, 2**53, 2**63, 2**70, -(2**70), 10**400])
FLOATS = st.sampled_from([0.5, -1.0, 1e300, float("inf"), float("nan")])
MOMENTS = st.sampled_from(
    ["2020-01-01T00:00:00+00:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "tomorrow"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | FLOATS | TEXTS | MOMENTS
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
CELERYS = ["lang", "task", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
           "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps", "compression",
           "headers", "args", "kwargs", "callbacks", "chord", "hostname", "delivery_info", "properties", "reply_to", "taskset", "utc",
           "is_eager", "called_directly", "job", "known", "update", "_children", "correlation_id", "conventions_run_by"]  # fmt: skip
OURS = ["x_actor", "x_key", "x_fingerprint", "x_enqueued_at", "x_planned_at", "x_counts", "x_parked", "x_generation", "x_token",
        "x_copy", "x_batch", "x_schedule", "x_other", "x_conventions_signature", "x_conventions_signed"]  # fmt: skip
BATCHES = st.tuples(TEXTS, st.sampled_from(["splitter", "chunk", "finish", "x"]), NUMBERS, NUMBERS).map(list)
NUMBER = st.integers(0, 10**9).map(lambda number: {"number": str(number)})
STEP = {
    "task": st.just(Good.name),
    "args": st.lists(SCALARS, max_size=2),
    "kwargs": NUMBER | st.dictionaries(TEXTS, ANYTHING, max_size=2),
    "options": st.dictionaries(
        st.sampled_from(["task_id", "headers", "shadow", "time_limit", "retries", "link"]), ANYTHING, max_size=2
    ),
    "immutable": st.booleans(),
    "subtask_type": st.none(),
}
STEPS = st.fixed_dictionaries(STEP) | st.fixed_dictionaries({}, optional=STEP)
EMBED = st.dictionaries(
    st.sampled_from(["callbacks", "errbacks", "chain", "chord"]),
    ANYTHING | st.lists(STEPS, min_size=1, max_size=2),
    max_size=2,
)
BODIES = st.one_of(
    st.tuples(st.just([]), NUMBER, st.none() | EMBED).map(list),
    st.tuples(st.just([]), NUMBER, EMBED).map(list),
    st.tuples(ANYTHING, ANYTHING, ANYTHING).map(list),
    ANYTHING,
)
TASKS = st.sampled_from([Good.name] * 6 + ["nowhere.Nothing", "celery.map", "celery.accumulate", "celery.group"])
PROPERTIES = st.dictionaries(
    st.sampled_from(["priority", "correlation_id", "reply_to", "delivery_mode", "delivery_info", "other"]),
    ANYTHING,
    max_size=2,
)
MESSAGES = st.tuples(
    TASKS,
    st.dictionaries(st.sampled_from(CELERYS + OURS), ANYTHING, max_size=3)
    | st.fixed_dictionaries({"x_batch": BATCHES, "x_key": TEXTS})
    | st.just({}),
    BODIES,
    PROPERTIES | st.just({}),
    st.sampled_from(
        [{}] * 5 + [{"content-encoding": "zlib"}, {"content-type": "text/plain"}, {"content-encoding": None}]
    ),
)


FUZZ = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def written(message: tuple[Any, ...], message_id: str) -> str:
    """A message as it lies in the queue."""
    task, headers, body, properties, more = message
    if task.startswith("celery.") and isinstance(body, list) and len(body) == 3:
        body = [*body[:2], None]  # what follows one of Celery's own, and cannot be sent, is tried for a while
    envelope = raw.envelope(json.dumps(body).encode(), {"task": task, "id": message_id, "lang": "py"} | headers, **more)
    envelope["properties"] |= properties
    return json.dumps(envelope)


def rows(app: ConventionsApp, message_id: str) -> bool:
    """Whether an id has ended."""
    with app.database.session(read_only=True) as session:
        return dead_letters.get(session, message_id) is not None or bool(executions.of_message(session, message_id))


@FUZZ
@given(st.lists(MESSAGES, min_size=25, max_size=25))
def test_whatever_another_program_sends_ends_with_a_row(
    app: ConventionsApp, worker: Worker, messages: list[tuple[Any, ...]]
) -> None:
    """The main process lives, the good job among them runs, and nothing is left in the broker."""
    sent = {str(uuid4()): message for message in messages}
    owed = [
        message_id for message_id, (task, *_) in sent.items() if not task.startswith("celery.")
    ]  # whose jobs leave none
    for message_id, message in sent.items():
        raw.put(app, QUEUE, written(message, message_id))
    assert Good.delay(number := str(uuid4())).get(timeout=patient(20)) == number

    def ended() -> bool:
        return all(rows(app, message_id) for message_id in owed)

    try:
        wait_until(ended, 20)
    except AssertionError:
        missing = [sent[message_id] for message_id in owed if not rows(app, message_id)]
        raise AssertionError(f"without a row: {missing}\n{worker.output[-5000:]}") from None
    raw.check_unharmed(app, worker, QUEUE)
