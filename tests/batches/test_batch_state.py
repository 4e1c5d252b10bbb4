"""Batches in Redis: chunks join once each, outcomes only get better, what follows is sent, nothing is kept for ever (R19)."""

import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conventions import BusinessError, Progress
from conventions.batches.batch_state import Batches, NextMessage
from conventions.batches.batch_summary import BatchSummary
from conventions.batches.resume_point import Cursor, Cut
from conventions.broker.batch_membership import Member, chunk_id, finish_id, recovered_id
from conventions.storage.redis_store import Store
from tests.batching import ORIGIN, Ending

ID = "b1"
FINISH = NextMessage("finish", 0)


@pytest.fixture
def batches(store: Store) -> Batches:
    """Batches that are remembered for a day."""
    return Batches(store, timedelta(days=1))


@pytest.fixture
def ending(store: Store, batches: Batches) -> Ending:
    """Ends messages of the batch."""
    return Ending(store, batches, ID)


def summary(batches: Batches, batch_id: str = ID) -> BatchSummary:
    """The summary of a batch that exists."""
    found = batches.summary(batch_id)
    assert found is not None
    return found


def test_a_batch_counts_items_and_chunks(batches: Batches, ending: Ending) -> None:
    """From the cut to the end: states, counts, percent, what `process` returned in the order of the chunks."""
    batches.create(ID, ORIGIN, None)
    assert summary(batches) == BatchSummary(ID, "Import", "splitting", None, 0, 0, None)
    ending.chunk(10, "done", 100, {"ten": 10})
    assert batches.note_is_cut(ID, chunks=4, total=260)
    ending.chunk(2, "done", 100, "two")
    assert (summary(batches).percent, batches.take_next_message(ID)) == (76, None)
    ending.chunk(0, "dead", 50)
    ending.chunk(1, "cancelled", 10)
    found = summary(batches)
    assert found == BatchSummary(ID, "Import", "running", 260, 200, 60, 4, [0], [1], ["two", {"ten": 10}])
    assert (found.actor, found.progress.failed) == ("u-7", 60)
    assert batches.take_next_message(ID) == FINISH
    assert batches.origin(ID) == ORIGIN


def test_a_chunk_that_ends_twice_counts_once(batches: Batches, ending: Ending) -> None:
    """A duplicate, or a settle whose reply was lost."""
    batches.create(ID, ORIGIN, 5)
    batches.note_is_cut(ID, chunks=1, total=5)
    ending.chunk(0, "done", 5, "r")
    ending.chunk(0, "done", 5, "other")
    assert (summary(batches).done, summary(batches).returns) == (5, ["r"])


@pytest.mark.parametrize("worse", ["dead", "cancelled"])
def test_a_done_chunk_does_not_get_worse(batches: Batches, ending: Ending, worse: Any) -> None:
    """A late failure of a stale copy takes nothing back."""
    batches.create(ID, ORIGIN, 5)
    ending.chunk(0, "done", 5)
    ending.chunk(0, worse, 5)
    assert (summary(batches).done, summary(batches).failed) == (5, 0)


@pytest.mark.parametrize("before", ["dead", "cancelled"])
def test_a_redriven_chunk_repairs_the_batch(batches: Batches, ending: Ending, before: Any) -> None:
    """Its items move from failed to done; before the finish nothing else follows."""
    batches.create(ID, ORIGIN, 10)
    batches.note_is_cut(ID, chunks=2, total=10)
    ending.chunk(0, before, 5)
    ending.chunk(0, before, 5)
    ending.chunk(0, "done", 5, "r")
    found = summary(batches)
    assert (found.done, found.failed, found.failed_chunks, found.cancelled_chunks) == (5, 0, [], [])
    assert found.returns == ["r"]
    assert batches.take_next_message(ID) is None


