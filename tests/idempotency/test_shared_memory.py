"""`Pages`: what a process of a pool does, as the main process sees it, and which claims it renews for that (protocol 11)."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import pytest

from conventions.core.lease_timings import SETTLE_FOR
from conventions.execution.process_ends import UNKNOWN, Ends, has_ended, memory_kills
from conventions.idempotency import shared_memory
from conventions.idempotency.claims import ClaimRequest, Claims
from conventions.idempotency.lease_keepers import PageKeeper
from conventions.idempotency.shared_memory import CLAIM, PROGRESS_AT, SIZE, TOKEN, Look, Page, Pages
from conventions.storage.redis_store import Store
from tests.claiming import FIRST, OTHER, take
from tests.support import patient, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it has threads, as a worker has


@pytest.fixture
def pages() -> Pages:
    """Two pages."""
    pages = Pages()
    pages.make(2)
    return pages


@contextmanager
def process(pages: Pages, number: int, do: Callable[[Page], object]) -> Iterator[int]:
    """A process of the pool that does something to its page, and then nothing; yields its number."""

    def run() -> None:
        pages.take(number)
        assert pages.mine is not None
        do(pages.mine)
        signal.pause()

    child = get_context("fork").Process(target=run)
    child.start()
    assert child.pid is not None
    try:
        yield child.pid
    finally:
        child.kill()
        child.join()


def seen(pages: Pages, child: int) -> Look:
    """What the main process sees of a process that has written its page."""
    return wait_until(lambda: pages.of(child), 10, "it has written its page")


def begin_and_settle(page: Page) -> None:
    """A short job."""
    page.begin("Task:b", "t2", 5.0)
    page.settle()


def test_the_main_process_sees_what_a_process_runs(pages: Pages) -> None:
    """Each has a page of its own."""
    with (
        process(pages, 0, lambda page: page.begin("Task:é", "t1", 0.0)) as first,
        process(pages, 1, begin_and_settle) as second,
    ):
        one = seen(pages, first)
        wait_until(lambda: seen(pages, second).settles_since, 10, "it settles")
        two = seen(pages, second)
        assert (one.process, one.claim, one.token, one.stall_after) == (first, "Task:é", "t1", 0.0)
        assert (two.claim, two.token, two.stall_after) == ("Task:b", "t2", 5.0)
        assert not one.settles()
        assert two.settles(since=two.progress_at - 1)
        assert not two.settles(since=time.monotonic())
        assert {look.process for look in pages.look()} == {first, second}
    assert pages.of(os.getpid()) is None


@pytest.mark.parametrize("number", [-1, 2])
def test_a_process_beyond_the_pages_has_none(pages: Pages, number: int) -> None:
    """It renews its claims itself, as one that was not forked by the main process."""
    forked = Pages()
    assert not forked
    forked.take(0)
    assert forked.mine is None

    def run() -> None:
        pages.take(number)
        os._exit(3 if pages.mine is None else 0)

    child = get_context("fork").Process(target=run)
    child.start()
    child.join(patient(10))
    assert child.exitcode == 3


@pytest.mark.parametrize(("claim", "token"), [("x" * (CLAIM + 1), "t"), ("x", "t" * (TOKEN + 1))])
def test_a_job_whose_names_are_too_long_renews_itself(pages: Pages, claim: str, token: str) -> None:
    """Its page says so."""
    with process(pages, 0, lambda page: page.begin(claim, token, 0.0)) as child:
        look = seen(pages, child)
        assert (look.claim, look.token) == ("", "")
        assert not look.is_renewed()
    page = Page(pages._memory, 0)  # type: ignore[arg-type]  # it is made
    page.begin(claim, token, 0.0)
    assert not page.names_job
    page.begin("x" * CLAIM, "t" * TOKEN, 0.0)
    assert page.names_job


def test_what_is_half_written_is_not_read(pages: Pages) -> None:
    """At whatever byte the writer stands: the reader sees the one job or the other, or says that it does not know."""
    memory = pages._memory
    assert memory is not None
    page = Page(memory, 0)
    page.begin("Task:" + "é" * 20, "first", 1.0)
    before, old = memory[:SIZE], pages.look()
    page.begin("Task:" + "ü" * 31, "second", 0.0)
    after, new = memory[:SIZE], pages.look()
    for written in range(SIZE + 1):
        memory[:SIZE] = after[:written] + before[written:]
        assert pages.look() in (old, new, [])


def look_of(stall_after: float = 0.0, silent_for: float = 0.0) -> Look:
    """A job whose own code runs."""
    return Look(1, "Task:key", "t1", 0.0, time.monotonic() - silent_for, stall_after)


def test_how_long_a_claim_is_renewed() -> None:
    """While the job's code runs, as long as it makes progress where it must; then for as long as it may settle."""
    now = time.monotonic()
    assert look_of(silent_for=9e5).is_renewed()
    assert look_of(10.0).is_renewed()
    silent = look_of(10.0, 11)
    assert silent.hangs()
    assert not silent.is_renewed()
    settles = silent._replace(settles_since=now - SETTLE_FOR + 60)
    assert not settles.hangs()
    assert settles.is_renewed()
    assert not settles._replace(settles_since=now - SETTLE_FOR - 1).is_renewed()


