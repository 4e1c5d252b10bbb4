"""Progress: percent, rate and rest of a job, kept in Redis, written seldom (R11)."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions import Progress
from conventions.progress.reporter import ProgressReporter
from conventions.storage.redis_store import Store, set_current

DAY = timedelta(days=1)


class Clock:
    """A clock that stands still until it is moved."""

    now = 1_767_571_200.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of progress."""
    clock = Clock()
    monkeypatch.setattr("conventions.progress.reporter.time", clock)
    return clock


@pytest.fixture
def beats() -> list[str]:
    """A note for each time that the lease was told of progress."""
    return []


@pytest.fixture
def reporter(store: Store, beats: list[str]) -> ProgressReporter:
    """What a job with the id `job` writes through."""
    return ProgressReporter(store, "job", keep=DAY, on_report=lambda: beats.append("beat"))


def writes(store: Store) -> int:
    """How often the server wrote progress."""
    stats: Any = store.redis.info("commandstats")
    return int(stats.get("cmdstat_pexpire", {"calls": 0})["calls"])


@given(total=st.integers(1, 10**9), data=st.data())
def test_percent_is_the_floor_of_100_times_done_by_total(total: int, data: st.DataObject) -> None:
    """Never rounded up: 100 only when all is done; failed items are not done (R11)."""
    done = data.draw(st.integers(0, total))
    percent = Progress("job", done=done, total=total).percent
    assert percent is not None
    assert percent * total <= 100 * done < (percent + 1) * total
    assert (percent == 100) == (done == total)
    assert Progress("job", done=done, failed=total - done, total=total).percent == percent


def test_percent_without_a_total_is_unknown_and_of_nothing_is_all() -> None:
    """A job over no items is complete."""
    assert Progress("job", done=7).percent is None
    assert Progress("job", total=0).percent == 100


def test_what_is_reported_can_be_read_by_id(store: Store, reporter: ProgressReporter) -> None:
    """Done, failed, total and note, also from another process, until the end."""
    reporter.total = 10
    reporter.advance(3, failed=1, note="third page")
    reporter.advance()
    reporter.close()
    found = Progress.of("job", store)
    assert (found.done, found.failed, found.total, found.note) == (4, 1, 10, "third page")
    assert found.percent == 40
    assert not found.finished
    set_current(lambda: store)
    assert Progress.of("job") == found


def test_an_unknown_job_has_no_progress(store: Store) -> None:
    """Zero everywhere, and no error: it may not have reported yet."""
    found = Progress.of("nobody", store)
    assert (found.done, found.total, found.percent, found.rate, found.eta, found.stalled) == (
        0,
        None,
        None,
        0,
        None,
        False,
    )


@pytest.mark.own_server
def test_a_job_that_reports_each_item_writes_twice_a_second(
    store: Store, reporter: ProgressReporter, clock: Clock
) -> None:
    """1024 items within a second cost few writes, one of them half-way, and none is lost."""
    before = writes(store)
    seen = set()
    for _ in range(1024):
        reporter.advance()
        clock.now += 1 / 1024
        seen.add(Progress.of("job", store).done)
    assert len(seen) == 2
    reporter.close()
    assert writes(store) - before <= 3
    assert Progress.of("job", store).done == 1024


def test_every_report_is_a_beat(reporter: ProgressReporter, beats: list[str]) -> None:
    """Also one that is not written: the lease follows progress (R12)."""
    for _ in range(7):
        reporter.advance()
    assert len(beats) == 7


def test_closing_writes_what_is_left_and_nothing_else(store: Store, reporter: ProgressReporter) -> None:
    """A job that never reported leaves no key."""
    reporter.close()
    assert store.redis.exists(store.key("progress", "job")) == 0
    reporter.advance()
    reporter.advance()
    assert Progress.of("job", store).done == 1
    reporter.close()
    reporter.close()
    assert Progress.of("job", store).done == 2


def test_the_total_is_seen_at_once(store: Store, reporter: ProgressReporter) -> None:
    """Setting it writes."""
    reporter.total = 7
    assert Progress.of("job", store).total == 7
    assert reporter.total == 7


def test_progress_is_forgotten_some_day(store: Store, reporter: ProgressReporter) -> None:
    """The key lives as long as results are kept, counted from the last report."""
    reporter.total = 5
    key = store.key("progress", "job")
    assert 86_000_000 < int(store.redis.pttl(key)) <= 86_400_000


def test_rate_and_rest_follow_from_time_and_count(store: Store, reporter: ProgressReporter, clock: Clock) -> None:
    """20 of 100 items in 10 s: two a second, 40 s to go."""
    reporter.total = 100
    clock.now += 10
    reporter.advance(15, failed=5)
    found = Progress.of("job", store)
    assert found.rate == 2
    assert found.eta == 40
    clock.now += 40
    reporter.advance(80)
    assert Progress.of("job", store).eta == 0
    assert Progress.of("job", store).finished


def test_a_job_without_reports_for_long_is_stalled(store: Store, reporter: ProgressReporter, clock: Clock) -> None:
    """After ten minutes by default, until it reports again; a finished one never is."""
    reporter.total = 2
    clock.now += 599
    assert not Progress.of("job", store).stalled
    clock.now += 2
    assert Progress.of("job", store).stalled
    reporter.advance()
    assert not Progress.of("job", store).stalled
    reporter.advance()
    reporter.close()
    clock.now += 10_000
    assert not Progress.of("job", store).stalled


def test_a_job_that_runs_again_counts_from_zero(store: Store) -> None:
    """A retry begins at the first item again, so it must not end at 160 % (R11)."""
    for done in (6, 10):
        attempt = ProgressReporter(store, "job", keep=DAY, on_report=lambda: None)
        attempt.total = 10
        attempt.advance(done)
        attempt.close()
    found = Progress.of("job", store)
    assert found.done == 10
    assert found.percent == 100


def test_a_long_note_is_cut(store: Store) -> None:
    """Whoever looks at the job reads it each time."""
    attempt = ProgressReporter(store, "job", keep=DAY, on_report=lambda: None)
    attempt.advance(note="y" * 20_000)
    attempt.flush()
    assert Progress.of("job", store).note == "y" * 10_000
