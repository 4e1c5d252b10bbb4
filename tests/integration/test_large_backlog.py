"""A backlog of large messages takes a worker no more memory than its limit allows."""

import threading
from collections.abc import Callable

import psutil
import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker import Broker, Publication
from conventions.delivery import Wanted, brought
from tests.workers import Installation, wait_until_empty

MIB = 1 << 20
JOBS, SIZE = 1200, 60_000


class Weigh(ImmediateTask):
    """Take a large argument, and little time."""

    not_idempotent = "a test"

    def run(self, text: str) -> None:
        """As above."""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_holds_so_many_bytes_and_drains_them_all(
    module_installation: Installation, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """Beside one message for each process."""
    with module_installation.application() as app:
        Weigh.enqueue_many([{"text": ""} for _ in range(200)])
        variables = {"CONVENTIONS_READ_AHEAD_LIMIT": str(2 * MIB)}
        with module_installation.worker("-P", pool, "-c", "2", **variables) as worker:
            wait_until_empty(app, 30)  # it knows that they are short
            before = psutil.Process(worker.process.pid).memory_info().rss
            held = highest(lambda: app.broker.sizes("immediate").in_flight)
            Weigh.enqueue_many([{"text": "x" * SIZE} for _ in range(JOBS)])
            wait_until_empty(app, 60)
            assert 3 <= held() <= 2 * MIB / SIZE + 4
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
    """One message always comes; what is put back keeps its place; another read goes on with it."""
    broker.publish([Publication(f"m{number}", "q", "x" * 100, 5) for number in range(6)])
    broker.publish([Publication("other", "r", "x" * 100, 5)])

    def read(most_bytes: int) -> list[str]:
        reply = broker.store.run("reserve", Wanted(["q", "r"], 6, most_bytes=most_bytes).arguments(30_000))
        return [one.tag.decode() for one in brought(reply)[1]]

    assert read(1) == ["m0"]
    assert broker.store.redis.exists(broker.store.key("wake", "q")), "the next idle worker looks, too"
    assert read(450) == ["m1", "m2", "m3"]
    assert read(10_000) == ["m4", "m5", "other"]
