"""Plain messages of short tasks go straight to the lane, where nobody would see the difference (protocol 12)."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.request import create_request_cls

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.codec import read_message
from conventions.broker.delivery import Delivery
from conventions.broker.redis_broker import Sizes
from conventions.broker.simple_message import plain
from conventions.execution.process_ends import has_ended
from conventions.fast_lane.door import LaneIntake
from conventions.fast_lane.group import JobGroup
from conventions.fast_lane.group_size import RETURN_AFTER
from conventions.fast_lane.lane import Lane
from conventions.fast_lane.short_cut import ShortCut
from conventions.fast_lane.short_request import ShortRequest, handed_over, short_requests
from conventions.idempotency.claim_answers import Granted
from conventions.records.journal import Event
from conventions.worker.acknowledgements import Acknowledgements
from conventions.worker.consumer import Consumer
from conventions.worker.request import Request
from conventions.worker.strategy import strategy
from tests import claiming
from tests.claiming import FIRST, asking, end_lease, settle, take
from tests.support import wait_until


class Short(ImmediateTask):
    """A task whose jobs are short."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Other(ImmediateTask):
    """A task of which nothing is known."""

    idempotent_on = ("number",)

    def run(self, number: int) -> None:
        """Do nothing."""


class Slow(Short):
    """A task that keeps out."""

    fast_lane = False

    def run(self, number: int) -> None:
        """Do nothing."""


class Lonely(ImmediateTask):
    """A task with a way of its own."""

    idempotent_on = ("number",)
    Strategy = "celery.worker.strategy:default"

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture
def consumer(app: ConventionsApp) -> Iterator[Any]:
    """What the lane asks of Celery's consumer, without a worker; `chosen` is what reached the pool by itself."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        chosen: list[Any] = []
        consumer = SimpleNamespace(
            app=app,
            hostname="worker@host",
            hub=object(),
            controller=SimpleNamespace(max_tasks_per_child=None),
            pool=SimpleNamespace(apply_async=None),
            event_dispatcher=SimpleNamespace(enabled=True, groups={"worker"}, send=lambda *_, **__: None),
            connection_errors=(),
            task_consumer=SimpleNamespace(channel=channel, accept=None),
            task_buckets=dict.fromkeys(app.tasks),
            on_task_message=set(),
            pauses=SimpleNamespace(
                attach=lambda: None, holds=lambda _: False, returns=lambda _: False, holds_back=lambda *_: False
            ),
            prefetch_multiplier=4,
            chosen=chosen,
            on_task_request=chosen.append,
            call_soon_ack=lambda call, *args: call(*args),
        )
        yield consumer
    state.requests.clear()


@pytest.fixture
def lane(consumer: Any) -> Lane:
    """A lane that knows that jobs of `Short`, `Slow` and `Lonely` are short."""
    lane = Lane()
    lane.attach(consumer)
    for task in (Short, Slow, Lonely):
        lane.grouping.add(str(task.name))
        for _ in range(20):
            lane.estimates.add(str(task.name), 0.0001, None, together=True)
    return lane


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_free_process_starves_where_nothing_waits_for_it(lane: Lane, consumer: Any, pool: str) -> None:
    """By Celery's count of free processes, or by our own of threads."""
    consumer.pool = SimpleNamespace(uses_semaphore=pool == "prefork", limit=1, apply_async=None)
    consumer.controller.semaphore = SimpleNamespace(value=1)
    assert lane.starves()
    waits: Any = SimpleNamespace()
    lane.take(waits)
    assert not lane.starves()
    lane.clear()
    consumer.controller.semaphore.value = 0
    lane._apart.append(Future())
    assert not lane.starves()


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_who_runs_a_group_has_its_share_of_what_waits(lane: Lane, consumer: Any, pool: str) -> None:
    """It ends soon, unless it is slow: then what waits is for the others."""
    consumer.pool = SimpleNamespace(uses_semaphore=pool == "prefork", limit=2, apply_async=None)
    consumer.controller.semaphore = SimpleNamespace(initial_value=2, value=0)
    for _ in range(11):
        waits: Any = SimpleNamespace(task=Short, goes_alone=False, time_limits=(60, None), revoked=lambda: False)
        lane.take(waits)
    other = JobGroup(lane, [], "worker@host")
    lane._groups = {other}
    assert sum(map(len, lane._next_group(consumer.pool))) == 6
    other.begun_at = time.monotonic() - 2
    assert sum(map(len, lane._next_group(consumer.pool))) == 5


