"""Messages that come while no process is free: they are given to the pool in the turn of another one, or of none."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import raw_messages as raw
from tests.integration.rabbitmq_tasks import Holds, Note
from tests.integration.unready_tasks import Unready
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import wait_until
from tests.workers import Installation, wait_for_letter, wait_until_empty

pytestmark = [pytest.mark.processes]

TASKS = ["tests.integration.rabbitmq_tasks", "tests.integration.unready_tasks"]


@pytest.mark.parametrize("fast_lane", ["true", "false"])
def test_one_that_cannot_be_given_to_the_pool_ends_no_worker(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, fast_lane: str
) -> None:
    """It is a dead letter, its process is free for the next one, and what its headers say was looked at before."""
    database_url = new_database(tmp_path)
    # One of another program is among them.
    installation = Installation(tmp_path, TASKS, broker_url=valkey_url, database_url=database_url, message_keys=None)
    with (
        installation.application() as app,
        installation.worker(
            "-c", "1", "-Q", "immediate", "--prefetch-multiplier=16", CONVENTIONS_FAST_LANE=fast_lane
        ) as worker,
    ):
        Holds.delay(1)
        wait_until((tmp_path / "begun").exists, 30, "the pool is busy")
        headers = raw.headers(Note.name, timelimit=[1, 1, 1])
        raw.put(app, "immediate", json.dumps(raw.envelope(raw.body(kwargs={"number": 2}), headers)))
        unready = Unready.delay(3).id
        Note.delay(4)
        (tmp_path / "go").touch()
        refused = wait_for_letter(app, headers["id"])
        letter = wait_for_letter(app, unready)
        wait_until(lambda: len((tmp_path / "note").read_text().splitlines()) == 2, 20, "the next one runs")
        wait_until_empty(app)
        assert worker.process.poll() is None
    assert (refused.error, letter.error) == ("UndeliverableMessage", "UndeliverableMessage")
    assert "hard limit, soft limit" in refused.error_message
    assert "it cannot be given to the pool" in letter.error_message


def test_an_expired_message_keeps_no_place_while_the_store_does_not_answer(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """It comes again until its end is recorded, and others run."""
    port = free_port()
    with process(tmp_path / "server", [f"port {port}"]) as server:
        wait_for_server(tmp_path / "server", port)
        store = f"redis://127.0.0.1:{port}/0"
        installation = Installation(
            tmp_path,
            TASKS,
            broker_url=valkey_url,
            redis_url=store,
            database_url=new_database(tmp_path),
            message_keys=None,  # the expired one is of another program
        )
        with (
            installation.application() as app,
            installation.worker("-c", "1", "--prefetch-multiplier=1", "-Q", "immediate") as worker,
        ):
            server.send_signal(signal.SIGSTOP)
            headers = raw.headers(Note.name, expires="2001-01-01T00:00:00+00:00")
            envelope = raw.envelope(raw.body(kwargs={"number": 1}), headers)
            tag, redis = str(uuid4()), app.broker.store.redis
            values: dict[Any, Any] = {
                "payload": json.dumps(envelope),
                "queue": "immediate",
                "priority": 0,
                "score": 9e14,
            }
            redis.hset(app.broker.store.key("message", tag), mapping=values)
            redis.zadd(app.broker.store.key("queue", "immediate"), {tag: 9e14})
            app.broker.wake(["immediate"])
            worker.wait_for("not ended yet", timeout=40)
            server.send_signal(signal.SIGCONT)
            Note.delay(2)
            wait_until((tmp_path / "note").exists, 40, "the next one runs")
            wait_until_empty(app)