def test_a_repair_after_the_snapshot_calls_recovered(batches: Batches, ending: Ending) -> None:
    """Also one that comes while `finish` runs; each number of repairs is told once, and a dead letter tells it, too."""
    batches.create(ID, ORIGIN, 6)
    batches.note_is_cut(ID, chunks=3, total=6)
    for index in range(3):
        ending.chunk(index, "dead", 2)
    ending.chunk(0, "done", 2)
    snapshot = batches.snapshot(ID)
    assert snapshot is not None
    assert (snapshot.done, snapshot.failed) == (2, 4)
    ending.chunk(1, "done", 2)
    assert batches.take_next_message(ID) == FINISH  # it has not ended
    ending.role("finish", "done")
    assert batches.state(ID) == "done"
    assert batches.take_next_message(ID) == NextMessage("recovered", 2)
    ending.chunk(2, "done", 2)
    assert batches.take_next_message(ID) == NextMessage("recovered", 3)
    ending.role("recovered", "dead", 3)
    ending.role("recovered", "done", 2)
    assert batches.take_next_message(ID) is None


def test_one_recovered_tells_of_all_repairs_so_far(batches: Batches, ending: Ending) -> None:
    """Ten repairs in a second need not make ten calls."""
    batches.create(ID, ORIGIN, 4)
    batches.note_is_cut(ID, chunks=4, total=4)
    for index in range(4):
        ending.chunk(index, "dead", 1)
    ending.role("finish", "done")
    for index in range(3):
        ending.chunk(index, "done", 1)
    assert not batches.is_reported(ID, 1)
    batches.snapshot(ID, 1)  # that of the first repair, which ran last
    batches.snapshot(ID, 2)
    ending.role("recovered", "dead", 2)  # what another one knew does not count
    assert not batches.is_reported(ID, 3)
    ending.role("recovered", "done", 1)
    assert batches.is_reported(ID, 3)
    assert batches.take_next_message(ID) is None
    ending.chunk(3, "done", 1)
    assert batches.take_next_message(ID) == NextMessage("recovered", 4)


@pytest.mark.parametrize("joined_first", [True, False])
def test_the_end_is_noticed_whoever_comes_last(
    batches: Batches, ending: Ending, store: Store, joined_first: bool
) -> None:
    """The last chunk, or the splitter that notes after it that all is cut; also a batch without items."""
    batches.create(ID, ORIGIN, None)
    if joined_first:
        ending.chunk(0, "done", 1)
        assert batches.take_next_message(ID) is None
        batches.note_is_cut(ID, chunks=1, total=1)
    else:
        batches.note_is_cut(ID, chunks=1, total=1)
        assert batches.take_next_message(ID) is None
        ending.chunk(0, "done", 1)
    assert batches.take_next_message(ID) == FINISH
    batches.create("empty", ORIGIN, 0)
    batches.note_is_cut("empty", chunks=0, total=0)
    assert batches.take_next_message("empty") == FINISH
    assert summary(batches, "empty").percent == 100


def test_what_was_never_sent_is_found_in_a_minute(batches: Batches, ending: Ending, store: Store) -> None:
    """The process that should have sent it is gone. Who asks has the next minute; after the end nobody is asked."""
    batches.create(ID, ORIGIN, 1)
    batches.note_is_cut(ID, chunks=1, total=1)
    assert batches.closing() == []
    ending.chunk(0, "done", 1)
    assert batches.closing() == []  # whoever joined it sends it now
    store.redis.zadd(store.key("closing"), {ID: 0})
    assert batches.closing() == [ID]
    assert batches.take_next_message(ID) == FINISH
    assert batches.closing() == []
    ending.role("finish", "done")
    assert store.redis.zcard(store.key("closing")) == 0


@pytest.mark.parametrize(("role", "outcome"), [("splitter", "dead"), ("splitter", "cancelled"), ("finish", "dead")])
def test_a_batch_ends_with_its_splitter_or_finish(batches: Batches, ending: Ending, role: Any, outcome: Any) -> None:
    """The state says how; nothing follows."""
    batches.create(ID, ORIGIN, 1)
    if role == "finish":
        batches.note_is_cut(ID, chunks=0, total=0)
    ending.role(role, outcome)
    assert batches.state(ID) == outcome
    assert summary(batches).progress.ended == outcome
    assert batches.take_next_message(ID) is None


