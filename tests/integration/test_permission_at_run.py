"""Permission is asked when a job runs, on every way that leads to its effect: without it there is one dead letter, one row in the audit, and no effect (R20)."""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, signature
from celery.exceptions import TimeoutError as TooLate

from conventions import BatchTask, ImmediateTask, Job, PermissionDenied, RetryPolicy, acting_as
from conventions.app import ConventionsApp
from conventions.broker.codec import in_base64, message_of
from conventions.broker.header_names import SIGNATURE
from conventions.broker.redis_broker import Publication
from conventions.core.named_keys import new_key
from conventions.dead_letters.edit import edit
from conventions.dead_letters.resend import redrive
from conventions.permission import roles
from conventions.records.denials import ACTION
from conventions.sending.send import checked_send
from conventions.storage.tables import AuditRow, ExecutionRow
from tests.broker_set_ups import Brokers
from tests.recorded import contents
from tests.support import wait_until
from tests.workers import Installation, acting_through, forget, letters, wait_for_letter, wait_until_empty

ONCE = RetryPolicy(attempts=1, network_attempts=1)


class Unreadable(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Listed:
    """An authorizer whose list is in Redis; it counts its questions, and fails while it is told to."""

    looks_at_arguments = False

    def __init__(self, app: ConventionsApp) -> None:
        self._store, self._made_in = app.store, os.getpid()

    def allows(self, actor: str, permission: str, task: str, arguments: Mapping[str, Any]) -> bool:
        """Whether the list has it."""
        del task, arguments
        redis: Any = self._store.redis
        redis.incr(self._store.key("asked"))
        redis.sadd(self._store.key("processes"), f"{self._made_in} {os.getpid()}")
        match redis.get(self._store.key("broken")):
            case b"cancelled":
                raise asyncio.CancelledError
            case b"exit":
                raise SystemExit(3)
            case b"kill":
                redis.incr(self._store.key("killed"))
                os.kill(os.getpid(), signal.SIGKILL)
            case b"unreadable":
                raise Unreadable
            case bytes():
                raise ConnectionError("the list cannot be read")
        return bool(redis.sismember(self._store.key("may"), f"{actor} {permission}"))


class Noting(ImmediateTask, abstract=True):
    """A job that leaves a trace."""

    def note(self, what: object) -> None:
        """The effect."""
        self.app.store.redis.rpush(self.app.store.key("done"), f"{what} by {self.actor}")


class Read(Noting):
    """Read a report."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = ONCE
    ignore_result = False

    def run(self, report: int) -> int:
        self.note(report)
        return 10 * report


class Again(Noting):
    """Fail at first; when it is tried again, its actor may have lost the permission."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = RetryPolicy(attempts=3, first_wait=10, jitter=0)  # longer than an answer is kept

    def should_retry(self, error: Exception, attempts_made: int) -> bool:
        """It would, whatever it is."""
        return bool(error) and attempts_made < 4

    def run(self, report: int) -> None:
        if self.attempt == 1:
            raise ValueError("at first")
        self.note(report)


class Patient(Noting):
    """Tried again while nobody can answer."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = RetryPolicy(attempts=2, network_attempts=3, first_wait=0.2, jitter=0)

    def run(self, report: int) -> None:
        self.note(report)


class Outlasts(Patient):
    """The same, for as long as a test takes."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = RetryPolicy(attempts=2, network_attempts=20, first_wait=1, max_wait=1, jitter=0)


class Applies(Noting):
    """Run another job here, within this one."""

    idempotent_on = ("report",)

    def run(self, report: int) -> str:
        found: Any = Read.apply(kwargs={"report": report})
        return str(found.state)


class EditedApplies(Noting):
    """Fail until it is mended; then run and send others from here."""

    idempotent_on = ("report",)
    retry_policy = ONCE

    def run(self, report: int) -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError("broken")
        Read.apply(kwargs={"report": report})
        Fetch.apply(kwargs={"report": report + 1}, link=Read.s())


class Raises(Noting):
    """Raise an error of that name itself."""

    idempotent_on = ("report",)
    retry_policy = ONCE

    def run(self, report: int) -> None:
        raise PermissionDenied(f"{report} is not for you")


class Fetch(Noting):
    """A job that anybody may run."""

    idempotent_on = ("report",)

    def run(self, report: int) -> int:
        self.note(f"fetched {report}")
        return report


class Fragile(Noting):
    """Fail until it is mended; anybody may run it."""

    idempotent_on = ("report",)
    retry_policy = ONCE

    def run(self, report: int) -> None:
        if not self.app.store.redis.exists(self.app.store.key("mended")):
            raise ValueError("broken")
        self.note(report)


class Guarded(Fragile):
    """The same, and it requires a permission."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = ONCE


class Quiet(Noting):
    """Nobody keeps what it returns."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = ONCE

    def run(self, report: int) -> int:
        self.note(report)
        return 10 * report


class Hears(Noting):
    """It cannot be told of its death at first."""

    idempotent_on = ("report",)
    requires = "read"
    retry_policy = ONCE

    def on_dead(self, job: Any, error: BaseException) -> None:
        """Fail twice."""
        del error
        if self.app.store.redis.incr(self.app.store.key("heard", job.id)) <= 2:
            raise ConnectionError("not yet")

    def run(self, report: int) -> None:
        self.note(report)


class Sum(Noting):
    """The body of a chord."""

    not_idempotent = "it notes"
    requires = "read"
    retry_policy = ONCE

    def run(self, found: list[int]) -> None:
        self.note(f"sum {sum(found)}")


if os.environ.get("LATE") != "0":  # a worker of a release before does not know it

    class Late(Noting):
        """A job that anybody may run."""

        idempotent_on = ("report",)

        def run(self, report: int) -> int:
            self.note(f"late {report}")
            return report


class Foreign(Noting):
    """For programs that cannot sign."""

    idempotent_on = ("report",)
    queue_name = "legacy"
    requires = "read"

    def run(self, report: int) -> None:
        self.note(report)


class Year(BatchTask):
    """Read twelve reports; the permission goes away while they are cut."""

    idempotent_on = ("year",)
    requires = "read"
    retry_policy = ONCE
    chunk_size = 4

    def items(self, year: int) -> Iterable[int]:
        """Take the permission from whoever reads it."""
        self.app.store.redis.srem(self.app.store.key("may"), f"{self.actor} read")
        wait_until(self._is_forgotten, 20)
        yield from range(year, year + 12)

    def _is_forgotten(self) -> bool:
        try:
            self.app.permissions.check([self.actor], self.question({"year": 1}))
        except PermissionDenied:
            return True
        return False

    def process(self, chunk: list[int], year: int) -> None:
        self.app.store.redis.rpush(self.app.store.key("done"), f"{year} {len(chunk)}")


@pytest.fixture
def anywhere(brokers: Brokers, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application on each set-up, with a worker."""
    yield from running(brokers(), new_database(tmp_path), tmp_path)


@pytest.fixture
def app(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """The same on one Redis."""
    yield from running({"broker_url": valkey_url}, new_database(tmp_path), tmp_path)


def running(brokers: dict[str, Any], database: str, folder: Path, **more: Any) -> Iterator[ConventionsApp]:
    """Its application, with a worker."""
    settings = {"database_url": database, "message_keys": new_key("k"), "accept_unsigned": "legacy"}
    settings |= {"authorizer": f"{__name__}:Listed", "key_prefix": f"t{uuid4().hex[:8]}"} | brokers | more
    installation = Installation(folder, [__name__, "permission_function"], [Path(__file__).parent], **settings)
    with installation.application() as app, acting_through(app), installation.worker("--concurrency=2"):
        yield app
        forget(app.store)


def let(app: ConventionsApp, *actors: str) -> None:
    """Give them the permission."""
    app.store.redis.sadd(app.store.key("may"), *[f"{one} read" for one in actors])


def done(app: ConventionsApp) -> list[str]:
    """The effects."""
    found: Any = app.store.redis.lrange(app.store.key("done"), 0, -1)
    return [one.decode() for one in found]


def kinds(app: ConventionsApp, message_id: str) -> list[str]:
    """How its attempts ended, in their order."""
    rows = [row for row in contents(app.database, ExecutionRow) if row["message_id"] == message_id]
    return [row["kind"] for row in sorted(rows, key=lambda row: (row["generation"], row["attempt"], row["ended_at"]))]


def denied(app: ConventionsApp, message_id: str, text: str) -> None:
    """It has one dead letter that says why, and is counted in the audit, by a row of who lacks the permission."""
    letter = wait_for_letter(app, message_id, 30)
    assert (letter.error, text in letter.error_message) == ("PermissionDenied", True), letter.error_message
    assert letter.error_message in {row["reason"] for row in denials_of(app, letter.actor)}


def denials_of(app: ConventionsApp, actor: str) -> list[dict[str, Any]]:
    """The rows of who lacks a permission, the earlier first; equal denials of a minute are one."""
    rows = [row for row in contents(app.database, AuditRow) if (row["action"], row["actor"]) == (ACTION, actor)]
    return sorted(rows, key=lambda row: row["at"])


def made(app: ConventionsApp, id_: str) -> Publication:
    """A message of `Foreign` that is not sent yet."""
    task = app.tasks[Foreign.name]
    with acting_as("u-1"):
        accepted = checked_send(task, (), {"report": 1}, id_, {})
    assert accepted is not None
    found = app.templates.publication(task, accepted[0], id_, accepted[1], {})
    assert found is not None
    return found


def test_who_may_and_who_may_not(anywhere: ConventionsApp) -> None:
    """One has the effect; of the other there is no effect and no second attempt, neither as a job nor as a step after one."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        may = Read.delay(report=1)
    with acting_as("u-2"):
        may_not = Read.delay(report=2)
        step = chain(Fetch.si(report=3), Read.s())()
    assert may.get(timeout=30) == 10
    for sent in (may_not, step):
        denied(app, sent.id, f"{Read.name}: u-2 may not run it: it requires read")
        with pytest.raises(PermissionDenied, match="u-2 may not run it"):
            sent.get(timeout=10)
        assert kinds(app, sent.id) == ["dead"]
    assert sorted(done(app)) == ["1 by u-1", "fetched 3 by u-2"]


def test_a_duplicate_gets_no_result(anywhere: ConventionsApp) -> None:
    """Who may not run a job is not told what it has returned to somebody else, and takes its key from nobody."""
    app = anywhere
    let(app, "u-1", "u-3")
    for actor, result in (("u-1", 70), ("u-3", 70)):
        with acting_as(actor):
            assert Read.delay(report=7).get(timeout=30) == result
    with acting_as("u-2"):
        duplicate, first = Read.delay(report=7), Read.delay(report=8)
    for sent in (duplicate, first):
        denied(app, sent.id, "u-2 may not run it")
        with pytest.raises(PermissionDenied):
            sent.get(timeout=10)
    with acting_as("u-1"):
        assert Read.delay(report=8).get(timeout=30) == 80, "a denial does not use its key up"
    assert done(app) == ["7 by u-1", "8 by u-1"]


def test_who_sends_a_letter_again_needs_it_too(anywhere: ConventionsApp) -> None:
    """Its actor, who has edited it last, and who redrives it."""
    app = anywhere
    let(app, "u-1", "ann")
    with acting_as("u-1"):
        sent = Guarded.delay(report=1)
    assert wait_for_letter(app, sent.id).error == "ValueError"
    app.store.redis.set(app.store.key("mended"), 1)
    ways = [(None, "bob"), ("bob", "ann"), (None, "ann"), ("ann", "bob")]
    for number, (editor, by) in enumerate(ways, 1):
        if editor is not None:
            edit(app, sent.id, {"report": 100 + number}, editor)
        assert redrive(app, sent.id, by)
        (letter,) = wait_until(lambda number=number: [one for one in letters(app) if one.generation == number], 30)  # type: ignore[misc]  # a value of this turn
        assert (letter.error, "bob may not run it" in letter.error_message) == ("PermissionDenied", True)
    assert done(app) == []
    assert redrive(app, sent.id, "ann")
    wait_until(lambda: done(app) == ["104 by u-1"], 30)
    rows = denials_of(app, "bob")
    assert (rows[0]["after"]["generation"], sum(row["after"]["count"] for row in rows)) == (1, 4)
    assert {(row["actor"], row["after"]["actor"]) for row in rows} == {("bob", "u-1")}, "it is found by who lacks it"


def test_what_an_edited_job_sends_was_edited_too(app: ConventionsApp) -> None:
    """The step after it may do what its arguments say, so whoever has edited these needs the permission of the step; who sends it again need not."""
    let(app, "u-1")
    with acting_as("u-1"):
        first, second = (Fragile.apply_async(kwargs={"report": one}, link=Read.si(report=one + 10)) for one in (1, 2))
    for sent in (first, second):
        wait_for_letter(app, sent.id)
    app.store.redis.set(app.store.key("mended"), 1)
    edit(app, first.id, {"report": 3}, "bob")
    assert redrive(app, first.id, "ann")
    assert redrive(app, second.id, "ann")
    (letter,) = wait_until(lambda: letters(app, error="PermissionDenied"), 30)
    assert (letter.task, letter.arguments) == (Read.name, {"report": 11})
    assert "bob may not run it" in letter.error_message
    wait_until(lambda: sorted(done(app)) == ["12 by u-1", "2 by u-1", "3 by u-1"], 30)


def test_what_an_edited_job_applies_was_edited_too(app: ConventionsApp) -> None:
    """A job that it runs within itself, and what follows such a one."""
    let(app, "u-1")
    with acting_as("u-1"):
        first = EditedApplies.delay(report=1)
    wait_for_letter(app, first.id)
    app.store.redis.set(app.store.key("mended"), 1)
    edit(app, first.id, {"report": 50}, "bob")
    assert redrive(app, first.id, "ann")
    (letter,) = wait_until(lambda: letters(app, error="PermissionDenied"), 30)
    assert (letter.task, letter.arguments["report"]) == (Read.name, 51)
    assert "bob may not run it" in letter.error_message
    assert done(app) == ["fetched 51 by u-1"]


def test_a_function_after_an_edited_job_passes_it_on(app: ConventionsApp) -> None:
    """What it sends, and what follows it, was edited too."""
    let(app, "u-1")
    with acting_as("u-1"):
        first = Fragile.apply_async(
            kwargs={"report": 1}, link=signature("passing", args=(5,), immutable=True, app=app) | Read.s()
        )
    wait_for_letter(app, first.id)
    app.store.redis.set(app.store.key("mended"), 1)
    edit(app, first.id, {"report": 3}, "bob")
    assert redrive(app, first.id, "ann")
    found = wait_until(lambda: len(letters(app)) == 2 and letters(app), 30)
    assert {(letter.error, letter.task, letter.arguments["report"]) for letter in found} == {
        ("PermissionDenied", Read.name, 5), ("PermissionDenied", Read.name, 50),
    }  # fmt: skip
    assert all("bob may not run it" in letter.error_message for letter in found)
    assert done(app) == ["3 by u-1"]


def test_a_role_that_is_taken_away_between_two_attempts(app: ConventionsApp) -> None:
    """The second one is denied, and no third one follows, whatever `should_retry` says."""
    let(app, "u-1")
    with acting_as("u-1"):
        sent = Again.delay(report=1)
    wait_until(lambda: app.broker.sizes("immediate").delayed == 1, 30)  # it is in SQL later
    app.store.redis.delete(app.store.key("may"))
    denied(app, sent.id, "u-1 may not run it")
    assert kinds(app, sent.id) == ["retried", "dead"]
    assert done(app) == []


def test_a_role_that_is_taken_away_from_a_batch(app: ConventionsApp) -> None:
    """Each chunk has its letter, and so has the finish; nothing of it is done."""
    let(app, "u-1")
    with acting_as("u-1"):
        Year.delay(year=2000)
    found = wait_until(lambda: len(letters(app)) == 4 and letters(app), 60)
    assert {letter.error for letter in found} == {"PermissionDenied"}
    assert sorted(str(letter.task).rpartition(".")[2] for letter in found) == ["chunk", "chunk", "chunk", "finish"]
    assert all(f"{Year.name}: u-1 may not run it" in letter.error_message for letter in found)
    assert done(app) == []


def test_many_jobs_ask_a_few_times(app: ConventionsApp) -> None:
    """Of two hundred in groups, those of one actor run and those of the other do not; the list is asked once for each actor and process, in 5 seconds."""
    let(app, "u-1")
    for actor in ("u-1", "u-2"):
        with acting_as(actor):
            Patient.enqueue_many([{"report": number + 1000 * (actor == "u-2")} for number in range(100)])
    wait_until(lambda: len(done(app)) == 100 and len(letters(app)) == 100, 60)
    assert {one.rpartition(" ")[2] for one in done(app)} == {"u-1"}
    assert {(letter.actor, letter.error) for letter in letters(app)} == {("u-2", "PermissionDenied")}
    asked: Any = app.store.redis.get(app.store.key("asked"))
    assert int(asked) <= 40, "two actors in two processes, once in 5 seconds, on a machine that may be slow"


def test_nobody_can_say(app: ConventionsApp) -> None:
    """The job is tried again, as after any outage; in the end it is denied, with the reason, and a redrive may do it later."""
    let(app, "u-1", "ann")
    app.store.redis.set(app.store.key("broken"), 1)
    with acting_as("u-1"):
        lost, saved = Patient.delay(report=1), Patient.apply_async(kwargs={"report": 2}, countdown=0)
    denied(
        app,
        lost.id,
        "nobody can say whether u-1 may run it, which requires read: ConnectionError: the list cannot be read",
    )
    denied(app, saved.id, "nobody can say")
    assert kinds(app, lost.id) == ["retried", "retried", "dead"]
    app.store.redis.delete(app.store.key("broken"))
    assert redrive(app, lost.id, "ann")
    wait_until(lambda: done(app) == ["1 by u-1"], 30)


def test_nobody_can_say_for_a_moment(app: ConventionsApp) -> None:
    """An outage that ends is no denial."""
    let(app, "u-1")
    app.store.redis.set(app.store.key("broken"), 1)
    with acting_as("u-1"):
        sent = Outlasts.delay(report=1)
    wait_until(lambda: "retried" in kinds(app, sent.id), 30)
    app.store.redis.delete(app.store.key("broken"))
    wait_until(lambda: done(app) == ["1 by u-1"], 30)
    assert letters(app) == []


def test_what_nobody_has_signed_has_no_permission(app: ConventionsApp) -> None:
    """Whatever it says of itself, and whatever the list says of `unsigned`."""
    let(app, "unsigned", "u-1")
    publication = made(app, "m-1")
    message = json.loads(publication.payload)
    del message["headers"][SIGNATURE]
    app.broker.publish([publication._replace(payload=json.dumps(message))])
    (letter,) = wait_until(lambda: letters(app), 30)
    assert (letter.actor, letter.error) == ("unsigned", "PermissionDenied")
    assert "nobody has signed the message" in letter.error_message
    assert done(app) == []


def test_an_id_that_somebody_else_has_used(anywhere: ConventionsApp) -> None:
    """A sender chooses the id of a message, so a job that was done under it is no reason to tell anybody its result."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        first = Read.delay(report=7)
        assert first.get(timeout=30) == 70
    with acting_as("u-2"):
        Read.apply_async(kwargs={"report": 7}, task_id=first.id, link=Fetch.s())
    denied(app, first.id, "u-2 may not run it")
    assert done(app) == ["7 by u-1"]


def test_a_key_that_somebody_else_has_used(app: ConventionsApp) -> None:
    """Not even that it was used is said to who may not run the job."""
    let(app, "u-1")
    with acting_as("u-1"):
        assert Read.apply_async(kwargs={"report": 7}, idempotency_key="k").get(timeout=30) == 70
    with acting_as("u-2"):
        denied(app, Read.apply_async(kwargs={"report": 8}, idempotency_key="k").id, "u-2 may not run it")
    with acting_as("u-1"):
        conflict = Read.apply_async(kwargs={"report": 8}, idempotency_key="k")
    assert wait_for_letter(app, conflict.id, 30).error == "IdempotencyConflict"


@pytest.mark.parametrize("odd", ["cancelled", "exit", "unreadable"])
def test_an_authorizer_that_raises_what_is_no_exception(app: ConventionsApp, odd: str) -> None:
    """Of a first job and of a duplicate: neither is lost, and no process ends for it."""
    let(app, "u-1")
    with acting_as("u-1"):
        assert Read.delay(report=1).get(timeout=30) == 10
    app.store.redis.set(app.store.key("broken"), odd)
    with acting_as("u-2"):
        sent = [Read.delay(report=report) for report in (1, 2)]
    for one in sent:
        denied(app, one.id, "nobody can say whether u-2 may run it, which requires read: ")
        with pytest.raises(PermissionDenied):
            one.get(timeout=10)
    assert done(app) == ["1 by u-1"]


def test_each_process_has_an_authorizer_of_its_own(app: ConventionsApp) -> None:
    """One that two processes share might read the answer to the question of the other one."""
    with acting_as("u-1"):
        sent = [Read.delay(report=report) for report in range(20)]
    for one in sent:
        wait_for_letter(app, one.id, 30)
    found: Any = app.store.redis.smembers(app.store.key("processes"))
    pairs = [one.split() for one in found]
    assert pairs
    assert all(made == asked for made, asked in pairs)


def test_a_job_that_runs_within_another_one(app: ConventionsApp) -> None:
    """`apply` runs it in the name of the job around it, and not as `system`."""
    let(app, "u-1", "system")
    for actor in ("u-1", "u-2"):
        with acting_as(actor):
            Applies.delay(report=len(done(app)) + 1)
        wait_until(lambda: len(contents(app.database, ExecutionRow)) == (1 if actor == "u-1" else 2), 30)  # noqa: B023  # it is called now
    assert done(app) == ["1 by u-1"]
    with acting_as("u-2"), pytest.raises(PermissionDenied, match="u-2 may not run it"):
        Read.apply(kwargs={"report": 5}, throw=True)


def test_an_error_of_that_name_that_a_job_raises(app: ConventionsApp) -> None:
    """It is a failure like any other: the audit has what was denied by the platform."""
    with acting_as("u-1"):
        sent = Raises.delay(report=1)
    assert wait_for_letter(app, sent.id, 30).error == "PermissionDenied"
    assert [row for row in contents(app.database, AuditRow) if row["action"] == ACTION] == []


@pytest.mark.parametrize("canvas", ["celery.starmap", "celery.map", "celery.chunks"])
def test_a_task_of_celery_that_nobody_has_signed(app: ConventionsApp, canvas: str) -> None:
    """It would run any task that it names, of any queue."""
    step: Any = {"task": Fetch.name, "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    body = [
        [],
        {"task": step, "it": [[1]], "n": 1},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]
    unsigned = message_of(
        in_base64(json.dumps(body).encode()), {"id": "m-1", "task": canvas, "lang": "py"}, {"delivery_info": {}}
    )
    app.broker.publish([made(app, "m-1")._replace(payload=json.dumps(unsigned))])
    (letter,) = wait_until(lambda: letters(app), 30)
    assert (letter.error, letter.actor) == ("SignatureRefused", "unsigned")
    assert f"{canvas} would run or send any task that it names" in letter.error_message
    assert done(app) == []


@pytest.mark.parametrize("canvas", ["starmap", "map"])
def test_a_task_of_celery_that_runs_another_one(app: ConventionsApp, canvas: str) -> None:
    """Its message may name any task, whoever has sent it; and it asks nobody, so the other one does not run."""
    let(app, "u-1")
    step = Read.s()
    with acting_as("u-1"):
        sent = app.send_task(f"celery.{canvas}", kwargs={"task": step, "it": [[1], [2]]})
        Read.delay(report=3)
    wait_until(lambda: done(app) == ["3 by u-1"], 30)
    with pytest.raises(PermissionDenied, match=f"celery.{canvas} would run it without asking"):
        sent.get(timeout=10)
    assert done(app) == ["3 by u-1"]


def test_roles_in_sql(valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> None:
    """The default: a role is given by a command, and taken away by one, and workers follow within some seconds."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "message_keys": new_key("k")}
    installation = Installation(tmp_path, [__name__], [Path(__file__).parent], **settings)
    with installation.application() as app, acting_through(app), installation.worker():
        for command in (["grant", "reader", "read"], ["assign", "u-1", "reader"], ["assign", "system", "reader"]):
            assert installation.run("permissions", *command, "--actor", "ann").returncode == 0
        for actor in ("u-1", "system"):
            with acting_as(actor):
                assert Read.delay(report=len(actor)).get(timeout=30) == 10 * len(actor)
        with acting_as("beat"):
            denied(app, Read.delay(report=9).id, "beat may not run it")
        ended = installation.run("permissions", "unassign", "u-1", "reader", "--reason", "has left", "--actor", "ann")
        assert "u-1 has not the role reader" in ended.stdout

        def is_denied() -> bool:
            with acting_as("u-1"):
                sent = Read.delay(report=int(uuid4().int % 10**9))
            try:
                sent.get(timeout=10)
            except PermissionDenied:
                return True
            except TooLate:
                pytest.fail("no answer")
            return False

        wait_until(is_denied, 20)
        with app.database.session() as session:
            assert [(one.name, one.permissions, one.actors) for one in roles.listing(session)] == [
                ("reader", ["read"], ["system"])
            ]
        rows = [row for row in contents(app.database, AuditRow) if row["action"].startswith("permissions ")]
        assert [
            (row["actor"], row["action"], row["target"], row["reason"])
            for row in sorted(rows, key=lambda row: row["at"])
        ] == [
            ("ann", "permissions grant", "reader", None),
            ("ann", "permissions assign", "u-1", None),
            ("ann", "permissions assign", "system", None),
            ("ann", "permissions unassign", "u-1", "has left"),
        ]
        forget(app.store)


def test_a_redrive_tells_nobody_what_another_job_has_returned(anywhere: ConventionsApp) -> None:
    """A duplicate that was denied is asked for once more, of who sent it and of who sends it again."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        Job.of(Quiet.delay(report=7).id, app).wait(30)
    with acting_as("u-2"):
        again = Quiet.delay(report=7)
    denied(app, again.id, "u-2 may not run it")
    assert redrive(app, again.id, "bob")
    wait_until(lambda: [one.generation for one in letters(app)] == [1], 30)
    found = Job.of(again.id, app)
    assert (found.state, found.result) == ("dead", None)
    assert kinds(app, again.id) == ["dead", "dead"]
    let(app, "u-2", "bob")

    def has_heard() -> bool:
        """Its worker remembers for some seconds that it was denied."""
        redrive(app, again.id, "bob")
        return Job.of(again.id, app).state == "duplicate"

    wait_until(has_heard, 40)
    assert done(app) == ["7 by u-1"]


def test_a_denial_that_is_told_twice(anywhere: ConventionsApp) -> None:
    """Of a duplicate, which has no claim to remember it: there is one letter, and one row in the audit."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        Job.of(Hears.delay(report=9).id, app).wait(30)
    with acting_as("u-2"):
        sent = Hears.delay(report=9)
    wait_until(lambda: app.store.redis.get(app.store.key("heard", sent.id)) == b"3", 30)
    wait_until(lambda: app.journal.length() == 0, 30)
    denied(app, sent.id, "u-2 may not run it")


def test_an_authorizer_that_ends_its_process(anywhere: ConventionsApp) -> None:
    """Also of a duplicate its starts are counted: it ends, and no others are held up."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        Job.of(Quiet.delay(report=1).id, app).wait(30)
    app.store.redis.set(app.store.key("broken"), "kill")
    with acting_as("u-2"):
        sent = Quiet.delay(report=1)
    letter = wait_for_letter(app, sent.id, 90)
    assert letter.error == "TooManyStarts"
    assert app.store.redis.get(app.store.key("killed")) == b"3"


def test_the_id_of_a_dead_job(anywhere: ConventionsApp) -> None:
    """Who may not run it is not told how it died."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        dead = Guarded.delay(report=1)
    assert wait_for_letter(app, dead.id).error == "ValueError"
    with acting_as("u-2"), pytest.raises(PermissionDenied, match="u-2 may not run it"):
        Guarded.apply_async(kwargs={"report": 1}, task_id=dead.id, ignore_result=False).get(timeout=30)
    assert [one.error for one in letters(app)] == ["ValueError"]


def test_a_job_that_is_done_comes_again(anywhere: ConventionsApp) -> None:
    """Its role is gone meanwhile, nothing follows it, and nobody waits for it: it stays done."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-1"):
        sent = Quiet.delay(report=1)
        Job.of(sent.id, app).wait(30)
        app.store.redis.delete(app.store.key("may"))
        numbers = itertools.count(100)

        def is_forgotten() -> bool:
            """Its worker remembers for some seconds that it was allowed."""
            probe = Quiet.delay(report=next(numbers))
            return Job.of(probe.id, app).wait(30).state == "dead"

        wait_until(is_forgotten, 30)
        Quiet.apply_async(kwargs={"report": 1}, task_id=sent.id)
        Fetch.delay(report=2)
    wait_until(lambda: done(app)[-1] == "fetched 2 by u-1", 30)
    wait_until_empty(app)
    wait_until(lambda: app.journal.length() == 0, 30)
    assert kinds(app, sent.id) == ["succeeded"]
    assert sent.id not in [one.id for one in letters(app)]


def test_the_body_of_a_chord_is_sent_by_whoever_sends_it(anywhere: ConventionsApp) -> None:
    """And not by the actor of the part that ends last."""
    app = anywhere
    let(app, "u-1")
    with acting_as("u-2"):
        parts = [Fetch.s(report=1), Fetch.s(report=2).set(actor="u-1", countdown=2)]
        body = chord(parts, Sum.s(), app=app)()
    denied(app, body.id, "u-2 may not run it")
    assert done(app) == ["fetched 1 by u-2", "fetched 2 by u-1"]


def test_the_body_of_a_chord_whose_parts_were_edited(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """It gets what came of the edits, so each editor needs the permission, not the last one alone."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "unknown_task_wait": 1}
    settings |= {"authorizer": f"{__name__}:Listed", "key_prefix": f"t{uuid4().hex[:8]}"}
    installation = Installation(tmp_path, [__name__, "permission_function"], [Path(__file__).parent], **settings)
    with installation.application() as app, acting_through(app):
        let(app, "u-1", "ann")
        with acting_as("u-1"):
            body = chord([Late.s(report=1), Late.s(report=2), Fetch.s(report=3)], Sum.s(), app=app)()
        with installation.worker(LATE="0"):
            found = wait_until(lambda: len(letters(app)) == 2 and letters(app), 60)
        for letter, editor in zip(found, ("bob", "ann"), strict=True):
            edit(app, letter.id, {"report": letter.arguments["report"] + 10}, editor)
        with installation.worker("--concurrency=1"):
            for letter in found:
                assert redrive(app, letter.id, "ann")
            letter = wait_for_letter(app, body.id, 30)
        assert (letter.error, "bob may not run it" in letter.error_message) == ("PermissionDenied", True)
        rows = [row for row in contents(app.database, AuditRow) if row["action"] == ACTION]
        assert [(row["actor"], row["target"]) for row in rows] == [("bob", body.id)]
        assert not [one for one in done(app) if one.startswith("sum")]
        forget(app.store)