@pytest.mark.parametrize("reads_ahead", [True, False])
def test_the_lane_says_what_a_worker_that_reads_ahead_reads(
    app: ConventionsApp, consumer: Any, reads_ahead: bool
) -> None:
    """How many short jobs fit, and whether a process waits for its next one."""
    worker: Any = Consumer.__new__(Consumer)
    looks: list[Any] = []
    hub = SimpleNamespace(call_repeatedly=lambda *call: looks.append(call))
    vars(worker).update(vars(consumer), strategies={}, reads_ahead=reads_ahead, hub=hub)
    worker.intake, worker.acknowledgements = LaneIntake(worker), Acknowledgements(app.loop_calls)
    intake = worker.intake
    worker.create_task_handler()
    assert looks == [(RETURN_AFTER, intake.lane.look)]
    qos = consumer.task_consumer.channel.qos
    assert (qos.room, qos.starves) == ((intake.lane.room, intake.lane.starves) if reads_ahead else (None, None))


def test_a_lost_connection_keeps_no_later_message_from_being_acknowledged(app: ConventionsApp, consumer: Any) -> None:
    """The turn of the loop that was asked for is gone with it, and so is what an error left there."""
    worker: Any = Consumer.__new__(Consumer)
    turns: list[Any] = []
    hub = SimpleNamespace(call_repeatedly=lambda *_: None, call_soon=turns.append)
    vars(worker).update(vars(consumer), strategies={}, reads_ahead=False, hub=hub)
    worker.intake, worker.acknowledgements = LaneIntake(worker), Acknowledgements(app.loop_calls)
    del worker.call_soon_ack  # the fixture's
    done: list[int] = []

    def broken() -> None:
        raise BrokenPipeError

    worker.call_soon_ack(broken)
    worker.call_soon_ack(done.append, 1)
    worker.call_soon_ack(broken)
    worker.call_soon_ack(done.append, 2)
    with pytest.raises(BrokenPipeError):
        turns.pop()()
    worker.create_task_handler()
    assert done == [1, 2]
    worker.call_soon_ack(done.append, 3)
    turns.pop()()
    assert done == [1, 2, 3]


def test_a_lane_remembers_no_name_of_which_nothing_ran(lane: Lane) -> None:
    """Anybody can write names into messages."""
    before = len(lane.estimates._by_task)
    assert not any(lane.estimates.is_short(f"name {number}") for number in range(100))
    assert len(lane.estimates._by_task) == before


def handed_out(app: ConventionsApp, task: Any, **options: Any) -> Delivery:
    """A message of this task, as a read brings it."""
    task.apply_async(kwargs={"number": 7}, **options)
    (delivery,) = app.broker.reserve([task.queue_name], 1)
    return delivery


def test_a_plain_message_of_a_short_task_waits_in_the_lane(app: ConventionsApp, consumer: Any, lane: Lane) -> None:
    """Celery knows of it, and the channel counts it."""
    delivery = handed_out(app, Short)
    assert list(ShortCut(consumer, lane).take([delivery])) == []
    (request,) = state.requests.values()
    assert isinstance(request, ShortRequest)
    assert request in state.reserved_requests
    assert (request.name, request.token) == (Short.name, delivery.receipt)
    assert consumer.task_consumer.channel.qos._held == 1
    assert consumer.chosen == []


@pytest.mark.parametrize("task", [Other, Slow, Lonely])
def test_other_tasks_go_the_long_way(task: Any, app: ConventionsApp, consumer: Any, lane: Lane) -> None:
    """Of which nothing is known, or which keep out."""
    delivery = handed_out(app, task)
    assert list(ShortCut(consumer, lane).take([delivery])) == [delivery]


@pytest.mark.parametrize("options", [{"expires": 60}, {"retries": 1}, {"ignore_result": False}])
def test_other_messages_go_the_long_way(
    options: dict[str, Any], app: ConventionsApp, consumer: Any, lane: Lane
) -> None:
    """Those that need more of Celery."""
    delivery = handed_out(app, Short, **options)
    assert list(ShortCut(consumer, lane).take([delivery])) == [delivery]


