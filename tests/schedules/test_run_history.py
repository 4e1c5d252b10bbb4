"""What became of a schedule's runs, from real rows and real messages."""

from datetime import UTC, datetime

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.schedules.run_history import RunOutcome, failing, outcomes_of
from conventions.schedules.schedule_state import Run
from conventions.storage.redis_store import Store
from tests.batching import Ending
from tests.claiming import message
from tests.recorded import append, drain, entry, event, recorder

AT = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = datetime.fromtimestamp(1_700_000_000, UTC)


def words(app: ConventionsApp, *ids: str, with_sql: bool = True) -> list[str]:
    """The outcomes of runs, as words."""
    runs = [Run(AT, AT, one, "beat") for one in ids]
    if not with_sql:
        return [one.word for one in outcomes_of(app, runs, None)]
    with app.database.session(read_only=True) as session:
        return [one.word for one in outcomes_of(app, runs, session)]


def test_ended_runs_are_in_sql(app: ConventionsApp, store: Store) -> None:
    """The last execution counts, also after a redrive; a copy that was behind does not."""
    append(
        store,
        entry(event("ok", runtime=2.5)),
        entry(event("dead", "dead")),
        entry(event("redriven", "dead")),
        entry(event("redriven", generation=1)),
        entry(event("behind")),
        entry(event("behind", "superseded", generation=1)),
        entry(event("only-behind", "superseded")),
    )
    drain(recorder(store, app.database))
    found = words(app, "ok", "dead", "redriven", "behind", "only-behind", "nobody-knows")
    assert found == ["succeeded", "dead", "succeeded", "succeeded", "superseded", "unknown"]
    assert words(app, "ok", with_sql=False) == ["unknown"]
    with app.database.session(read_only=True) as session:
        assert outcomes_of(app, [Run(AT, AT, "ok", "beat")], session) == [RunOutcome("succeeded", 2.5, ENDED)]


def test_what_has_not_ended_is_in_redis(app: ConventionsApp, store: Store) -> None:
    """In a queue, under way, or waiting for another attempt."""
    app.broker.publish([message("m1"), message("m2"), message("m3")])
    (first, *_) = app.broker.reserve(["q"], 1)
    store.redis.hset(store.key("started"), "m1", first.receipt)
    append(store, entry(event("m3", "retried")))
    drain(recorder(store, app.database))
    assert words(app, "m1", "m2", "m3") == ["running", "waiting", "retrying"]
    assert words(app, "m1", "m2", "m3", with_sql=False) == ["running", "waiting", "waiting"]


def test_without_the_broker_what_has_ended_is_known(app: ConventionsApp, store: Store) -> None:
    """It may be another server, which is away."""
    app.broker.publish([message("m1")])
    append(store, entry(event("ok")))
    drain(recorder(store, app.database))
    runs = [Run(AT, AT, one, "beat") for one in ("ok", "m1")]
    with app.database.session(read_only=True) as session:
        assert [one.word for one in outcomes_of(app, runs, session, broker=False)] == ["succeeded", "unknown"]


def test_a_batch_has_the_outcome_of_the_batch(app: ConventionsApp, store: Store) -> None:
    """Its message is done when it is cut; one that is done with dead chunks did not go well."""
    append(store, entry(event("b")))
    drain(recorder(store, app.database))
    app.batches.create("b", Origin("Import", {}, "u-7"), 4)
    for state, word in (("splitting", "running"), ("running", "running"), ("done", "succeeded"), ("dead", "dead")):
        store.redis.hset(store.key("batch", "b"), "state", state)
        assert words(app, "b") == [word]
    store.redis.hset(store.key("batch", "b"), "state", "running")
    app.batches.note_is_cut("b", chunks=2, total=4)
    ending = Ending(store, app.batches, "b")
    ending.chunk(0, "done", 2)
    ending.chunk(1, "dead", 2)
    store.redis.hset(store.key("batch", "b"), "state", "done")
    (found,) = outcomes_of(app, [Run(AT, AT, "b", "beat")], None)
    assert (found.word, found.error) == ("partly failed", "2 items failed")


def test_how_many_runs_failed_in_a_row() -> None:
    """Of those that ended; what was not sent, or has not ended, says nothing."""
    assert failing([]) == failing(["succeeded", "dead"]) == failing(["running", "duplicate", "dead"]) == 0
    assert failing(["running", "dead", "skipped", "failed", "partly failed", "succeeded", "dead"]) == 3


def test_slots_without_a_message_say_why(app: ConventionsApp) -> None:
    """There is nothing to look up."""
    runs = [Run(AT, AT, "", "beat", what) for what in ("skipped", "missed", "paused", "failed")]
    assert [one.word for one in outcomes_of(app, runs, None)] == ["skipped", "missed", "paused", "failed"]
