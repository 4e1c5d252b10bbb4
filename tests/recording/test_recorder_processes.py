"""The recorder as a process: killed, stopped, alone, one of several, without SQL and without Redis (protocol 15)."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from conventions.core.lease_timings import USUAL
from conventions.recording import recorder_process
from conventions.recording.new_entries import GROUP
from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import DeadLetterRow, ExecutionRow
from tests.databases import FORKS, database  # noqa: F401  # database is a fixture
from tests.recorded import append, contents, drain, entry, event, left, recorder
from tests.recorder_processes import child, kill, python, recorded
from tests.support import patient, wait_until

pytestmark = [FORKS, pytest.mark.processes]


def test_a_child_records_until_it_is_asked_to_stop(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before SIGTERM is recorded, the lead is given up, and it is gone at once."""
    monkeypatch.setattr(recorder_process, "LAST_DRAIN", 30.0)  # on a busy machine three seconds may be too few
    with child(store, database) as process:
        append(store, entry(event("m1")))
        wait_until(lambda: recorded(database) == 1)
        assert store.redis.get(store.key("recorder")) is not None
        append(store, *(entry(event(f"n{n}", "dead")) for n in range(1200)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(patient(10)) == 0
    assert recorded(database) == 1201
    assert left(store) == (0, 0)
    assert store.redis.get(store.key("recorder")) is None


def test_ctrl_c_and_the_like_leave_it_to_the_parent(store: Store, database: Database) -> None:
    """They reach every process of the terminal, and the last jobs are still running."""
    with child(store, database) as process:
        wait_until(lambda: store.redis.get(store.key("recorder")))
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1):
            process.send_signal(number)
        append(store, entry(event()))
        wait_until(lambda: recorded(database) == 1)


ORPHAN = """
import os, sys, time
from types import SimpleNamespace
from conventions.core.lease_timings import USUAL
from conventions.storage.database import Database
from conventions.recording.recorder_process import record_for_ever
from conventions.storage.redis_store import Store

store, database = Store(sys.argv[1], sys.argv[2]), Database(sys.argv[3])
store.redis.set(store.key("test", "parent"), os.getpid(), ex=60)
parent = os.getpid()
pid = os.fork()
if pid == 0:
    settings = SimpleNamespace(split_after=60)
    app = SimpleNamespace(store=store, database=database, timings=USUAL, settings=settings, audit_keys=None)
    record_for_ever(app, parent)
print(pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("sql", ["up", "hanging"])
def test_a_child_ends_soon_after_its_parent_was_killed(
    store: Store, database: Database, tmp_path: Path, sql: str
) -> None:
    """Within two seconds, also while it waits for SQL; the next worker brings a recorder of its own."""
    url = database.url.render_as_string(hide_password=False)
    process = python(ORPHAN, store.url, store.prefix, url)
    assert process.stdout is not None
    orphan = psutil.Process(int(process.stdout.readline()))
    try:
        wait_until(lambda: store.redis.get(store.key("recorder")))
        if sql == "hanging":
            with database.session() as session:
                lock_everything(session)
                append(store, entry(event()))
                wait_until(lambda: left(store) == (1, 1))
                killed = kill(process)
                assert gone_after(orphan, killed) < 2 + patient(1)
        else:
            killed = kill(process)
            assert gone_after(orphan, killed) < 2 + patient(1)
            assert store.redis.get(store.key("recorder")) is None, "the next one may lead at once"
    finally:
        if orphan.is_running():
            orphan.kill()
        kill(process)


def lock_everything(session: Any) -> None:
    """Let nobody else write before this transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE conventions_executions IN ACCESS EXCLUSIVE MODE"))
    else:
        session.execute(text("UPDATE conventions_dead_letters SET fence = 0"))  # BEGIN IMMEDIATE has locked it


def gone_after(process: psutil.Process, since: float) -> float:
    """Seconds until a process that is nobody's child here is gone."""
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    return time.monotonic() - since


STOPS_BEFORE_IT_ACKNOWLEDGES = """
import sys, time
from conventions.storage.database import Database
from conventions.recording.recorder import Recorder
from conventions.storage.redis_store import Store


class Stopping(Recorder):
    def _acknowledge(self, ids):
        print("committed", flush=True)
        time.sleep(60)


store, database = Store(sys.argv[1], sys.argv[2]), Database(sys.argv[3])
Stopping(store, lambda: database).drain_once()
"""


def test_a_kill_between_commit_and_acknowledgment_changes_nothing(store: Store, database: Database) -> None:
    """Everything is read again by the next one, and is in SQL once."""
    append(store, entry(event("m0", "dead")), *(entry(event(f"m{n}")) for n in range(1, 20)))
    process = python(STOPS_BEFORE_IT_ACKNOWLEDGES, store.url, store.prefix, str(database.url.render_as_string(False)))
    assert process.stdout is not None
    assert process.stdout.readline() == "committed\n"
    kill(process)
    before = contents(database, ExecutionRow), contents(database, DeadLetterRow)
    assert (len(before[0]), len(before[1])) == (20, 1)
    assert left(store) == (20, 20)
    with database.session() as session:
        session.execute(text("UPDATE conventions_dead_letters SET state = 'redriven'"))
    next_one = recorder(store, database, timings=replace(USUAL, abandoned_after=0.05))
    assert wait_until(lambda: drain(next_one)) == [20]
    assert contents(database, ExecutionRow) == before[0]
    assert contents(database, DeadLetterRow) == [before[1][0] | {"state": "redriven"}]
    assert left(store) == (0, 0)


def test_of_two_recorders_one_leads_and_the_other_takes_over(store: Store, database: Database) -> None:
    """When the leader is asked to stop; both at once record nothing twice."""
    with child(store, database) as one, child(store, database) as two:
        leader: Any = wait_until(lambda: store.redis.get(store.key("recorder")))
        pid = int(leader.rpartition(b":")[2])
        first, second = (one, two) if pid == one.pid else (two, one)
        append(store, *(entry(event(f"m{n}")) for n in range(1500)))
        wait_until(lambda: recorded(database) == 1500)
        names = {one["name"] for one in list_consumers(store)}
        assert names == {leader}, "the other one reads nothing"
        first.send_signal(signal.SIGTERM)
        assert first.wait(patient(10)) == 0
        append(store, *(entry(event(f"n{n}")) for n in range(10)))
        wait_until(lambda: recorded(database) == 1510)
        leader = store.redis.get(store.key("recorder"))
        assert leader.endswith(f":{second.pid}".encode())
        wait_until(lambda: left(store) == (0, 0))


def list_consumers(store: Store) -> list[Any]:
    """Who has read from the journal."""
    redis: Any = store.redis
    found: list[Any] = redis.xinfo_consumers(store.key("journal"), GROUP)
    return found


def test_two_that_lead_at_once_record_everything_once(store: Store, database: Database) -> None:
    """As when a leader was frozen for longer than its lead lasts."""
    append(store, *(entry(event(f"m{n % 700}", "dead")) for n in range(1400)))
    parts = [python(DRAINS, store.url, store.prefix, database.url.render_as_string(False)) for _ in range(3)]
    sizes = [int(part.communicate(timeout=patient(30))[0]) for part in parts]
    assert sum(sizes) == 1400
    assert len(contents(database, ExecutionRow)) == len(contents(database, DeadLetterRow)) == 700
    assert left(store) == (0, 0)


DRAINS = """
import sys
from conventions.storage.database import Database
from conventions.recording.recorder import Recorder
from conventions.storage.redis_store import Store

store, database = Store(sys.argv[1], sys.argv[2]), Database(sys.argv[3])
recorder, total = Recorder(store, lambda: database), 0
while done := recorder.drain_once(50):
    total += done
print(total)
"""

STANDS_BY = """
import sys, time
from conventions.recording.recorder import Recorder
from conventions.storage.redis_store import Store


def database():
    raise AssertionError("a recorder that stands by needs no database")


store = Store(sys.argv[1], sys.argv[2])
end = time.monotonic() + 1
recorder = Recorder(store, database)
recorder.run(lambda: time.monotonic() > end)
recorder.finish()
print(sorted(name for name in ("sqlalchemy", "alembic", "psycopg") if name in sys.modules))
"""


def test_one_that_stands_by_imports_no_sql(store: Store) -> None:
    """Each worker has one, and the import takes half a second of a processor."""
    store.redis.set(store.key("recorder"), "another:1", px=60_000)
    append(store, entry(event()))
    process = python(STANDS_BY, store.url, store.prefix)
    assert process.communicate(timeout=patient(30))[0] == "[]\n"


LOADED = """
import gc, sys
from types import SimpleNamespace
from conventions.storage.database import Database
from conventions.recording.recorder_process import _loaded

before, app = gc.get_freeze_count(), SimpleNamespace(database=Database(sys.argv[1]))
print(_loaded(app) is app.database, before, gc.get_freeze_count() > 10_000)
"""


def test_the_collector_does_not_look_at_what_a_recorder_has_loaded(database: Database) -> None:
    """SQLAlchemy is more than everything else in it, and stays."""
    assert python(LOADED, str(database.url)).communicate(timeout=patient(30))[0] == "True 0 True\n"


def test_the_tables_load_no_dialect_of_a_database() -> None:
    """That of PostgreSQL takes a tenth of all that a recorder loads, also where its database is another."""
    program = "import sys, conventions.storage.tables; print([name for name in sys.modules if name.startswith('sqlalchemy.dialects.')])"
    assert python(program).communicate(timeout=patient(30))[0] == "[]\n"


def test_a_worker_imports_no_sql_before_it_forks() -> None:
    """Its recorder does so when it leads: the start of each worker would take a quarter longer."""
    program = "import sys, conventions.worker.consumer, conventions.stack.folder; print('sqlalchemy' in sys.modules)"
    assert python(program).communicate(timeout=patient(30))[0] == "False\n"
