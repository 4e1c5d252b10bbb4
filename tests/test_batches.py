"""Batches in Redis: chunks join once each, outcomes only get better, nothing is kept for ever (R19)."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conventions import Progress
from conventions.batches import Batches, BatchSummary, Joined, chunk_id, finish_id
from conventions.store import Store

ID = "b1"


@pytest.fixture
def batches(store: Store) -> Batches:
    """Batches that are remembered for a day."""
    return Batches(store, timedelta(days=1))


def summary(batches: Batches, batch_id: str = ID) -> BatchSummary:
    """The summary of a batch that exists."""
    found = batches.summary(batch_id)
    assert found is not None
    return found


def test_a_batch_counts_items_and_chunks(batches: Batches) -> None:
    """From the cut to the end: states, counts, percent, what `process` returned in the order of the chunks."""
    batches.create(ID, "Import", None)
    assert summary(batches) == BatchSummary(ID, "Import", "splitting", None, 0, 0, None)
    assert batches.join(ID, 10, "done", 100, {"ten": 10}) == Joined(changed=True, repaired=False, complete=False)
    assert batches.seal(ID, chunks=3, total=250) is False
    assert batches.join(ID, 2, "done", 100, "two") == Joined(changed=True, repaired=False, complete=False)
    assert summary(batches).percent == 80
    assert batches.join(ID, 0, "dead", 50) == Joined(changed=True, repaired=False, complete=True)
    assert summary(batches) == BatchSummary(
        ID, "Import", "running", 250, 200, 50, 3, failed_chunks=[0], returns=["two", {"ten": 10}]
    )


def test_a_chunk_that_is_delivered_twice_counts_once(batches: Batches) -> None:
    """The second outcome changes nothing, but tells again that all is complete, in case the first was cut off there."""
    batches.create(ID, "Import", 5)
    batches.seal(ID, chunks=1, total=5)
    assert batches.join(ID, 0, "done", 5).changed
    assert batches.join(ID, 0, "done", 5) == Joined(changed=False, repaired=False, complete=True)
    assert summary(batches).done == 5


def test_a_redriven_chunk_repairs_the_batch(batches: Batches) -> None:
    """Its items move from failed to done."""
    batches.create(ID, "Import", 5)
    batches.seal(ID, chunks=1, total=5)
    batches.join(ID, 0, "dead", 5)
    assert batches.join(ID, 0, "dead", 5).changed is False
    assert batches.join(ID, 0, "done", 5, "r") == Joined(changed=True, repaired=True, complete=True)
    found = summary(batches)
    assert (found.done, found.failed, found.failed_chunks, found.returns) == (5, 0, [], ["r"])


def test_a_done_chunk_does_not_die(batches: Batches) -> None:
    """A late failure of a stale copy takes nothing back."""
    batches.create(ID, "Import", 5)
    batches.join(ID, 0, "done", 5)
    assert batches.join(ID, 0, "dead", 5).changed is False
    assert (summary(batches).done, summary(batches).failed) == (5, 0)


@pytest.mark.parametrize("joined_first", [True, False])
def test_the_end_is_noticed_whoever_comes_last(batches: Batches, joined_first: bool) -> None:
    """The last chunk, or the cutter that seals after it; also a batch without items."""
    batches.create(ID, "Import", None)
    if joined_first:
        batches.join(ID, 0, "done", 1)
        assert batches.seal(ID, chunks=1, total=1)
    else:
        assert not batches.seal(ID, chunks=1, total=1)
        assert batches.join(ID, 0, "done", 1).complete
    batches.create("empty", "Import", 0)
    assert batches.seal("empty", chunks=0, total=0)
    assert summary(batches, "empty").percent == 100


outcomes = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["done", "dead"])), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    joins=outcomes,
    sizes=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    seal_at=st.integers(0, 25),
    number=st.integers(0),
)
def test_any_order_of_outcomes_counts_right(
    batches: Batches, joins: list[tuple[int, Any]], sizes: list[int], seal_at: int, number: int
) -> None:
    """Chunks joined in any order, repeatedly, around the sealing: counts are those of each chunk's best outcome."""
    batch_id = f"{number}-{len(batches.listing(10_000))}"
    batches.create(batch_id, "Import", None)
    best: dict[int, str] = {}
    sealed = False
    for position, (index, outcome) in enumerate(joins):
        if position == seal_at:
            assert batches.seal(batch_id, chunks=6, total=sum(sizes)) == (len(best) == 6)
            sealed = True
        better = index not in best or (best[index], outcome) == ("dead", "done")
        repaired = better and index in best
        best |= {index: outcome} if better else {}
        assert batches.join(batch_id, index, outcome, sizes[index], index) == Joined(
            better, repaired, sealed and len(best) == 6
        )
    found = summary(batches, batch_id)
    assert found.done == sum(sizes[index] for index, outcome in best.items() if outcome == "done")
    assert found.failed == sum(sizes[index] for index, outcome in best.items() if outcome == "dead")
    assert found.failed_chunks == sorted(index for index, outcome in best.items() if outcome == "dead")
    assert found.returns == sorted(best)


