"""A backlog of large messages takes a worker no more memory than its limit allows."""

import threading
from collections.abc import Callable

import psutil
import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.delivery import ReadRequest, brought, left_by
from conventions.broker.redis_broker import Broker, Publication
from tests.workers import Installation, wait_until_empty

MIB = 1 << 20
JOBS, SIZE = 1200, 60_000
SENT = SIZE * 4 // 3  # bytes: a body is sent as base64


class Weigh(ImmediateTask):
    """Take a large argument, and little time."""

    not_idempotent = "a test"

    def run(self, text: str) -> None:
        """As above."""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_holds_so_many_bytes_and_drains_them_all(
    module_installation: Installation, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """Beside one message for each process, and one that always comes: 29; `tests/transport/test_redis_reading.py` shows that exactly.

    Redis counts more: what has ended, until the worker says so, and what an abandoned read brought, until it is back. The worker held 28 at the
    most where Redis counted 41.
    """
    with module_installation.application() as app:
        Weigh.enqueue_many([{"text": ""} for _ in range(200)])
        variables = {"CONVENTIONS_READ_AHEAD_LIMIT": str(2 * MIB)}
        with module_installation.worker("-P", pool, "-c", "2", **variables) as worker:
            wait_until_empty(app, 30)  # it knows that they are short
            before = psutil.Process(worker.process.pid).memory_info().rss
            held = highest(lambda: app.broker.sizes("immediate").in_flight)
            Weigh.enqueue_many([{"text": "x" * SIZE} for _ in range(JOBS)])
            wait_until_empty(app, 60)
            assert 3 <= held() <= 3 * (2 * MIB / SENT + 3)
            assert psutil.Process(worker.process.pid).memory_info().rss - before < 60 * MIB


def highest(look: Callable[[], int]) -> Callable[[], int]:
    """Look all the time; what is returned ends that, and returns the highest that was seen."""
    seen, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            seen[0] = max(seen[0], look())

    thread = threading.Thread(target=watch)
    thread.start()

    def end() -> int:
        is_over.set()
        thread.join()
        return seen[0]

    return end


def test_a_read_stops_at_so_many_bytes(app: ConventionsApp, broker: Broker) -> None:
    """One message always comes, unless none is wanted; what is put back keeps its place; small ones of other queues come all the same."""
    broker.publish([Publication(f"m{number}", "q", "x" * 5000, 5) for number in range(5)])
    broker.publish([Publication("m5", "q", "x", 5), Publication("other", "r", "x", 5)])

    def read(most_bytes: int, at_once: int = 0) -> tuple[list[str], set[str]]:
        wanted = ReadRequest(["q", "r"], 6, most_bytes=most_bytes, at_once=at_once)
        reply = broker.store.run("reserve", wanted.arguments(30_000))
        return [one.tag.decode() for one in brought(reply)[1]], {*left_by(reply)}

    assert read(0) == (["other"], {"q"})
    assert read(1) == (["m0"], {"q"})
    assert broker.store.redis.exists(broker.store.key("wake", "q")), "the next idle worker looks, too"
    broker.publish([Publication("other2", "r", "x", 5)])
    assert read(11_000, at_once=1) == (["m1", "m2", "other2"], {"q"}), "in its queue, first come is first served"
    assert read(100_000) == (["m3", "m4", "m5"], set())
