"""The layout of what is in Redis: who may write it, when it rises, and that a newer one is refused."""

import os
import signal
import time

import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Broker
from conventions.core.errors import ConfigurationError, NewerLayout
from conventions.execution.purge_queues import purge
from conventions.storage import layout_version
from conventions.storage.layout_version import LAYOUT, Layouts, Member, members
from conventions.storage.redis_store import Store, script_source
from tests.claiming import message, places
from tests.support import patient, wait_until
from tests.workers import Installation

NEXT = Layouts(1, LAYOUT + 1)
REFUSED = f"what is in Redis has layout {LAYOUT + 1}, and this release knows layout {LAYOUT}"


class Slow(ImmediateTask):
    """Take a while."""

    not_idempotent = "a test"

    def run(self, seconds: float) -> None:
        """Say that it begins and ends."""
        redis, store = self.app.store.redis, self.app.store
        redis.incr(store.key("begun"))
        time.sleep(seconds)
        redis.incr(store.key("ran"))


class Plain(ImmediateTask):
    """A task to send."""

    not_idempotent = "a test"

    def run(self) -> None:
        """Nothing."""


def test_the_scripts_know_the_same_layout() -> None:
    """The number stands in the script that the others use, and in Python."""
    assert f"written ~= '{LAYOUT}'" in script_source("layout")


def test_a_layout_rises_when_no_process_is_left_that_does_not_know_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends in order says so; who is killed lapses."""
    old, new = Member("old"), Member("new", NEXT)
    old.say([store])
    new.say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % LAYOUT
    assert members(store).keys() == {old.name, new.name}
    old.say([store])
    old.leave([store])
    new.say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % (LAYOUT + 1)
    with pytest.raises(NewerLayout, match=REFUSED) as refused:
        old.say([store])
    assert isinstance(refused.value, ConfigurationError)
    assert members(store).keys() == {new.name}


def test_a_killed_process_lapses(store: Store) -> None:
    """Its last word is a minute old; one of a form that is not known here holds nobody back."""
    new = Member("new", NEXT)
    Member("old").say([store])
    store.redis.hset(store.key("members"), "other", '{"layouts": [1, 5]}')
    new.say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % LAYOUT
    raw = members(store)[Member("old").name].split(":")
    raw[2] = str(int(raw[2]) - round(layout_version.GONE_AFTER * 1000) - 1000)
    store.redis.hset(store.key("members"), Member("old").name, ":".join(raw))
    new.say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % (LAYOUT + 1)
    assert members(store).keys() == {new.name, "other"}


def test_what_a_release_without_layouts_has_written_is_the_first(store: Store) -> None:
    """It wrote no number; an empty Redis gets the newest at once."""
    store.redis.set(store.key("sequence"), 5)
    first = Member("new", Layouts(LAYOUT + 1, LAYOUT + 2))
    with pytest.raises(NewerLayout):
        first.say([store])
    store.redis.delete(store.key("sequence"), store.key("layout"))
    first.say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % (LAYOUT + 2)


def test_a_sender_says_so_with_its_messages(broker: Broker, store: Store) -> None:
    """Once in a while, in the step that takes the message; so the layout does not rise while it sends."""
    broker.publish([message("m1")])
    (name,) = members(store)
    assert name.startswith("sender ")
    assert name.endswith(f":{os.getpid()}")
    store.redis.delete(store.key("members"))
    broker.publish([message("m2")])
    assert members(store) == {}
    Member("new", NEXT).say([store])
    assert store.redis.get(store.key("layout")) == b"%d" % (LAYOUT + 1)


@pytest.mark.parametrize("found", [str(LAYOUT + 1), "2b", ""])
def test_a_newer_layout_is_refused(app: ConventionsApp, found: str) -> None:
    """By sends, one and many, and by whatever else would change a message; nothing is changed."""
    store, broker = app.store, app.broker
    broker.publish([message("m1", wait=60)])
    store.redis.set(store.key("layout"), found)
    with pytest.raises(NewerLayout, match="and this release knows layout 1: nothing is read or written here"):
        Plain.delay()
    with pytest.raises(NewerLayout):
        Plain.enqueue_many([{}, {}])
    with pytest.raises(NewerLayout):
        broker.publish([message("m2"), message("m3")])
    with pytest.raises(NewerLayout):
        broker.reserve(["q"], 1)
    with pytest.raises(NewerLayout):
        purge(app, ["q"])
    assert places(store, "m1") == ["delayed"]
    assert places(store, "m2") == []


@pytest.mark.processes
def test_a_worker_that_runs_ends_when_the_layout_rises(module_installation: Installation) -> None:
    """What runs may end, what it holds goes back, the log says why in one line, and no other one starts."""
    installation = module_installation
    with installation.application() as app, installation.worker("--concurrency=1") as worker:
        redis, store = app.store.redis, app.store
        assert any(name.startswith("worker ") for name in members(store))
        for seconds in (1.5, 0, 0):
            Slow.apply_async(kwargs={"seconds": seconds})
        wait_until(lambda: redis.get(store.key("begun")) == b"1", 20)
        redis.set(store.key("layout"), LAYOUT + 1)
        app.broker.wake(["immediate"])
        assert worker.process.wait(patient(20)) == 2, worker.output
        assert worker.output.count(REFUSED) == 1, worker.output
        assert redis.get(store.key("ran")) == b"1"
        assert (app.broker.sizes("immediate").ready, app.broker.sizes("immediate").in_flight) == (2, 0)
        started = installation.run("worker")
        assert started.returncode == 2, started.stdout
        assert REFUSED in started.stdout
        beat = installation.run("beat", "--pidfile=")
        assert (beat.returncode, REFUSED in beat.stdout) == (2, True), beat.stdout
        redis.set(store.key("layout"), LAYOUT)
        with installation.worker("--concurrency=1", "--pool=threads") as another:
            wait_until(lambda: redis.get(store.key("ran")) == b"3", 20)
            another.process.send_signal(signal.SIGTERM)
            assert another.process.wait(patient(20)) == 0
        assert not any(name.startswith("worker ") for name in members(store))