def test_a_finish_that_is_redriven_ends_the_batch(batches: Batches, ending: Ending) -> None:
    """It was dead; now it is done."""
    batches.create(ID, ORIGIN, 0)
    batches.note_is_cut(ID, chunks=0, total=0)
    ending.role("finish", "dead")
    ending.role("finish", "done")
    assert batches.state(ID) == "done"


def test_a_splitter_that_ends_well_changes_nothing(batches: Batches, ending: Ending) -> None:
    """Its chunks are on their way."""
    batches.create(ID, ORIGIN, 3)
    batches.note_is_cut(ID, chunks=1, total=3)
    ending.role("splitter", "done")
    assert batches.state(ID) == "running"


outcomes = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["done", "dead", "cancelled"])), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(
    joins=outcomes,
    sizes=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    cut_at=st.integers(0, 25),
    finish_at=st.integers(0, 25),
    number=st.integers(0),
)
def test_any_order_of_outcomes_counts_right(
    store: Store,
    batches: Batches,
    *,
    joins: list[Any],
    sizes: list[int],
    cut_at: int,
    finish_at: int,
    number: int,
) -> None:
    """Chunks that end in any order, repeatedly, around the end of the cutting and the finish: counts are those of each chunk's best outcome."""
    batch_id = f"{number}-{len(batches.listing(10_000))}"
    ending = Ending(store, batches, batch_id)
    batches.create(batch_id, ORIGIN, None)
    best: dict[int, str] = {}
    is_cut = finished = False
    told = repairs = 0
    for position, (index, outcome) in enumerate([*joins, (0, "done"), (1, "done")]):
        if position == cut_at:
            is_cut = batches.note_is_cut(batch_id, chunks=6, total=sum(sizes))
        if position >= finish_at and not finished and batches.take_next_message(batch_id) == FINISH:
            batches.snapshot(batch_id)
            told, finished = repairs, True
            ending.role("finish", "done")
        better = index not in best or (best[index] != "done" and outcome == "done")
        repairs += better and index in best
        best |= {index: outcome} if better else {}
        ending.chunk(index, outcome, sizes[index], index)
        expected = FINISH if is_cut and len(best) == 6 and not finished else None
        if finished and repairs > told:
            expected = NextMessage("recovered", repairs)
        assert batches.take_next_message(batch_id) == expected
    found = summary(batches, batch_id)
    assert found.done == sum(sizes[index] for index, outcome in best.items() if outcome == "done")
    assert found.failed == sum(sizes[index] for index, outcome in best.items() if outcome != "done")
    assert found.failed_chunks == sorted(index for index, outcome in best.items() if outcome == "dead")
    assert found.cancelled_chunks == sorted(index for index, outcome in best.items() if outcome == "cancelled")
    assert found.returns == sorted(index for index, outcome in best.items() if outcome == "done")


# The splitter's side.


def test_the_cursor_is_read_as_it_was_written(batches: Batches) -> None:
    """Whatever the last item is."""
    batches.create(ID, ORIGIN, None)
    assert batches.cursor(ID) is None
    cursor = Cursor(Cut(3, 250, "abc", {"id": 7, "name": "名前"}), Cut(4, 251, "def", None))
    batches.save_cursor(ID, cursor)
    assert batches.cursor(ID) == cursor
    assert asdict(cursor)["sent"]["after"] == {"id": 7, "name": "名前"}


def test_beginning_again_after_a_crash_keeps_what_is_there(batches: Batches, ending: Ending) -> None:
    """The splitter was killed and cuts again: outcomes and the place in the list stay."""
    batches.create(ID, ORIGIN, 5)
    ending.chunk(0, "done", 2)
    batches.create(ID, ORIGIN, None)
    assert (summary(batches).done, summary(batches).total) == (2, 5)
    assert [one.id for one in batches.listing(10)] == [ID]


