"""A rate limit holds back the jobs of its task, nothing else, and ends when it is lifted."""

import json
import time
from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Broker, HeldMessage, Publication, Sizes
from tests.support import wait_until
from tests.workers import Installation, Worker, told, wait_until_empty

FAST = 4  # a second


def note(file: Path, text: str) -> None:
    """Add a line."""
    with file.open("a") as lines:
        lines.write(f"{text}\n")


class Ring(ImmediateTask):
    """Say that it ran."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path, number: int) -> None:
        note(file, f"{number} {self.attempt} {time.monotonic()}")


class Slowly(Ring):
    """The same, so often a second."""

    rate_limit = f"{FAST}/s"

    def run(self, file: Path, number: int) -> None:
        note(file, f"{number} {self.attempt} {time.monotonic()}")


class Knock(ImmediateTask):
    """Say that it ran; a short one, of which many go together."""

    not_idempotent = "a test"
    queue_name = "knocks"

    def run(self, file: Path, number: int) -> None:
        note(file, str(number))


def ran(file: Path) -> list[list[str]]:
    """The lines of a file, in words."""
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_it_holds_back_its_own_task_only(module_installation: Installation, tmp_path: Path, pool: str) -> None:
    """What is behind it in its queue runs, and so do other queues; the rest runs at once when it is lifted, also by a new worker."""
    rings, others, knocks = tmp_path / "rings", tmp_path / "others", tmp_path / "knocks"
    options = ("-P", pool, "-c", "2")
    with module_installation.application() as app:
        with module_installation.worker(*options) as worker:
            assert "ok" in str(told(app.control.rate_limit, Ring.name, "1/m"))
            Ring.enqueue_many([{"file": rings, "number": number} for number in range(300)])
            Slowly.enqueue_many([{"file": others, "number": number} for number in range(3)])
            Knock.enqueue_many([{"file": knocks, "number": number} for number in range(300)])
            wait_until(lambda: len(ran(knocks)) == 300 and len(ran(others)) == 3, 20, "the others have run")
            wait_until(lambda: app.broker.sizes("immediate") == Sizes(0, 299, 0), 20, "they wait in their queue")
            assert [line[0] for line in ran(rings)] == ["0"]
            told(app.control.rate_limit, Ring.name, 0)
            wait_until(lambda: len(ran(rings)) == 300, 20, "all of them run")
            assert {line[1] for line in ran(rings)} == {"1"}, "no attempt was used"
            wait_until_empty(app)
            told(app.control.rate_limit, Ring.name, "1/m")
            Ring.enqueue_many([{"file": rings, "number": number} for number in range(300, 320)])
            wait_until(lambda: app.broker.sizes("immediate") == Sizes(0, 19, 0), 20, "they wait in their queue")
            worker.kill()
        with module_installation.worker(*options):  # which knows nothing of the limit
            wait_until(lambda: len(ran(rings)) == 320, 20, "all of them run")
            wait_until_empty(app)


def test_a_limit_of_the_class_is_kept_and_used_up(live_app: ConventionsApp, worker: Worker, tmp_path: Path) -> None:
    """So many a second, and not fewer; beside them other jobs run."""
    slow, knocks = tmp_path / "slow", tmp_path / "knocks"
    Slowly.enqueue_many([{"file": slow, "number": number} for number in range(5 * FAST)])
    Knock.enqueue_many([{"file": knocks, "number": number} for number in range(100)])
    wait_until(lambda: len(ran(knocks)) == 100, 20, "the others have run")
    wait_until(lambda: len(ran(slow)) == 5 * FAST, 40, "all have run")
    moments = [float(line[2]) for line in ran(slow)]
    assert moments[-1] - moments[0] > 4
    assert sorted(int(line[0]) for line in ran(slow)) == [*range(5 * FAST)], "each once"


def messages(count: int) -> list[Publication]:
    """So many of one queue."""
    return [Publication(f"m{number}", "q", json.dumps({"number": number}), 5) for number in range(count)]


def test_what_is_held_back_counts_no_delivery_and_keeps_its_place(broker: Broker) -> None:
    """A stale receipt touches nothing; what ended meanwhile is left out; many are let through in parts."""
    broker.publish(messages(5))
    held = [HeldMessage(one.tag.decode(), one.queue, one.receipt) for one in broker.reserve(["q"], 4)]
    stale = held[0]._replace(receipt="another")
    assert broker.hold_back([stale, *reversed(held)], task="Task", period=0.1) == 4
    assert broker.sizes("q") == Sizes(1, 4, 0)
    assert broker.held_back_tasks() == {"Task"}
    broker.store.redis.zrem(broker.store.key("delayed", "q"), "m0")
    assert broker.let_through("Task", 2) == 1
    assert [(one.tag, one.deliveries) for one in broker.reserve(["q"], 9)] == [(b"m1", 1), (b"m2", 1), (b"m4", 1)]
    assert broker.let_through("Task", 5000) == 0
    assert [(one.tag, one.deliveries) for one in broker.reserve(["q"], 9)] == [(b"m3", 1)]
    assert broker.held_back_tasks() == set()


def test_what_waits_no_more_is_forgotten(broker: Broker) -> None:
    """Also while nothing is let through, as where others are always ahead: the next one waits for those only that wait."""
    redis, limited = broker.store.redis, broker.store.key("limited", "Task")

    def hold_back(number: int) -> None:
        broker.publish([Publication(f"m{number}", "q", "{}", 5)])
        (one,) = broker.reserve(["q"], 1)
        assert broker.hold_back([HeldMessage(one.tag.decode(), one.queue, one.receipt)], task="Task", period=0.1) == 1

    for number in range(50):
        hold_back(number)
    for number in range(50, 600):
        hold_back(number)
        redis.zrem(broker.store.key("delayed", "q"), f"m{number}")  # it was due
    assert 50 <= redis.zcard(limited) < 200
