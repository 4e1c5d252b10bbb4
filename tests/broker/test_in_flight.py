"""`InFlight` against a real server: what a process holds is kept, acknowledged and returned, whatever happens meanwhile."""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from conventions.broker import in_flight as module
from conventions.broker.in_flight import InFlight
from conventions.broker.redis_broker import Sizes
from conventions.core.lease_timings import USUAL
from conventions.storage.redis_store import Store
from tests.claiming import asking, due_in, end_lease, end_wait, handed_out, message, places, take
from tests.holding import Server, Telling, broker_of, hold, start
from tests.stored_messages import deliveries
from tests.support import patient, wait_until

Process: TypeAlias = Callable[..., InFlight]


@pytest.fixture
def process_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """Make the registry of a process, whose thread ends with the test; `heartbeat` in seconds."""
    monkeypatch.setattr(module, "GATHER", 0.001)
    made: list[InFlight] = []

    def make(store: Store, *, heartbeat: float = 1000.0, visibility: float = 33.0) -> InFlight:
        timings = replace(USUAL, heartbeat=heartbeat, retry_after=0.05)
        made.append(InFlight(Telling(store, visibility), timings=timings))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    server = Server(tmp_path)
    yield server
    server.stop()
    server.store.redis.close()


def test_a_message_is_held_while_its_process_lives(process_of: Process, store: Store) -> None:
    """For three times its visibility, although others sweep; forgotten, it goes to one of them."""
    registry = process_of(store, heartbeat=0.05, visibility=0.4)
    registry.start()
    delivery = hold(registry)
    first: Any = store.redis.zscore(store.key("inflight", "q"), "m1")

    def last() -> float:
        score: Any = store.redis.zscore(store.key("inflight", "q"), "m1")
        assert score is not None, "another worker may take it"
        return float(score)

    wait_until(lambda: last() > first + 3 * 400, 10, "heartbeats")
    registry.forget(delivery.receipt)
    assert len(registry) == 0
    wait_until(lambda: places(store, "m1") == ["queue"], 5, "the sweep brings it back")


def test_one_thread_serves_all_messages(process_of: Process, store: Store) -> None:
    """It starts with the first one, and removes what has ended at once, not with the next heartbeat."""
    registry = process_of(store)
    before = threading.active_count()
    deliveries = [hold(registry, f"m{number}") for number in range(20)]
    assert threading.active_count() == before + 1
    for delivery in deliveries:
        registry.acknowledge(delivery.receipt)
    assert registry.flush(5)
    assert (len(registry), broker_of(registry).sizes("q")) == (0, Sizes(0, 0, 0))


def test_what_others_have_is_dropped(process_of: Process, store: Store) -> None:
    """A process that slept too long has lost its message: neither its heartbeat nor its acknowledgement counts."""
    registry = process_of(store)
    delivery = hold(registry)
    end_wait(store, "m1", "inflight")
    broker_of(registry).sweep()
    handed_out(broker_of(registry))
    registry._send_heartbeats()
    assert len(registry) == 0
    registry.acknowledge(delivery.receipt)
    assert registry.flush(5)
    assert places(store, "m1") == ["inflight"]


@pytest.mark.parametrize(("first", "place"), [("acknowledge", []), ("give_back", ["queue"])])
def test_the_first_decision_wins(process_of: Process, store: Store, first: str, place: list[str]) -> None:
    """Celery rejects what was returned, and acknowledges what was rejected."""
    registry = process_of(store)
    receipt = hold(registry).receipt
    for decide in (getattr(registry, first), registry.give_back, registry.acknowledge):
        decide(receipt)
    assert registry.seize() == []
    assert registry.flush(5)
    assert places(store, "m1") == place
    assert len(registry) == 0


def test_a_rejected_message_waits(process_of: Process, store: Store) -> None:
    """Each with the wait that it was returned with."""
    registry = process_of(store)
    held = [hold(registry, f"m{number}") for number in range(3)]  # first: what is back may be read again
    for number, wait in enumerate((0.0, 20.0, 40.0)):
        registry.give_back(held[number].receipt, wait=wait, counted=bool(number))
    assert registry.flush(5)
    assert places(store, "m0") == ["queue"]
    assert [round(due_in(store, tag) / 20) for tag in ("m1", "m2")] == [1, 2]
    assert [deliveries(store, f"m{n}") for n in range(3)] == [0, 1, 1]