def test_beginning_again_undoes_no_end(batches: Batches, ending: Ending) -> None:
    """A splitter that is delivered again neither revives a cancelled batch nor reopens one that has ended."""
    batches.create(ID, ORIGIN, 0)
    batches.note_is_cut(ID, chunks=0, total=0)
    for role, outcome, state in (("finish", "dead", "dead"), ("finish", "done", "done")):
        ending.role(role, outcome)  # type: ignore[arg-type]  # they are
        batches.create(ID, ORIGIN, 0)
        assert batches.note_is_cut(ID, chunks=0, total=0)
        assert batches.state(ID) == state
    batches.create("other", ORIGIN, 5)
    batches.cancel("other")
    batches.create("other", ORIGIN, 5)
    assert batches.state("other") == "cancelled"


def test_beginning_again_revives_a_batch_that_could_not_be_cut(batches: Batches, ending: Ending) -> None:
    """As a redrive of the splitter does."""
    batches.create(ID, ORIGIN, 5)
    ending.role("splitter", "dead")
    batches.create(ID, ORIGIN, 5)
    assert batches.state(ID) == "splitting"
    assert not summary(batches).progress.ended


# Cancelling.


def test_a_batch_is_cancelled_once(batches: Batches, ending: Ending, store: Store) -> None:
    """Its splitter and its running jobs find a mark; the end of its last chunk is followed by nothing."""
    batches.create(ID, ORIGIN, 5)
    assert batches.cancel(ID)
    assert not batches.cancel(ID)
    assert store.redis.exists(store.key("cancel", ID))
    assert not batches.note_is_cut(ID, chunks=1, total=5)
    ending.chunk(0, "cancelled", 5)
    assert (batches.state(ID), batches.take_next_message(ID)) == ("cancelled", None)
    assert Progress.of(ID, store).ended == "cancelled"


def test_what_has_ended_or_never_was_is_not_cancelled(batches: Batches, ending: Ending, store: Store) -> None:
    """And no mark is left that would cancel a redrive."""
    batches.create(ID, ORIGIN, 0)
    batches.note_is_cut(ID, chunks=0, total=0)
    ending.role("finish", "done")
    assert not batches.cancel(ID)
    assert not batches.cancel("nobody")
    assert not store.redis.keys(store.key("cancel", "*"))


def test_a_cancelled_batch_is_not_finished(batches: Batches, ending: Ending) -> None:
    """Cancelled while its finish was on its way."""
    batches.create(ID, ORIGIN, 0)
    batches.note_is_cut(ID, chunks=0, total=0)
    batches.cancel(ID)
    ending.role("finish", "done")
    assert batches.state(ID) == "cancelled"


def test_what_a_dead_splitter_had_sent_can_be_cancelled(batches: Batches, ending: Ending) -> None:
    """Its chunks go on by themselves, unless somebody does not want them; after the finish nothing is left to stop."""
    batches.create(ID, ORIGIN, 5)
    ending.role("splitter", "dead")
    assert batches.cancel(ID)
    assert batches.state(ID) == "cancelled"
    batches.create("other", ORIGIN, 0)
    batches.note_is_cut("other", chunks=0, total=0)
    Ending(batches._store, batches, "other").role("finish", "dead")
    assert not batches.cancel("other")


def test_a_splitter_that_ends_between_two_turns_leaves_its_key(batches: Batches, ending: Ending, store: Store) -> None:
    """Cancelled, revoked or expired while it waits: the same batch can be sent again."""
    batches.create(ID, ORIGIN, 5, claim="Import:key")
    claim = store.key("claim", "Import:key")
    store.redis.hset(claim, mapping={"state": "continued", "id": ID})
    ending.role("splitter", "cancelled")
    assert store.redis.hget(claim, "state") == b"released"
    store.redis.hset(claim, mapping={"state": "continued", "id": "another"})
    ending.role("splitter", "cancelled")
    assert store.redis.hget(claim, "state") == b"continued"


