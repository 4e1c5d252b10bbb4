"""Workers with two versions of a team's code: a task that one of them does not know waits for another that does."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.header_names import KEY, UNKNOWN, UNKNOWN_SINCE
from conventions.broker.redis_broker import Broker
from conventions.core.canonical_json import digest
from conventions.idempotency.key import idempotency_key
from conventions.storage.redis_store import Store
from conventions.worker.put_off_unknown import put_off
from tests import raw_messages as raw
from tests.claiming import held, message, places, sent
from tests.stored_messages import stored
from tests.support import wait_until
from tests.workers import Installation, letters, messages, wait_for_letter

NOW = datetime(2026, 11, 27, tzinfo=UTC)
NEW = f"{__name__}.New"
INCR = f"{__name__}.ran"

if "NEW_CODE" in os.environ:

    class New(ImmediateTask):
        """A task that only the new code has."""

        idempotent_on = ("number",)

        def run(self, number: int) -> None:
            """Say so, with what was counted."""
            self.app.store.redis.hset(self.app.store.key("ran"), str(number), f"{self.attempt}")


class Keyed(ImmediateTask):
    """A task whose key is made of other arguments in the new code."""

    idempotent_on = ("a", "b") if "NEW_CODE" in os.environ else ("a",)

    def run(self, a: int, b: int) -> None:
        """Say so."""
        self.app.store.redis.incr(self.app.store.key(f"keyed-{a}-{b}"))


def test_waits_grow_and_end() -> None:
    """1, 2, 4, ... 30 s; the last one ends with the time; then there is none."""
    headers: dict[str, Any] = {}
    now, waits = NOW, []
    while (how := put_off(headers, 100, now)) is not None:
        waits.append(how.wait)
        headers, now = how.headers, now + timedelta(seconds=how.wait)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 9]
    assert headers == {UNKNOWN: 8, UNKNOWN_SINCE: NOW.isoformat()}
    assert put_off({}, 0, NOW) is None


@pytest.mark.parametrize(
    "headers", [{UNKNOWN: "x"}, {UNKNOWN: -3}, {UNKNOWN: True, UNKNOWN_SINCE: 7}, {UNKNOWN: 2, UNKNOWN_SINCE: "soon"}]
)
def test_headers_of_another_program(headers: dict[str, Any]) -> None:
    """They count as none, and no clock keeps a message for ever."""
    how = put_off(headers, 300, NOW)
    assert how is not None
    assert how.headers[UNKNOWN_SINCE] == NOW.isoformat()
    ahead = (NOW + timedelta(days=900)).isoformat()
    assert put_off({UNKNOWN: 1, UNKNOWN_SINCE: ahead}, 300, NOW) is not None
    assert put_off({UNKNOWN: 16, UNKNOWN_SINCE: ahead}, 300, NOW) is None


def test_a_message_is_put_off_in_place(broker: Broker, store: Store) -> None:
    """Under its tag, with no delivery counted, and with what it had become before; a stale receipt touches nothing."""
    delivery = sent(broker)
    broker.put_off(held(delivery), 0.0, {"retries": 3, UNKNOWN: 1}, "mine.Task")
    broker.publish([message("m2")])
    again, other = broker.reserve(["q"], 2)
    assert (again.tag, other.tag) == (b"m1", b"m2") or (again.tag, other.tag) == (b"m2", b"m1")
    again = again if again.tag == b"m1" else other
    assert (again.deliveries, again.changes, again.alone) == (1, {"retries": 3, UNKNOWN: 1}, True)
    broker.put_off(held(delivery), 50.0, {}, "mine.Task")
    assert places(store, "m1") == ["inflight"]


def test_another_worker_that_knows_it_runs_it(module_installation: Installation) -> None:
    """After a while with one that does not: as its first attempt, with no start and no letter. `check` names it meanwhile."""
    with module_installation.application() as app, module_installation.worker("--concurrency=1") as old:
        assert NEW not in app.tasks
        first = app.send_task(NEW, kwargs={"number": 1}, queue="immediate")
        counted = wait_until(lambda: _count(app, first.id) >= 2 and _count(app, first.id), 20, "put off twice")
        fields = stored(app.broker.store, first.id)
        assert int(fields.get("deliveries", 0)) == 0
        assert places(app.store, first.id, "immediate") in (["delayed"], ["queue"], ["inflight"])
        checked = module_installation.run("check")
        assert checked.returncode == 1
        assert NEW in checked.stdout
        # One that has waited for as long as it may is a dead letter.
        since = (datetime.now(UTC) - timedelta(seconds=301)).isoformat()
        counts: dict[str, Any] = {UNKNOWN: 9, UNKNOWN_SINCE: since}
        late = raw.publish(app, "immediate", raw.body(), raw.headers("mine.Gone", **counts))
        letter = wait_for_letter(app, late)
        assert letter.error == "UnknownTask"
        assert (
            "no task 'mine.Gone' is registered on the workers that had its message within 300 s" in letter.error_message
        )
        assert letter.headers[UNKNOWN] == 9
        with module_installation.worker("--concurrency=1", NEW_CODE="1") as new:
            second = app.send_task(NEW, kwargs={"number": 2}, queue="immediate")
            key = app.store.key("ran")
            wait_until(lambda: app.store.redis.hlen(key) == 2, 45, "both have run")
            wait_until(lambda: not messages(app), 20, "both have ended")
            assert app.store.redis.hgetall(key) == {b"1": b"1", b"2": b"1"}
            assert new.process.poll() is None
            # A message keeps the key that it was sent with, whatever the worker's code would make of it.
            for _ in range(2):
                third = Keyed.delay(a=1, b=2)
                own = next((one for one in messages(app) if one.id == third.id), None)
                wait_until(lambda: not messages(app), 20, "it has ended")
            assert app.store.redis.get(app.store.key("keyed-1-2")) == b"1"
            key = idempotency_key(Keyed.idempotent_on, {"a": 1, "b": 2}, "", None)
            assert own is None or own.headers[KEY] == key
            assert app.claims.is_done(f"{Keyed.name}:{key}", third.id, digest({"a": 1, "b": 2}))
        assert old.output.count(f"unknown: id={first.id} task={NEW}") >= counted
        assert [one.id for one in letters(app, state=None)] == [late]
        assert second.id


def _count(app: ConventionsApp, tag: str) -> int:
    changes = stored(app.broker.store, tag).get("changes", b"")
    return int(changes.partition(b'"x_unknown": ')[2].partition(b",")[0] or 0)