def test_what_has_not_started_is_returned(process_of: Process, store: Store) -> None:
    """Of all messages, or of some; what runs stays."""
    registry = process_of(store)
    running, one, two = (hold(registry, tag) for tag in ("m1", "m2", "m3"))
    start(registry, running, store)
    assert registry.give_back_unstarted([running.receipt, one.receipt]) == 1
    assert registry.give_back_unstarted() == 1
    assert registry.flush(5)
    assert [places(store, tag) for tag in ("m1", "m2", "m3")] == [["inflight"], ["queue"], ["queue"]]
    assert two.receipt not in registry._held


def test_a_process_that_ends_returns_everything(process_of: Process, store: Store) -> None:
    """Seized, nobody else decides on a message; returned, it and its claim are free, and no start is counted."""
    registry = process_of(store)
    delivery = hold(registry)
    hold(registry, "m2")
    claims = start(registry, delivery, store)
    seized = registry.seize()
    registry.acknowledge(delivery.receipt)
    assert registry.give_back_unstarted() == 0
    assert places(store, "m1") == ["inflight"]
    registry.give_back_seized(seized, "the worker ends")
    assert registry.flush(5)
    (again,) = broker_of(registry).reserve(["q"], 1)
    assert (again.tag, again.deliveries) == (b"m1", 1)
    assert take(claims, asking(again)).starts == 1  # type: ignore[union-attr]  # a wrong answer has none


def test_a_lapsed_lease_is_told_after_two_heartbeats(process_of: Process, store: Store) -> None:
    """After an outage it is renewed between two of them; told until something is done about it."""
    registry = process_of(store)
    told: list[str] = []

    def on_lapsed() -> bool:
        told.append("lapsed")
        return len(told) == 2

    delivery = hold(registry)
    claims = start(registry, delivery, store, on_lapsed)
    end_lease(store)
    registry._send_heartbeats()
    claims.renew([asking(delivery)])
    registry._send_heartbeats()
    end_lease(store)
    registry._send_heartbeats()
    assert not told
    for _ in range(4):
        registry._send_heartbeats()
    assert told == ["lapsed"] * 2