def test_a_splitter_that_has_cut_all_and_has_not_ended_leaves_its_key(
    batches: Batches, ending: Ending, store: Store
) -> None:
    """Cancelled between its last step and its end, when nothing is there yet to free."""
    claim = store.key("claim", "Import:key")
    batches.create(ID, ORIGIN, 5, claim="Import:key")
    batches.note_is_cut(ID, chunks=1, total=5)
    store.redis.hset(claim, mapping={"state": "running", "id": ID})
    assert batches.cancel(ID)
    assert store.redis.hget(claim, "state") == b"running"
    store.redis.hset(claim, "state", "done")  # the step that ends it does so first
    ending.role("splitter", "done")
    assert store.redis.hget(claim, "state") == b"released"
    store.redis.hset(claim, mapping={"state": "done", "id": "another"})
    ending.role("splitter", "done")
    assert store.redis.hget(claim, "state") == b"done"


def test_a_batch_stalls_as_its_task_says(batches: Batches, ending: Ending, store: Store) -> None:
    """Also where `count` said too little, so that everything seems done."""
    batches.create(ID, ORIGIN, 1, stall_after=5)
    ending.chunk(0, "done", 10)
    store.redis.hset(store.key("progress", ID), "updated_at", time.time() - 6)
    assert Progress.of(ID, store).stalled
    assert not Progress.of(ID, store).finished
    batches.note_is_cut(ID, chunks=1, total=10)
    ending.role("finish", "done")
    assert Progress.of(ID, store).finished
    assert not Progress.of(ID, store).stalled


# What is kept.


def test_an_unknown_batch_is_none(batches: Batches) -> None:
    """Never begun, or forgotten."""
    assert batches.summary("nobody") is None
    assert batches.snapshot("nobody") is None
    assert batches.state("nobody") is None
    assert batches.origin("nobody") is None
    assert batches.take_next_message("nobody") is None
    with pytest.raises(BusinessError, match="nothing is remembered of the batch nobody"):
        batches.note_is_cut("nobody", chunks=0, total=0)


def test_an_outcome_after_the_batch_was_forgotten_leaves_nothing(
    batches: Batches, store: Store, ending: Ending
) -> None:
    """A chunk redriven after weeks ends without harm."""
    ending.chunk(0, "done", 5, "r")
    ending.role("finish", "done")
    assert batches.summary(ID) is None
    assert store.redis.keys(store.key("*")) == []


def test_the_newest_batches_are_listed_first(batches: Batches, store: Store) -> None:
    """Up to the limit; those that were forgotten are dropped from the index."""
    for number in range(5):
        batches.create(f"b{number}", ORIGIN, None)
    assert [one.id for one in batches.listing(3)] == ["b4", "b3", "b2"]
    store.redis.delete(store.key("batch", "b3"))
    assert [one.id for one in batches.listing(10)] == ["b4", "b2", "b1", "b0"]
    assert store.redis.zcard(store.key("batches")) == 4


def test_batches_are_listed_by_their_state(batches: Batches) -> None:
    """As many as are wanted of those in it."""
    for number in range(6):
        batches.create(f"b{number}", ORIGIN, None)
        if number % 2:
            batches.cancel(f"b{number}")
    assert [one.id for one in batches.listing(2, "cancelled")] == ["b5", "b3"]
    assert [one.id for one in batches.listing(10, "splitting")] == ["b4", "b2", "b0"]
    assert batches.listing(10, "dead") == []


def test_a_total_that_was_too_little_makes_no_more_than_all(batches: Batches, ending: Ending) -> None:
    """Until the splitter knows better."""
    batches.create(ID, ORIGIN, 2)
    ending.chunk(0, "done", 3)
    assert (summary(batches).percent, summary(batches).ended_chunks) == (100, 1)
    batches.note_is_cut(ID, chunks=2, total=6)
    assert summary(batches).percent == 50


