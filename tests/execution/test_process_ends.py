"""What is known of the end of a process: whether there is one, and that the pool asks often enough."""

import os
import signal
import subprocess
import time
from types import SimpleNamespace
from typing import Any

from kombu.asynchronous import Hub

from conventions.execution.process_ends import has_ended
from conventions.worker.pool_step import LOOK_EVERY, PoolStep
from tests.support import wait_until


def test_a_process_has_ended_before_anybody_has_asked_for_its_status() -> None:
    """And after that."""
    child = subprocess.Popen(["sleep", "60"])
    assert not has_ended(child.pid)
    child.kill()
    wait_until(lambda: has_ended(child.pid), 5, "it has ended")
    assert child.wait() == -signal.SIGKILL
    assert has_ended(child.pid)


def test_this_process_and_none_have_not_ended() -> None:
    """As in a pool of threads, or before a process has begun."""
    assert not has_ended(os.getpid())
    assert not has_ended(None)


def test_the_pool_is_asked_to_look_for_ended_processes() -> None:
    """Again and again, and sooner than by Celery."""
    hub: Any = Hub()  # type: ignore[no-untyped-call]  # kombu has few types
    looks = list[float]()
    pool: Any = SimpleNamespace(maintain_pool=lambda: looks.append(time.monotonic()))
    PoolStep(None).register_with_event_loop(SimpleNamespace(pool=pool), hub)
    loop = hub.create_loop()

    def has_looked() -> bool:
        next(loop)
        return len(looks) >= 2

    try:
        wait_until(has_looked, 10, "it has looked twice")
    finally:
        hub.close()
    assert LOOK_EVERY < 5
