"""The fast lane: short jobs go to a process together, and each of them is a job of its own all the same."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import pytest
from celery import chain

from conventions import Progress
from conventions.app import ConventionsApp
from tests.distant_server import distant
from tests.integration.lane_fixtures import (  # noqa: F401  # fixtures
    POOLS,
    QUEUE,
    TURNS,
    WARM,
    Lane,
    alone,
    crew,
    install,
    kinds,
    lane,
    notes,
    sizes,
    some,
)
from tests.integration.lane_tasks import Apart, Kept, Quick
from tests.support import patient, wait_until
from tests.workers import Installation, wait_for_letter

Alone: TypeAlias = tuple[Installation, ConventionsApp]


def test_each_job_of_a_group_is_itself(lane: Lane) -> None:
    """Its attempt, actor, key and progress are its own, it runs once, and its success is recorded."""
    for number in range(TURNS):
        turn = lane.within(f"turn {number}")
        each_is_itself(turn)
        if sum(size for size in sizes(turn.notes).values() if size > 1) >= 30:
            return
    raise AssertionError(f"most of them were never in groups: {sizes(turn.notes)}")


def together(lane: Lane, send: Callable[[Lane], object], least: int = 2) -> Lane:
    """Send jobs and let them end, again until some went together, so many at least: a busy machine may keep them apart. Returns the last turn."""
    for number in range(TURNS):
        turn = lane.within(f"turn {number}")
        send(turn)
        turn.wait_until_done()
        if max(sizes(turn.notes).values(), default=0) >= least:
            return turn
    raise AssertionError("they never went together")


def each_is_itself(lane: Lane) -> None:
    """Send some together, and look at each of them."""
    lane.warm_up()
    key = f"{lane.folder.parent.name}-{lane.folder.name}"
    with lane.paused():
        sent = {
            str(number): Quick.apply_async(
                kwargs={"folder": lane.folder, "name": str(number), "how": "" if number % 5 else "reports"},
                actor=f"u-{number}",
                idempotency_key=f"{key}-{number}",
            ).id
            for number in range(60)
        }
    lane.wait_until_done()
    found = lane.notes
    assert lane.names == sorted(sent)
    assert {one.name: one.id for one in found} == sent
    assert {one.name: (one.attempt, one.actor, one.key) for one in found} == {
        name: (1, f"u-{name}", f"{key}-{name}") for name in sent
    }
    recorded = lane.kinds()
    assert [recorded[one] for one in sent.values()] == [["succeeded"]] * 60
    for name, message_id in sent.items():
        progress = Progress.of(message_id)
        expected = (0, None, "") if int(name) % 5 else (int(name), 100, "done")
        assert (progress.done, progress.total, progress.ended) == expected


@pytest.mark.parametrize("pool", POOLS)
def test_each_job_of_a_group_ends_in_its_own_way(alone: Alone, tmp_path: Path, pool: str) -> None:
    """One that fails, is tried again, returns no JSON, was cancelled, has a key in use: the others do not notice."""
    installation, app = alone
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "1") as worker:
        for number in range(TURNS):
            lane = Lane(app, worker, tmp_path).within(f"turn {number}")
            lane.warm_up()
            if ended_in_one_group(lane):
                return
    raise AssertionError("they were never in one group")


def ended_in_one_group(lane: Lane) -> bool:
    """Send some that end in each way, look at each of them, and say whether they were together in groups."""
    rounds, sent = range(4), defaultdict[str, dict[int, str]](dict)

    def send(number: int, what: str, how: str = "", name: str = "", key: str | None = None) -> None:
        arguments = {"folder": lane.folder, "name": name or f"{what} {number}", "how": how}
        sent[what][number] = Quick.apply_async(kwargs=arguments, idempotency_key=key).id

    with lane.paused():
        send(0, "warm-up")  # the read under way brings the first message, and no more
        for number in rounds:
            send(number, "before")
            send(number, "fails", how="fails")
            send(number, "network", how="network")
            send(number, "object", how="object")
            send(number, "keyed", key=f"{lane.folder.name}-{number}")
            send(number, "twin")
            send(number, "cancelled")
            send(number, "conflict", key=f"{lane.folder.name}-{number}")
            send(number, "again", name=f"twin {number}")
            send(number, "after")
            assert Quick.cancel(sent["cancelled"][number]) == "queued"
    lane.wait_until_done()

    expected = {what: ["succeeded"] for what in ("warm-up", "before", "keyed", "twin", "after")}
    expected |= {"network": ["retried", "succeeded"], "cancelled": ["cancelled"], "again": ["duplicate"]}
    expected |= {what: ["dead"] for what in ("fails", "object", "conflict")}
    recorded = lane.kinds()
    for what, ids in sent.items():
        assert (what, [recorded[one] for one in ids.values()]) == (what, [expected[what]] * len(ids))
    ran = [f"{what} {number}" for what in ("before", "fails", "network", "object", "keyed", "twin", "after")
           for number in rounds]  # fmt: skip
    assert lane.names == sorted([*ran, "warm-up 0", *(f"network {number}" for number in rounds)])
    for what, error in (("fails", "ValueError"), ("object", "PayloadError"), ("conflict", "IdempotencyConflict")):
        assert {wait_for_letter(lane.app, one).error for one in sent[what].values()} == {error}

    first = [one for one in lane.notes if one.attempt == 1]
    groups = {one.name: one.group for one in first}
    assert {one.group for one in lane.notes if one.attempt == 2} == {None}, "what was tried before goes alone"
    have_neighbours = all(
        any(sizes(first)[groups[f"{what} {number}"] or ""] > 1 for number in rounds)
        for what in ("fails", "network", "object")
    )
    # Between these two are those that did not run.
    return have_neighbours and any(groups[f"twin {one}"] == groups[f"after {one}"] is not None for one in rounds)


@pytest.mark.parametrize("how", ["forks and exits", "forks and fails", "forks and returns", "forks and writes"])
@pytest.mark.parametrize("task", [Quick, Apart])
def test_a_process_that_a_job_has_forked_runs_no_other(lane: Lane, task: Any, how: str) -> None:
    """It ends there, as at the end of a program."""
    with lane.paused():
        for number in range(3):
            task.enqueue_many([{"folder": lane.folder, "name": f"forks {number}", "how": how}])
            task.enqueue_many([{"folder": lane.folder, "name": f"{number} {mate}"} for mate in range(10)])
    lane.wait_until_done()
    assert lane.names == sorted(
        [f"forks {one}" for one in range(3)] + [f"{one} {mate}" for one in range(3) for mate in range(10)]
    )
    recorded = lane.kinds()
    assert {tuple(recorded[one.id]) for one in lane.notes} == {("succeeded",)}
    if how == "forks and writes":
        wrote = [(lane.folder / f"forks {number} wrote").read_text() for number in range(3)]
        assert wrote == ["all of it"] * 3


def test_what_something_follows_goes_alone(lane: Lane) -> None:
    """A callback, a chain, a result that is kept: they work, also between others that go together."""
    with_what_follows(together(lane, send_what_something_follows))


def send_what_something_follows(lane: Lane) -> None:
    """Send it among others, and wait until what follows has begun."""
    folder, names = lane.folder, range(8)
    with lane.paused():
        for number in names:
            Quick.enqueue_many(some(folder, 4))
            linked = Quick.si(folder=folder, name=f"callback {number}")
            Quick.apply_async(kwargs={"folder": folder, "name": f"link {number}"}, link=linked)
            chain(
                Quick.si(folder=folder, name=f"chain {number}"),
                Quick.si(folder=folder, name=f"middle {number}"),
                Quick.si(folder=folder, name=f"end {number}"),
            ).apply_async()
        kept = {f"kept {number}": Kept.delay(folder, f"kept {number}") for number in names}
        Quick.enqueue_many(some(folder, 4))
    assert {name: result.get(timeout=patient(20)) for name, result in kept.items()} == {name: name for name in kept}
    for what in ("callback", "end"):
        wait_until(lambda what=what: f"{what} 7" in lane.names, 20, f"{what} has begun")  # type: ignore[misc]


def with_what_follows(lane: Lane) -> None:
    """Each of them ran once, and what something follows ran by itself."""
    found, names = lane.notes, range(8)
    assert [one.name for one in found if " " in one.name and one.name[:4] in ("link", "chai", "midd", "kept")] != []
    ran = {what: sorted(one.name for one in found if one.name.startswith(what)) for what in
           ("link", "callback", "chain", "middle", "end", "kept")}  # fmt: skip
    assert ran == {what: [f"{what} {number}" for number in names] for what in ran}
    assert len(found) == 8 * 10 + 4
    followed = [one for one in found if one.name.split()[0] in ("link", "chain", "middle", "kept")]
    assert {one.group for one in followed} == {None}
    recorded = lane.kinds()
    assert [recorded[one.id] for one in found] == [["succeeded"]] * len(found)


def test_a_class_may_refuse(lane: Lane) -> None:
    """`fast_lane = False`: each of its jobs goes to a process by itself, between others that do not."""
    lane.warm_up(Apart)

    def send(turn: Lane) -> None:
        with turn.paused():
            for _ in range(5):
                Quick.enqueue_many(some(turn.folder, 8))
                Apart.enqueue_many([one | {"name": f"apart {one['name']}"} for one in some(turn.folder, 8)])

    found = together(lane, send).notes
    apart = [one for one in found if one.name.startswith("apart")]
    assert {one.group for one in apart} == {None}
    assert len({one.name for one in apart}) == len(apart) == 40
    assert len(found) == 80


@pytest.mark.parametrize("pool", POOLS)
def test_a_server_that_is_some_milliseconds_away(alone: Alone, valkey_url: str, tmp_path: Path, pool: str) -> None:
    """What jobs wait for it is no part of their run time: short ones go together all the same."""
    installation, app = alone
    with distant(urlsplit(valkey_url).path, 0.005) as port:
        there = {"CONVENTIONS_BROKER_URL": f"redis://127.0.0.1:{port}/0"}
        with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2", **there) as worker:
            lane = Lane(app, worker, tmp_path)
            found = together(lane, lambda turn: Quick.enqueue_many(some(turn.folder, 300)), WARM)
    assert len(set(found.names)) == len(found.names) == 300


@pytest.mark.parametrize("pool", POOLS)
def test_the_setting(alone: Alone, tmp_path: Path, pool: str) -> None:
    """Without the lane, no jobs go together."""
    installation, app = alone
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2", CONVENTIONS_FAST_LANE="false") as worker:
        lane = Lane(app, worker, tmp_path)
        for _ in range(2):
            Quick.enqueue_many(some(tmp_path, 150))
            lane.wait_until_done()
        assert len(set(lane.names)) == len(lane.names) == 300
        assert {one.group for one in lane.notes} == {None}


@contextmanager
def captured(app: ConventionsApp) -> Iterator[list[dict[str, Any]]]:
    """The events that workers send within the block."""
    events: list[dict[str, Any]] = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": events.append})
        thread = threading.Thread(target=lambda: receiver.capture(limit=None, wakeup=True))
        thread.start()
        try:
            wait_until(lambda: events, 30, "a worker says that it is there")
            yield events
        finally:
            receiver.should_stop = True
            thread.join(patient(10))


@pytest.mark.parametrize("pool", POOLS)
def test_events(alone: Alone, tmp_path: Path, pool: str) -> None:
    """Flower sees each job by itself: received, started, succeeded."""
    installation, app = alone
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2", "-E") as worker, captured(app) as events:
        lane = Lane(app, worker, tmp_path)
        lane.warm_up()
        turn = together(lane, lambda turn: Quick.enqueue_many(some(turn.folder, 60)))
        ids = [one.id for one in turn.notes]
        assert len(set(ids)) == len(ids) == 60

        def seen(message_id: str) -> list[str]:
            return sorted(one["type"] for one in list(events) if one.get("uuid") == message_id)

        expected = ["task-received", "task-started", "task-succeeded"]
        wait_until(lambda: all(seen(one) == expected for one in ids), 10, f"{[seen(one) for one in ids]}")
        results = [one["result"] for one in events if one["type"] == "task-succeeded" and one["uuid"] in ids]
        assert sorted(results) == sorted(repr(name) for name in turn.names)


@pytest.mark.parametrize("pool", POOLS)
def test_stopping_in_the_middle(alone: Alone, tmp_path: Path, pool: str) -> None:
    """SIGTERM with thousands in the queue: it ends in order, the next one does the rest, each job runs once."""
    installation, app = alone
    app.be_patient()
    ids = Quick.enqueue_many(some(tmp_path, 8_000))
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2") as worker:
        wait_until(
            lambda: len(found := notes(tmp_path)) > 300 and max(sizes(found).values(), default=0) > 1,
            20,
            "it is at work, in groups",
        )
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(patient(15)) == 0
        assert "unfinished" not in worker.output
    done = len(notes(tmp_path))
    assert done < 8_000
    ready, delayed, in_flight = astuple(app.broker.sizes(QUEUE))
    assert (ready >= 8_000 - done, delayed, in_flight) == (
        True,
        0,
        0,
    )  # some went back that were recorded as done then
    with installation.worker("-Q", QUEUE, "-P", pool, "-c", "2") as worker:
        lane = Lane(app, worker, tmp_path)
        lane.wait_until_done(30)
        assert sorted(one.id for one in lane.notes) == sorted(ids)
    recorded = kinds(app)
    assert [one for one in ids if recorded[one] != ["succeeded"]] == []