def test_beginning_again_after_a_crash_keeps_what_is_there(batches: Batches) -> None:
    """The cutter was killed and cuts again: outcomes and the place in the list stay."""
    batches.create(ID, "Import", 5)
    batches.join(ID, 0, "done", 2)
    batches.create(ID, "Import", 5)
    assert summary(batches).done == 2
    assert [one.id for one in batches.listing(10)] == [ID]


@pytest.mark.parametrize("state", ["cancelled", "done", "running"])
def test_beginning_again_undoes_no_end(batches: Batches, state: str) -> None:
    """A cutter that is delivered again neither revives a cancelled batch nor reopens one that has ended."""
    batches.create(ID, "Import", 5)
    batches.set_state(ID, state)
    batches.create(ID, "Import", 5)
    assert batches.state(ID) == state


def test_beginning_again_revives_a_dead_batch(batches: Batches) -> None:
    """As a redrive of the cutter does."""
    batches.create(ID, "Import", 5)
    batches.set_state(ID, "dead")
    batches.create(ID, "Import", 5)
    assert batches.state(ID) == "splitting"


def test_sealing_revives_no_cancelled_batch(batches: Batches) -> None:
    """Cancelled between the cutter's last look and its seal, a batch stays cancelled."""
    batches.create(ID, "Import", 5)
    batches.set_state(ID, "cancelled")
    batches.seal(ID, chunks=1, total=5)
    assert batches.state(ID) == "cancelled"


def test_a_batch_that_died_before_it_began_can_be_read(batches: Batches, store: Store) -> None:
    """Its cutter failed in `count`: it is dead, or unknown, and no key is left for ever."""
    batches.set_state(ID, "dead")
    found = batches.summary(ID)
    assert found is None or found.state == "dead"
    assert immortal(store) == []


def test_an_unknown_batch_is_none(batches: Batches) -> None:
    """Never begun, or forgotten."""
    assert batches.summary("nobody") is None
    assert batches.state("nobody") is None


def test_an_outcome_after_the_batch_was_forgotten_leaves_nothing_for_ever(batches: Batches, store: Store) -> None:
    """A chunk redriven after weeks joins without harm."""
    batches.join("forgotten", 0, "done", 5, "r")
    assert batches.summary("forgotten") is None
    assert immortal(store) == []


def test_the_newest_batches_are_listed_first(batches: Batches, store: Store) -> None:
    """Up to the limit; those that were forgotten are dropped from the index."""
    for number in range(5):
        batches.create(f"b{number}", "Import", None)
    assert [one.id for one in batches.listing(3)] == ["b4", "b3", "b2"]
    store.redis.delete(store.key("batch", "b3"))
    assert [one.id for one in batches.listing(10)] == ["b4", "b2", "b1", "b0"]
    assert store.redis.zcard(store.key("batches")) == 4


def immortal(store: Store) -> list[bytes]:
    """Keys that would be kept for ever, but for the index of batches."""
    keys: Any = store.redis.keys(store.key("*"))
    return [key for key in keys if store.redis.ttl(key) == -1 and key != store.key("batches").encode()]


def test_every_key_of_a_batch_is_forgotten_some_day(batches: Batches, store: Store) -> None:
    """Through a whole life, whatever the order."""
    batches.create(ID, "Import", 2)
    assert immortal(store) == []
    batches.join(ID, 0, "dead", 1, "r")
    batches.seal(ID, chunks=2, total=2)
    batches.join(ID, 0, "done", 1, "r")
    batches.join(ID, 1, "done", 1, "r")
    batches.set_state(ID, "done")
    assert immortal(store) == []
    assert len(store.redis.keys(store.key("*"))) == 5


def test_the_index_forgets_with_the_batches(store: Store) -> None:
    """Nobody lists, and the index still does not grow for ever."""
    batches = Batches(store, timedelta(milliseconds=20))
    for number in range(20):
        batches.create(f"b{number}", "Import", None)
    store.redis.zadd(store.key("batches"), {f"b{number}": 1 for number in range(20)}, xx=True)
    batches.create("new", "Import", None)
    assert store.redis.zrange(store.key("batches"), 0, -1) == [b"new"]


def test_progress_of_a_batch_is_read_like_a_job_s(batches: Batches, store: Store) -> None:
    """`Progress.of(id)` takes the id that `delay` returned."""
    batches.create(ID, "Import", 10)
    batches.join(ID, 0, "done", 4)
    found = Progress.of(ID, store)
    assert (found.done, found.total, found.percent) == (4, 10, 40)


def test_ids_are_the_same_each_time_a_batch_is_cut() -> None:
    """So that cutting again sends no chunk twice; no two messages share one."""
    ids = {chunk_id(batch, index) for batch in ("a", "b") for index in range(50)} | {finish_id("a"), finish_id("b")}
    assert len(ids) == 102
    assert chunk_id("a", 7) == chunk_id("a", 7)
    assert all(UUID(one) for one in ids)
