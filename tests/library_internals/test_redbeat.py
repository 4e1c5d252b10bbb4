"""What RedBeat does not document and this package uses: another release fails here, with what to look at."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf

from conventions.app import ConventionsApp
from conventions.library_internals import redbeat as internals
from conventions.schedules.schedule_state import meta_of
from conventions.schedules.schedule_store import Schedules
from tests.library_internals.seam import Seam

SEAMS = [
    Seam("redbeat.schedulers:get_redis", "(app=)", "61202f8812", "schedules/scheduler.py, core/redis_address.py"),
    Seam("redbeat.schedulers:acquire_distributed_beat_lock", "(sender=, **kwargs)", "84486d5aba", "schedules/scheduler.py"),
    Seam("redbeat.schedulers:RedBeatSchedulerEntry.from_key", "(key, app=)", "0570a423d2", "schedules/redbeat_entry.py"),
    Seam("redbeat.schedulers:RedBeatSchedulerEntry.generate_key", "(app, name)", "284c770ca7", "storage/lua/schedule.lua"),
    Seam("redbeat.schedulers:RedBeatConfig.__init__", "(self, app=)", "5f7f6c6caa", "schedules/scheduler.py, transport/celery_defaults.py"),
]  # fmt: skip


@pytest.mark.parametrize("seam", SEAMS, ids=str)
def test_a_function_is_what_it_was(seam: Seam) -> None:
    """It is there, takes these arguments, and does what it did when somebody looked at it."""
    assert not seam.fault()


def test_the_names_of_its_keys(app: ConventionsApp) -> None:
    """`storage/lua/schedule.lua` writes to the same."""
    schedules = Schedules(app.store)
    internals.use_client(app, lambda: app.store.new_client(decode_responses=True), schedules.prefix)
    conf = ensure_conf(app)
    assert conf.key_prefix == schedules.prefix == app.store.key("redbeat", "")
    assert conf.schedule_key == f"{schedules.prefix}:schedule"
    assert conf.lock_key == f"{schedules.prefix}:lock"
    assert RedBeatSchedulerEntry.generate_key(app, "a") == f"{schedules.prefix}a"


def test_its_client_is_ours(app: ConventionsApp) -> None:
    """Unless the application has one; and its lock has a token."""
    client = app.store.new_client(decode_responses=True)
    internals.use_client(app, lambda: client, "r:")
    assert internals.client_of(app) is client
    internals.use_client(app, SimpleNamespace, "r:")
    assert internals.client_of(app) is client
    lock = client.lock(app.store.key("lock"), timeout=10, thread_local=False)
    assert lock.acquire(blocking=False)
    try:
        assert internals.token_of(lock) == client.get(app.store.key("lock"))
    finally:
        lock.release()


def test_its_readers_read_our_meta() -> None:
    """The latest slot, as RedBeat writes it."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert RedBeatSchedulerEntry.decode_meta(meta_of(moment))["last_run_at"] == moment
    assert json.loads(meta_of(moment)).keys() >= {"last_run_at"}