def test_a_listing_reads_no_returns(batches: Batches, ending: Ending) -> None:
    """They may be large, and nobody shows them."""
    batches.create(ID, ORIGIN, 1)
    ending.chunk(0, "done", 1, "x" * 1000)
    (found,) = batches.listing(1)
    assert (found.done, found.returns) == (1, [])


def test_every_key_of_a_batch_is_forgotten_some_day(batches: Batches, ending: Ending, store: Store) -> None:
    """Through a whole life, whatever the order."""

    def immortal() -> set[bytes]:
        keys: Any = store.redis.keys(store.key("*"))
        return {key for key in keys if store.redis.ttl(key) == -1}

    batches.create(ID, ORIGIN, 2)
    batches.save_cursor(ID, Cursor())
    ending.chunk(0, "dead", 1)
    batches.note_is_cut(ID, chunks=2, total=2)
    ending.chunk(0, "done", 1, "r")
    ending.chunk(1, "done", 1, "r")
    index = {store.key("batches").encode(), store.key("closing").encode()}
    assert immortal() == index
    batches.snapshot(ID)
    ending.role("finish", "done")
    assert immortal() == index - {store.key("closing").encode()}


def test_the_index_forgets_with_the_batches(store: Store) -> None:
    """Nobody lists, and the index still does not grow for ever."""
    batches = Batches(store, timedelta(milliseconds=20))
    for number in range(20):
        batches.create(f"b{number}", ORIGIN, None)
    store.redis.zadd(store.key("batches"), {f"b{number}": 1 for number in range(20)}, xx=True)
    batches.create("new", ORIGIN, None)
    assert store.redis.zrange(store.key("batches"), 0, -1) == [b"new"]


def test_progress_of_a_batch_is_read_like_a_job_s(batches: Batches, ending: Ending, store: Store) -> None:
    """`Progress.of(id)` takes the id that `delay` returned."""
    batches.create(ID, ORIGIN, 10)
    ending.chunk(0, "done", 4)
    found = Progress.of(ID, store)
    assert (found.done, found.total, found.percent, found.ended) == (4, 10, 40, "")


def test_ids_are_the_same_each_time_a_batch_is_cut() -> None:
    """So that cutting again sends no chunk twice; no two messages share one."""
    ids = {chunk_id(batch, index) for batch in ("a", "b") for index in range(50)}
    ids |= {finish_id(batch) for batch in ("a", "b")} | {recovered_id("a", number) for number in range(50)}
    assert len(ids) == 152
    assert chunk_id("a", 7) == chunk_id("a", 7)
    assert all(UUID(one) for one in ids)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "x",
        [],
        ["b", "chunk", True, 1],
        ["b", "chunk", 1, 2**60],
        ["b", "chunk", -1, 1],
        ["b", "chunk", 1],
        ["b", "other", 1, 1],
        ["b", "chunk", "1", 1],
        [1, "chunk", 1, 1],
        {"id": "b"},
    ],
)
def test_a_header_that_means_nothing_is_of_no_batch(header: Any) -> None:
    """Another program may have written it."""
    assert Member.read(header) is None
    assert Member.read(["b", "chunk", 3, 7]) == Member("b", "chunk", 3, 7)


@pytest.mark.parametrize("ignored", [True, False])
def test_who_waits_for_a_duplicate_waits_for_its_result(batches: Batches, ignored: bool, store: Store) -> None:
    """Its batch may have ended before its own result is there: where it keeps one, the batch says nothing in its place."""
    batches.create(ID, ORIGIN, None)
    store.redis.hset(store.key("progress", ID), "ignored", int(not ignored))
    batches.note_duplicate("b2", ID, ignored=ignored)
    assert Progress.of("b2", store).id == ID
    assert (Progress.of("b2", store).ignored, Progress.of(ID, store).ignored) == (ignored, not ignored)