def until(store: Store, request: ClaimRequest) -> int:
    """When a claim lapses."""
    store.run("claim_of", [request.claim])
    return int(store.redis.hget(store.key("claim", request.claim), "until"))  # type: ignore[arg-type]  # redis-py's two clients


def test_the_main_process_renews_the_claims_of_living_processes(pages: Pages, store: Store) -> None:
    """Nothing that another delivery holds, and nothing of a process that has ended."""
    claims = Claims(store, lease=30)
    keeper = PageKeeper(Claims(store, lease=60), pages, has_ended, every=10)
    keeper.renew()
    take(claims, FIRST)
    before = until(store, FIRST)
    with process(pages, 0, lambda page: page.begin(FIRST.claim, OTHER.token, 0.0)) as child:
        seen(pages, child)
        keeper.renew()
        assert until(store, FIRST) == before
    with process(pages, 0, lambda page: page.begin(FIRST.claim, FIRST.token, 0.0)) as child:
        seen(pages, child)
        keeper.renew()
        renewed = until(store, FIRST)
        assert renewed > before + 20_000
    later = PageKeeper(Claims(store, lease=90), pages, has_ended, every=10)
    later.renew()
    assert until(store, FIRST) == renewed


def test_progress_is_written_in_place(pages: Pages) -> None:
    """At the offset that the record has for it."""
    memory = pages._memory
    assert memory is not None
    page = Page(memory, 0)
    page.begin("c", "t", 3.0)
    (before,) = pages.look()
    wait_until(lambda: time.monotonic() > before.progress_at)
    page.note_progress()
    (after,) = pages.look()
    assert after.progress_at > before.progress_at
    assert after == before._replace(progress_at=after.progress_at)
    assert shared_memory.MOMENT.unpack_from(memory, PROGRESS_AT) == (after.progress_at,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.", "killed by signal 9 (SIGKILL)"),
        ("Worker exited prematurely: signal 11 (SIGSEGV) Job: 3.", "killed by signal 11 (SIGSEGV)"),
        ("Worker exited prematurely: exitcode 7 Job: 12.", "ended with status 7"),
        ("its process ended before its time limit", UNKNOWN),
    ],
)
def test_what_is_said_of_the_end_of_a_process(text: str, says: str) -> None:
    """No more than is known."""
    assert says in Ends().of(RuntimeError(text))


def test_want_of_memory_is_said_where_the_system_counts_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    """Only when its counter has risen since, and only of processes that it kills."""
    from conventions.execution import process_ends

    counter = tmp_path / "memory.events"  # type: ignore[operator]  # a Path
    counter.write_text("low 0\noom 3\noom_kill 3\n")
    monkeypatch.setattr(process_ends, "COUNTERS", (tmp_path / "none", counter))  # type: ignore[operator]  # the same
    assert memory_kills() == 3
    ends = Ends()
    killed = RuntimeError("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.")
    assert "memory" not in ends.of(killed)
    counter.write_text("oom_kill 4\n")
    assert "no memory was left" in ends.of(killed)
    assert "memory" not in ends.of(killed)
