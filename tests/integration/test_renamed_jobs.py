"""While the key of names changes, no job runs twice, whichever name its message has (R4, R21)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions import ImmediateTask, Job, RetryPolicy
from conventions.app import ConventionsApp
from conventions.core.named_keys import new_key
from conventions.dead_letters.resend import redrive
from conventions.sealing.name_keys import NameKeys
from tests.broker_set_ups import Brokers
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, letters, wait_for_letter, wait_until_empty

OLD, NEW = new_key("old"), new_key("new")
TURNS = 20


class Noting(ImmediateTask, abstract=True):
    """A job that leaves a trace."""

    def note(self, what: object) -> None:
        """The effect."""
        self.app.store.redis.rpush(self.app.store.key("done"), str(what))


class Pay(Noting):
    """Pay once."""

    encrypt = True
    idempotent_on = ("order",)

    def run(self, order: int, amount: int) -> int:
        self.note(f"{order} {amount}")
        return amount


class Twice(Noting):
    """Fail once."""

    encrypt = True
    idempotent_on = ("order",)
    retry_policy = RetryPolicy(attempts=2, first_wait=1, network_attempts=2, jitter=0)

    def run(self, order: int, amount: int) -> None:
        if self.attempt == 1:
            raise ValueError("at first")
        self.note(f"{order} {amount}")


class Broken(Noting):
    """Fail until it is mended."""

    encrypt = True
    idempotent_on = ("order",)
    retry_policy = RetryPolicy(attempts=1, network_attempts=1)

    def run(self, order: int, amount: int) -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError("broken")
        self.note(f"{order} {amount}")


class Commits(Noting):
    """Commit its effect once, with a result."""

    encrypt = True
    idempotent_on = ("order",)
    ignore_result = False

    def run(self, order: int, amount: int) -> str:
        with self.transaction() as session:
            session.info["result"] = f"{order} {amount} of before"
            self.note(f"{order} {amount}")
        return "new"


@pytest.fixture
def app(brokers: Brokers, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application with a worker. Only senders name jobs, so only they have to know of a new key."""
    settings = {"payload_keys": new_key("p"), "name_keys": OLD, "key_prefix": f"t{uuid4().hex[:8]}"} | brokers()
    installation = Installation(
        tmp_path, [__name__], [Path(__file__).parent], database_url=new_database(tmp_path), **settings
    )
    with installation.application() as app, acting_through(app), installation.worker("--concurrency=2"):
        yield app
        forget(app.store)


def done(app: ConventionsApp) -> list[str]:
    """The effects."""
    found: Any = app.store.redis.lrange(app.store.key("done"), 0, -1)
    return sorted(one.decode() for one in found)


def under(app: ConventionsApp, *keys: str) -> None:
    """Name jobs with these keys from now on."""
    app.name_keys = NameKeys.parse(",".join(keys))


def test_a_job_of_before(app: ConventionsApp) -> None:
    """It was done under the old name, before there was a new one; and one of the new name before the change is over."""
    Job.of(Pay.delay(order=1, amount=100).id, app).wait(30)
    under(app, NEW, OLD)
    again = Pay.delay(order=1, amount=100)
    assert Job.of(again.id, app).wait(30).state == "duplicate"
    Job.of(Pay.delay(order=2, amount=100).id, app).wait(30)
    under(app, OLD, NEW)  # a sender that was not restarted yet
    assert Job.of(Pay.delay(order=2, amount=100).id, app).wait(30).state == "duplicate"
    conflict = wait_for_letter(app, Pay.delay(order=2, amount=999).id, 30)
    assert conflict.error == "IdempotencyConflict"
    assert done(app) == ["1 100", "2 100"]


def test_plain_names_of_before(app: ConventionsApp) -> None:
    """A task that becomes sealed: its jobs of before count."""
    app.name_keys = NameKeys({"plain": None})
    Job.of(Pay.delay(order=1, amount=100).id, app).wait(30)
    under(app, NEW, "plain")
    assert Job.of(Pay.delay(order=1, amount=100).id, app).wait(30).state == "duplicate"
    assert done(app) == ["1 100"]


@pytest.mark.parametrize("task", [Pay, Twice])
def test_both_at_once(app: ConventionsApp, task: Any) -> None:
    """Messages of one job under both names, which two processes take at the same time; also where the first try fails."""
    sent = []
    for order in range(TURNS):
        for keys in ((OLD, NEW), (NEW, OLD)) if order % 2 else ((NEW, OLD), (OLD, NEW)):
            under(app, *keys)
            sent.append(task.delay(order=order, amount=100).id)
    states = [Job.of(one, app).wait(60).state for one in sent]
    assert sorted(states) == ["duplicate"] * TURNS + ["succeeded"] * TURNS
    assert done(app) == sorted(f"{order} 100" for order in range(TURNS))


def test_a_letter_of_before(app: ConventionsApp) -> None:
    """It is sent again under both names: what was done meanwhile under the new one is not done again."""
    under(app, OLD, NEW)
    dead = [Broken.delay(order=order, amount=100) for order in (1, 2)]
    wait_until(lambda: len(letters(app)) == 2, 30)
    app.store.redis.set(app.store.key("mended"), 1)
    under(app, NEW, OLD)
    other = Broken.delay(order=1, amount=100)
    Job.of(other.id, app).wait(30)
    assert redrive(app, dead[0].id, "ann")
    assert redrive(app, dead[1].id, "ann")
    wait_until(lambda: done(app) == ["1 100", "2 100"], 30)
    wait_until_empty(app)
    assert done(app) == ["1 100", "2 100"]


def lose_claims(app: ConventionsApp) -> None:
    """What Redis remembers of finished jobs is gone."""
    for kind in ("claim:", "same_claim:"):
        for name in app.claims.store.redis.scan_iter(f"{app.claims.store.key(kind)}*", count=10_000):
            app.claims.store.redis.delete(name)


@pytest.mark.parametrize("first", [(OLD, NEW), (NEW, OLD)], ids=["first step", "second step"])
def test_the_record_of_an_effect(app: ConventionsApp, first: tuple[str, str]) -> None:
    """It is found under either name, with its result, also where Redis has lost the claims."""
    under(app, *first)
    assert Commits.delay(order=1, amount=100).get(timeout=30) == "new"
    for keys in ((OLD, NEW), (NEW, OLD), (NEW,), (OLD,)):
        lose_claims(app)
        under(app, *keys)
        assert Commits.delay(order=1, amount=100).get(timeout=30) == "1 100 of before", keys
    assert done(app) == ["1 100"]