def test_a_fault_does_not_end_the_thread(process_of: Process, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Without it, running messages go to other workers."""
    registry = process_of(store, heartbeat=0.05)
    start(registry, hold(registry), store, lambda: 1 / 0)  # type: ignore[arg-type, return-value]  # never returns
    end_lease(store)
    wait_until(lambda: "a fault of the platform" in caplog.text, 5, "the fault is logged")
    registry.acknowledge(hold(registry, "m2").receipt)
    wait_until(lambda: places(store, "m2") == [], 5, "the thread goes on")


BAD = "Task:\ud800"  # the name of a claim that cannot be sent


def test_one_message_keeps_no_other_from_being_heard(
    process_of: Process, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor from being acknowledged and returned, nor anything of a dead worker from coming back. It is let go itself."""
    registry = process_of(store, heartbeat=0.05)
    deliveries = [hold(registry, f"m{number}") for number in range(9)]
    registry.begin(deliveries[4].receipt, BAD, "token", lambda: False)
    registry.start()
    broker = broker_of(registry)
    broker.publish([message("of a dead one")])
    handed_out(broker)
    end_wait(store, "of a dead one", "inflight")
    wait_until(lambda: "of a dead one" not in held_by_all(store), 5, "the sweep is reached")
    wait_until(lambda: "is let go" in caplog.text, 5, "the bad one is named")
    first = inflight(store)
    wait_until(lambda: all(inflight(store)[tag] > first[tag] + 300 for tag in first if tag != "m4"), 10, "heartbeats")
    registry.acknowledge(deliveries[0].receipt)
    registry.give_back(deliveries[1].receipt)
    assert registry.flush(5)
    assert (places(store, "m0"), places(store, "m1")) == ([], ["queue"])
    assert deliveries[4].receipt not in registry._held
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("decide", ["acknowledge", "give_back"])
def test_one_message_keeps_no_other_from_being_let_go(process_of: Process, store: Store, decide: str) -> None:
    """One of them cannot be, with those that are."""
    registry = process_of(store)
    one, bad, other = (hold(registry, tag) for tag in ("m1", "m2", "m3"))
    registry.begin(bad.receipt, BAD, "token", lambda: False)
    for delivery in (one, bad, other):
        getattr(registry, decide)(delivery.receipt)
    assert registry.flush(5)
    assert [places(store, tag) for tag in ("m1", "m2", "m3")] == (
        [[], ["inflight"], []] if decide == "acknowledge" else [["queue"], ["inflight"], ["queue"]]
    )
    assert len(registry) == 0


def inflight(store: Store) -> dict[str, float]:
    """When each message that is held goes to another worker, ms."""
    found: Any = store.redis.zrange(store.key("inflight", "q"), 0, -1, withscores=True)
    return {tag.decode(): score for tag, score in found}


def held_by_all(store: Store) -> set[str]:
    """The messages that some process holds."""
    return set(inflight(store))


# Without a server.


def test_acknowledgements_survive_a_restart_of_the_server(
    process_of: Process, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """What ended while it was away is removed when it is back; what runs is still held."""
    caplog.set_level(logging.WARNING, "conventions.broker.in_flight")
    registry = process_of(server.store)
    ended, returned, _ = (hold(registry, tag) for tag in ("m1", "m2", "m3"))
    server.stop()
    registry.acknowledge(ended.receipt)
    registry.give_back(returned.receipt)
    assert not registry.flush(0.05)
    wait_until(lambda: "Redis does not answer" in caplog.text, 10, "the outage is logged")
    assert len(registry) == 3
    server.start()
    assert registry.flush(20)
    assert [places(server.store, tag) for tag in ("m1", "m2", "m3")] == [[], ["queue"], ["inflight"]]
    assert len(registry) == 1
    assert caplog.text.count("Redis does not answer") == 1


def test_after_an_outage_others_are_heard_first(
    process_of: Process, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The sweep comes one interval after the first heartbeat: what others hold has lapsed meanwhile for all of them."""
    caplog.set_level(logging.WARNING, "conventions.broker.in_flight")
    registry = process_of(server.store, heartbeat=0.3)
    registry.start()
    hold(registry)
    told = broker_of(registry).told
    wait_until(lambda: "sweep" in told, 5, "it sweeps")
    server.stop()
    wait_until(lambda: "Redis does not answer" in caplog.text, 10, "the outage is noticed")
    told.clear()
    server.start()
    wait_until(lambda: "sweep" in told, 20, "it sweeps again")
    assert told[:3] == ["heartbeat", "heartbeat", "sweep"]


# Forks.


def _in_child(registry: InFlight, receipt: str) -> None:
    registry.acknowledge(receipt)
    os._exit(0 if len(registry) == 0 and registry._thread is None and registry.flush(1) else 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it has threads, as a worker has
def test_a_forked_process_holds_nothing(process_of: Process, store: Store) -> None:
    """The messages are the parent's, which alone may end them."""
    registry = process_of(store)
    receipt = hold(registry).receipt
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(registry, receipt))
    child.start()
    child.join(patient(10))
    assert child.exitcode == 0
    assert (places(store, "m1"), len(registry)) == (["inflight"], 1)


def test_one_that_stops_does_what_is_left(process_of: Process, store: Store) -> None:
    """What has ended is acknowledged; its thread ends, and begins again with the next message, however soon."""
    registry = process_of(store)
    for number in range(50):
        registry.acknowledge(hold(registry, f"m{number}").receipt)
        registry.stop()
        assert places(store, f"m{number}") == []
    assert registry._thread is None
    ends = threading.Thread(target=registry.stop)
    ends.start()
    registry.acknowledge(hold(registry, "last").receipt)
    wait_until(lambda: places(store, "last") == [], 5, "acknowledged")
    ends.join(10)