@pytest.mark.parametrize(
    "changes", [{"deliveries": 2}, {"alone": True}, {"changes": {"x_counts": {"error": 1}}}, {"receipt": ""}]
)
def test_other_deliveries_go_the_long_way(
    changes: dict[str, Any], app: ConventionsApp, consumer: Any, lane: Lane
) -> None:
    """Those that came or were tried before."""
    delivery = handed_out(app, Short)._replace(**changes)
    assert list(ShortCut(consumer, lane).take([delivery])) == [delivery]


def test_all_go_the_long_way_while_somebody_watches(
    app: ConventionsApp, consumer: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, signals, limits, revokes, and a worker that stops."""
    delivery = handed_out(app, Short)
    intake = ShortCut(consumer, lane)

    def goes_the_long_way() -> bool:
        return list(intake.take([delivery])) == [delivery]

    def on_received(**_: Any) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(consumer.event_dispatcher, "groups", {"worker", "task"})
        assert goes_the_long_way()
    with monkeypatch.context() as patch:
        patch.setattr(state, "should_stop", 0)
        assert goes_the_long_way()
    with monkeypatch.context() as patch:
        patch.setattr(state, "revoked_stamps", {"stamp": ["a"]})
        assert goes_the_long_way()
    with monkeypatch.context() as patch:
        patch.setitem(consumer.task_buckets, Short.name, object())
        assert goes_the_long_way()
    signals.task_received.connect(on_received)
    try:
        assert goes_the_long_way()
    finally:
        signals.task_received.disconnect(on_received)
    state.revoked.add(delivery.tag.decode())
    try:
        assert goes_the_long_way()
    finally:
        state.revoked.discard(delivery.tag.decode())
    assert not goes_the_long_way()


def test_a_fault_in_it_leads_to_the_long_way(
    app: ConventionsApp, consumer: Any, lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    """Which says what is wrong; the other messages of the read are taken."""
    nothing: Any = None
    odd = handed_out(app, Short)._replace(payload=nothing)
    good = handed_out(app, Short)
    assert list(ShortCut(consumer, lane).take([odd, good])) == [odd]
    assert [request.token for request in state.requests.values()] == [good.receipt]
    assert consumer.task_consumer.channel.qos._held == 1
    assert "cannot be taken" in caplog.text


def test_its_log_is_celerys(app: ConventionsApp, consumer: Any, lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    """The line of a message that was received."""
    with caplog.at_level("INFO", logger="celery.worker.strategy"):
        assert not list(ShortCut(consumer, lane).take([handed_out(app, Short)]))
        consumer.timer, consumer.apply_eta_task, consumer.disable_rate_limits = (
            SimpleNamespace(call_at=None),
            None,
            True,
        )
        consumer._limit_task = consumer._limit_post_eta = None
        consumer.controller.state = state
        consumer.intake = LaneIntake(consumer)
        long = handed_out(app, Short)
        channel = consumer.task_consumer.channel
        message = channel.Message(read_message(long), channel=channel)
        strategy(app.tasks[Short.name], app, consumer)(message, None, None, None, ())
    short, celerys = caplog.records
    assert short.msg == celerys.msg
    mine, its = vars(short)["data"], vars(celerys)["data"]
    assert mine.keys() == its.keys()
    assert {name: mine[name] for name in mine if name != "id"} == {name: its[name] for name in its if name != "id"}


def as_celery_makes_it(delivery: Delivery, task: Any, consumer: Any) -> Any:
    """The request of a message that goes the long way."""
    app, channel, events = consumer.app, consumer.task_consumer.channel, consumer.event_dispatcher
    made: Any = create_request_cls(Request, task, consumer.pool, consumer.hostname, events, app=app)
    message = channel.Message(read_message(delivery), channel=channel)
    return made(message, app=app, task=task, hostname=consumer.hostname, eventer=events, utc=app.uses_utc_timezone())


def test_one_that_has_not_begun_is_not_called_hung(app: ConventionsApp, consumer: Any, lane: Lane) -> None:
    """Also when its group has ended meanwhile, since the process was killed of the one that hung."""
    assert list(ShortCut(consumer, lane).take([handed_out(app, Short)])) == []
    (short,) = state.requests.values()
    assert short.group is None
    short.on_lapsed()
    assert app.journal.length() == 0


NAMES = ("id", "name", "type", "task", "args", "kwargs", "argsrepr", "kwargsrepr", "eta", "expires", "hostname", "root_id",
         "parent_id", "correlation_id", "reply_to", "delivery_info", "time_limits", "token", "delivery", "claim",
         "has_follow_ups", "embed", "ignore_result", "utc", "body", "content_type", "content_encoding", "request_dict",
         "store_errors", "group", "stamps", "has_ended_otherwise")  # fmt: skip


def test_it_is_the_request_of_celery_as_soon_as_somebody_asks(app: ConventionsApp, consumer: Any, lane: Lane) -> None:
    """Nothing that a group does with it makes it whole; everything else has the values that it would have had."""
    task, delivery = app.tasks[Short.name], handed_out(app, Short)
    assert list(ShortCut(consumer, lane).take([delivery])) == []
    (short,) = state.requests.values()
    assert handed_over(short) == claiming.handed_over(delivery)
    assert not short.revoked()
    assert (short.start().claim, short.time_limits) == (
        short.claim,
        (app.settings.time_limit, app.settings.soft_time_limit),
    )
    short.accept(4711, 0.0)
    short.make_room()
    assert short._came is not None
    whole = as_celery_makes_it(delivery, task, consumer)
    assert {name: getattr(short, name) for name in NAMES} == {name: getattr(whole, name) for name in NAMES}
    assert short._came is None
    assert short.info() == whole.info() | {"worker_pid": 4711, "acknowledged": False, "time_start": short.time_start}
    assert handed_over(short) == handed_over(whole)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = short.nonsense


def test_it_can_be_rejected_once_it_is_whole(app: ConventionsApp, consumer: Any) -> None:
    """By the channel that it came by."""
    delivery = handed_out(app, Short)
    message = plain(delivery.payload)
    assert message is not None
    channel = consumer.task_consumer.channel
    app.in_flight.add(delivery)
    channel.qos.append(None, delivery.receipt)
    request = short_requests(app.tasks[Short.name], consumer)(message, delivery, channel)
    request.reject(requeue=False)
    assert app.in_flight.flush(5)
    assert app.broker.sizes(Short.queue_name).in_flight == 0


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("is_dead", [True, False])
def test_whose_process_has_ended_is_not_beyond_its_limit(
    app: ConventionsApp, consumer: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch, *, is_dead: bool, together: bool
) -> None:
    """It comes again, with its start counted; the pool hears of the end of a process later than of a limit.

    Which job of a group is beyond it, Redis tells, who need not be asked where there is one.
    """
    delivery = handed_out(app, Short)
    app.in_flight.add(delivery)
    assert not list(ShortCut(consumer, lane).take([delivery]))
    (request,) = state.requests.values()
    group = JobGroup(lane, [[request]], "worker@host") if together else None
    asked = replace(FIRST, task=Short.name, key=request.claim.removeprefix(f"{Short.name}:"), message_id=request.id)
    assert isinstance(take(app.claims, asking(delivery, asked)), Granted)
    lane.clear()
    consumer.pool = SimpleNamespace(uses_semaphore=True, apply_async=None)
    consumer.write_to_pool = lambda: None
    child = subprocess.Popen(["sleep", "60"])
    try:
        if is_dead:
            child.kill()
            wait_until(lambda: has_ended(child.pid), 5, "it has ended")
        if group is None:
            request.on_accepted(child.pid, time.monotonic())
            request.on_timeout(False, 90)
        else:
            group._on_accepted(child.pid, time.monotonic())
            monkeypatch.setattr(app.claims, "runs", lambda *_: pytest.fail("Redis is asked"))
            group._on_timeout(False, 91)
    finally:
        child.kill()
        child.wait()
    assert app.in_flight.flush(5)
    assert app.broker.sizes(Short.queue_name) == (Sizes(1, 0, 0) if is_dead else Sizes(0, 0, 0))
    entries: Any = app.store.redis.xrange(app.journal.key)
    kinds = [Event.decode(fields[b"event"]).kind for _, fields in entries]
    assert kinds == ([] if is_dead else ["dead"])


@pytest.mark.parametrize("ended", [True, False])
def test_a_job_that_ends_before_it_is_terminated(app: ConventionsApp, consumer: Any, lane: Lane, ended: bool) -> None:
    """The signal came too late: it has one end, and its message comes again, for what follows it."""
    delivery = handed_out(app, Short)
    app.in_flight.add(delivery)
    assert not list(ShortCut(consumer, lane).take([delivery]))
    (request,) = state.requests.values()
    first = replace(FIRST, task=Short.name, key=request.claim.removeprefix(f"{Short.name}:"), message_id=request.id)
    asked = asking(delivery, first)
    assert isinstance(take(app.claims, asked), Granted)
    lane.clear()
    consumer.pool = SimpleNamespace(uses_semaphore=True, apply_async=None, terminate_job=lambda *_: None)
    if ended:
        settle(app.claims, asked, "done", event=None, action="keep")
    request._announce_revoked("terminated", True, "SIGTERM", False)
    assert app.in_flight.flush(5)
    assert app.broker.sizes(Short.queue_name) == (Sizes(0, 1, 0) if ended else Sizes(0, 0, 0))
    entries: Any = app.store.redis.xrange(app.journal.key)
    assert [Event.decode(fields[b"event"]).kind for _, fields in entries] == ([] if ended else ["revoked"])


@pytest.mark.parametrize("runs", [True, False])
def test_a_revoked_message_that_another_delivery_has_begun(
    app: ConventionsApp, consumer: Any, lane: Lane, runs: bool
) -> None:
    """It waits for the other one while that runs. One that stands still beyond its lease records no second end."""
    delivery = handed_out(app, Short)
    app.in_flight.add(delivery)
    assert not list(ShortCut(consumer, lane).take([delivery]))
    (request,) = state.requests.values()
    other = replace(FIRST, task=Short.name, key=request.claim.removeprefix(f"{Short.name}:"), message_id=request.id)
    assert isinstance(take(app.claims, other), Granted)
    if not runs:
        end_lease(app.store, other)
    lane.clear()
    state.revoked.add(request.id)
    try:
        assert request.revoked() is not runs
    finally:
        state.revoked.discard(request.id)
    assert app.in_flight.flush(5)
    entries: Any = app.store.redis.xrange(app.journal.key)
    kinds = [Event.decode(fields[b"event"]).kind for _, fields in entries]
    assert kinds == ([] if runs else ["interrupted", "revoked"]), "its start, and its end"
    assert settle(app.claims, other) == ("recorded" if runs else "refused")


def test_one_that_cannot_be_made_whole_comes_again_and_ends_nothing(
    app: ConventionsApp, consumer: Any, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: its next delivery goes the long way."""
    delivery = handed_out(app, Short)
    app.in_flight.add(delivery)
    assert not list(ShortCut(consumer, lane).take([delivery]))
    monkeypatch.setattr("conventions.fast_lane.short_request.read_message", lambda _: {"no": "part"}["headers"])
    consumer.controller.semaphore = SimpleNamespace(initial_value=1, value=0)
    pool = SimpleNamespace(uses_semaphore=True)
    with pytest.raises(TaskRevokedError):  # by which Celery frees the process
        lane.execute_using_pool(pool)
    assert not state.requests
    assert app.in_flight.flush(5)
    assert app.broker.sizes(Short.queue_name).delayed == 1


def test_a_group_that_the_pool_does_not_take_comes_again_and_ends_nothing(
    app: ConventionsApp, consumer: Any, lane: Lane
) -> None:
    """Each goes alone then."""
    for number in range(2):
        Short.apply_async((number,))
    deliveries = app.broker.reserve([Short.queue_name], 2)
    app.in_flight.add(*deliveries)
    assert not list(ShortCut(consumer, lane).take(deliveries))
    consumer.controller.semaphore = SimpleNamespace(initial_value=1, value=0)
    with pytest.raises(TaskRevokedError):
        lane.execute_using_pool(SimpleNamespace(uses_semaphore=True))  # it has no `apply_async`
    assert not state.requests
    assert not lane._groups
    assert app.in_flight.flush(5)
    assert app.broker.sizes(Short.queue_name).delayed == 2
