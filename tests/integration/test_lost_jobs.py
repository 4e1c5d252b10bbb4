"""Keys that disappear under a running worker: what was tried before is recorded as lost, and all goes on (R22)."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from conventions import EVERY_ARGUMENT, BatchTask, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.broker.batch_membership import chunk_id
from conventions.broker.redis_broker import Sizes
from conventions.recording import lost_message_search
from conventions.records import executions
from tests.crash.server import Server
from tests.support import wait_until
from tests.workers import Installation

if os.environ.get("LOOKS_OFTEN"):  # the worker of this module, whose recorder does not wait for minutes
    lost_message_search.ROUND = 0.3
    lost_message_search.REST = 0.0
    lost_message_search.SETTLED_AFTER = timedelta(0)


class Once(ImmediateTask):
    """Succeed, or wait for another attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=3, first_wait=600, max_wait=600)

    def run(self, number: int, fails: bool = False) -> None:
        if fails:
            raise ValueError(number)


class Import(BatchTask):
    """Cut one chunk, which waits for another attempt."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=3, first_wait=600, max_wait=600)

    def items(self) -> list[int]:
        return [1]

    def process(self, chunk: list[int]) -> None:
        raise ValueError(chunk)


def kinds(app: ConventionsApp, id_: str) -> list[str]:
    """What is recorded of a message."""
    with app.database.session() as session:
        return [row.kind for row in executions.of_message(session, id_)]


def test_a_server_that_was_emptied(tmp_path: Path, new_database: Any) -> None:
    """The worker, its recorder and its sweep go on; what was tried before, and a batch, is lost, with a row, and can be sent again."""
    (tmp_path / "server").mkdir()
    with Server(tmp_path / "server") as server:
        settings = {"broker_url": server.url, "database_url": new_database(tmp_path)}
        installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
        with installation.worker("-c", "1", LOOKS_OFTEN="1") as worker, installation.application() as app:
            tried = Once.delay(1, fails=True).id
            wait_until(lambda: kinds(app, tried) == ["retried"], 20, "the first attempt is recorded")
            waits = Once.apply_async((2,), countdown=600).id
            app.store.redis.delete(app.store.key("delayed", "immediate"))
            wait_until(lambda: app.broker.sizes("immediate") == Sizes(0, 2, 0), 20, "both wait again")
            assert kinds(app, tried) == ["retried"]
            cut = Import.delay().id
            wait_until(lambda: kinds(app, chunk_id(cut, 0)) == ["retried"], 20, "its chunk was tried")
            wait_until(lambda: kinds(app, cut) == ["succeeded"], 20, "it is cut")
            app.store.redis.flushall()
            wait_until(lambda: kinds(app, tried)[1:] == ["lost"], 20, "the next attempt is lost")
            wait_until(lambda: kinds(app, cut) == ["succeeded", "lost"], 20, "the batch is lost")
            wait_until(lambda: kinds(app, chunk_id(cut, 0)) == ["retried", "lost"], 20, "and its chunk")
            assert "jobs are lost" in worker.output
            assert "it was emptied" in worker.output
            assert kinds(app, waits) == []
            again = Once.apply_async((3,), task_id=tried).id
            assert again == tried
            wait_until(lambda: "succeeded" in kinds(app, tried), 20, "it runs under its id")
