"""What goes wrong around a job, outside of its `run`: it ends once all the same, and what follows it is sent."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, TaskRevokedError

from conventions import acting_as
from conventions.app import ConventionsApp
from conventions.dead_letters.resend import redrive
from conventions.records import executions
from tests.integration import fault_tasks, killed_at_start
from tests.integration.fault_tasks import (
    After,
    Disconnected,
    Fails,
    Hangs,
    Number,
    Show,
    Started,
    Sum,
    Told,
    Twice,
    Who,
    Works,
)
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import patient, wait_until
from tests.workers import Installation, Worker, acting_through, letters, wait_for_letter, wait_until_empty


@pytest.fixture(scope="module")
def installed(valkey_url: str, new_database: Callable[[Path], str], tmp_path_factory: Any) -> Installation:
    """An application with these tasks."""
    folder = tmp_path_factory.mktemp("faults")
    database = new_database(folder)
    return Installation(folder, [fault_tasks.__name__], broker_url=valkey_url, database_url=database)


@pytest.fixture(scope="module")
def shared(installed: Installation) -> Iterator[ConventionsApp]:
    """It, in this process."""
    with installed.application() as app:
        yield app


@pytest.fixture(scope="module")
def workers(installed: Installation, shared: ConventionsApp) -> Iterator[list[Worker]]:  # it is closed after
    """Two, since what one gives back too early the other one runs."""
    with installed.workers(("-c", "2"), ("-c", "2")) as workers:
        yield workers


@pytest.fixture
def app(shared: ConventionsApp, workers: list[Worker]) -> Iterator[ConventionsApp]:
    """The application of the workers, which outlive each test."""
    with acting_through(shared):
        yield shared
        wait_until_empty(shared, 20)
    assert [worker.process.poll() for worker in workers] == [None, None]


NOT_SENT = "what follows it is not sent yet"


def notes(folder: Path) -> list[str]:
    """What the jobs of a test noted."""
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


def kinds(app: ConventionsApp, message_id: str) -> list[str]:
    """How the attempts of a message ended."""
    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    with app.database.session() as session:
        return [row.kind for row in executions.of_message(session, message_id)]


def test_a_job_at_its_hard_limit_starts_once(app: ConventionsApp, workers: list[Worker], tmp_path: Path) -> None:
    """Its letter is there before anybody else may have the message, however slow those are who hear of the failure."""
    sent = Hangs.apply_async((tmp_path,), link_error=After.s(folder=tmp_path))
    letter = wait_for_letter(app, sent.id)
    assert (letter.error, letter.attempts) == ("TimeLimitExceeded", 1)
    wait_until(lambda: "after a failure" in notes(tmp_path), description="the errback has run")
    wait_until_empty(app)
    assert notes(tmp_path) == ["ran", "after a failure"]
    assert kinds(app, sent.id) == ["dead"]
    assert "".join(worker.output for worker in workers).count(f"{sent.id}] received") == 1


def test_a_fault_before_the_job_runs_it_again(app: ConventionsApp, tmp_path: Path) -> None:
    """Celery takes it for a failure of the job and acknowledges; nobody has recorded an end, so it comes again."""
    (tmp_path / "hook fails").touch()
    sent = Works.delay(tmp_path)
    wait_until(lambda: notes(tmp_path) == ["ran"], description="it runs again")
    wait_until_empty(app)
    assert kinds(app, sent.id) == ["interrupted", "succeeded"]


@pytest.mark.parametrize("expires", [None, 5])
def test_what_follows_is_sent_after_a_death(app: ConventionsApp, tmp_path: Path, expires: int | None) -> None:
    """The process dies when the job has ended well and its callback is not sent, also when it is too late to begin."""
    (tmp_path / "armed").touch()
    sent = Works.apply_async((tmp_path, expires + 1 if expires else 0), expires=expires, link=After.s(folder=tmp_path))
    wait_until(lambda: "after a success" in notes(tmp_path), 40, "the callback has run")
    assert notes(tmp_path) == ["ran", "after a success"]
    wait_until_empty(app)
    assert kinds(app, sent.id) == ["succeeded"]


def test_an_errback_is_sent_after_a_death(app: ConventionsApp, tmp_path: Path) -> None:
    """The process dies when the letter is there and the errback is not sent."""
    (tmp_path / "armed").touch()
    sent = Fails.apply_async((tmp_path,), link_error=After.s(folder=tmp_path))
    wait_until(lambda: "after a failure" in notes(tmp_path), 20, "the errback has run")
    assert notes(tmp_path) == ["ran", "after a failure"]
    wait_until_empty(app)
    assert kinds(app, sent.id) == ["dead"]
    assert wait_for_letter(app, sent.id).error == "BusinessError"


def test_a_task_that_cannot_hear_of_its_death_is_told_again(app: ConventionsApp, tmp_path: Path) -> None:
    """As when Redis is away in the moment in which a batch must hear of a dead chunk."""
    (tmp_path / "armed").touch()
    (tmp_path / "armed again").touch()
    sent = Told.delay(tmp_path)
    wait_until(lambda: notes(tmp_path).count("told") == 3, description="it is told again")
    wait_until_empty(app)
    assert notes(tmp_path) == ["ran", "told", "told", "told"]
    assert kinds(app, sent.id) == ["dead"]


def test_a_second_transaction_is_a_fault(app: ConventionsApp, tmp_path: Path) -> None:
    """Its record says that all is done, so that the job would end as if it were."""
    sent = Twice.delay(tmp_path)
    letter = wait_for_letter(app, sent.id)
    assert (letter.error, letter.attempts) == ("TransactionRepeated", 1)
    assert "into one block" in letter.error_message
    assert notes(tmp_path) == ["transaction 0"]


@pytest.mark.parametrize("when", ["stored at the second try", "not stored in time"])
def test_a_result_that_cannot_be_stored_is_no_failure(app: ConventionsApp, tmp_path: Path, when: str) -> None:
    """It is tried again, and then the job comes again: Celery would tell the chord that its part has failed."""
    for file in ("go", when):
        (tmp_path / file).touch()
    result = chord([Number.s(tmp_path, 3), Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
    assert result.get(timeout=patient(30)) == 7
    assert [note for note in notes(tmp_path) if note.startswith("sum")] == ["sum 7"]
    assert [one.id for one in letters(app, state=None) if one.task == Number.name] == []


@pytest.fixture(params=["one Redis", "two Redis"])
def others(request: Any, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """These tasks, for a worker of the test's own, with the claims where the messages are, and elsewhere."""
    made = Installation(tmp_path, [fault_tasks.__name__], broker_url=valkey_url, database_url=new_database(tmp_path))
    if request.param == "two Redis":
        made.settings["redis_url"] = valkey_url.replace("db=0", "db=1")
    return made


@pytest.mark.parametrize("fault", ["start is not stored", "no memory for a start"])
def test_a_start_that_cannot_be_stored(others: Installation, tmp_path: Path, fault: str) -> None:
    """The job runs all the same, and nobody is told that it has failed, also where claims are in another Redis."""
    (tmp_path / fault).touch()
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        after = After.s(folder=tmp_path)
        sent = Started.apply_async((tmp_path,), link=after, link_error=after).id
        wait_until(lambda: "after a success" in notes(tmp_path), 20, "the callback has run")
        wait_until(lambda: kinds(app, sent) == ["succeeded"], 20, "its success is recorded")
        assert f"state STARTED not stored: id={sent}" in worker.output
        wait_until_empty(app)
        assert notes(tmp_path) == ["ran", "after a success"]


@pytest.mark.parametrize("ends", ["succeeded", "dead"])
def test_a_step_that_can_never_be_sent_is_a_dead_letter(others: Installation, tmp_path: Path, ends: str) -> None:
    """The job before it has ended, once; Celery would drop the step, or let the job come again without end."""
    (tmp_path / "steps cannot be sent").touch()
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        after = After.s(folder=tmp_path).set(task_id=uuid4().hex)
        send = (
            partial(Works.apply_async, link=after)
            if ends == "succeeded"
            else partial(Fails.apply_async, link_error=after)
        )
        sent = send((tmp_path,)).id
        letter = wait_for_letter(app, after.id)
        arguments = {"result": str(tmp_path) if ends == "succeeded" else sent, "folder": str(tmp_path)}
        assert (letter.task, letter.error, letter.arguments) == (After.name, "PayloadError", arguments)
        assert "this step" in letter.error_message
        wait_until_empty(app)
        assert (kinds(app, sent), notes(tmp_path)) == ([ends], ["ran"])


def test_a_step_that_can_never_be_sent_fails_nothing_but_itself(others: Installation, tmp_path: Path) -> None:
    """Its job has succeeded, so neither its errbacks nor its chord hear of a failure, and its other steps are sent."""
    for file in ("steps cannot be sent", "go"):
        (tmp_path / file).touch()
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        step, errback = After.s(folder=tmp_path).set(task_id=uuid4().hex), Sum.si([1], folder=tmp_path)
        part = Number.s(tmp_path, 3).set(link=[step, Sum.si([20], folder=tmp_path)], link_error=errback)
        result = chord([part, Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
        assert result.get(timeout=patient(30)) == 7
        wait_for_letter(app, step.id)
        wait_until_empty(app)
        assert sorted(one for one in notes(tmp_path) if one.startswith("sum")) == ["sum 20", "sum 7"]
        assert [one.task for one in letters(app, state=None)] == [After.name]


def test_those_who_wait_for_a_step_that_can_never_be_sent_hear_of_it(others: Installation, tmp_path: Path) -> None:
    """It fails like a job of its own: with its result, its errbacks, and the rest of its chain, which a redrive goes on with."""
    (tmp_path / "steps cannot be sent").touch()
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        step = After.s(folder=tmp_path).set(link_error=Sum.si([5], folder=tmp_path), ignore_result=False)
        result = chain(Works.s(tmp_path), step, Sum.si([7], folder=tmp_path)).apply_async()
        with pytest.raises(Exception, match="this step"):
            result.get(timeout=patient(30))
        assert result.parent.state == "FAILURE"
        wait_until(lambda: "sum 5" in notes(tmp_path), description="the errback has run")
        wait_until_empty(app)
        assert notes(tmp_path) == ["ran", "sum 5"]
        letter = wait_for_letter(app, result.parent.id)
        (tmp_path / "steps cannot be sent").unlink()
        assert redrive(app, letter.id, "ann")
        wait_until(lambda: "sum 7" in notes(tmp_path), description="the rest of the chain has run")
        assert notes(tmp_path) == ["ran", "sum 5", "after a success", "sum 7"]


def test_a_step_after_a_duplicate_that_can_never_be_sent(others: Installation, tmp_path: Path) -> None:
    """Another message has done the job; this one ends all the same, and its step is a dead letter."""
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        Works.delay(tmp_path)
        wait_until(lambda: notes(tmp_path) == ["ran"], description="it has run")
        (tmp_path / "steps cannot be sent").touch()
        step = After.s(folder=tmp_path).set(task_id=uuid4().hex)
        sent = Works.apply_async((tmp_path,), link=step)
        wait_for_letter(app, step.id)
        wait_until_empty(app)
        assert (kinds(app, sent.id), notes(tmp_path)) == (["duplicate"], ["ran"])


def _told(folder: Path) -> Any:
    """A job that tells somebody if it fails."""
    return Number.s(folder, 3).set(link_error=After.s(folder=folder))


STEPS: dict[str, Callable[[Path], Any]] = {
    "a callback": lambda folder: _told(folder).set(link=Sum.si([3], folder=folder)),
    "a chain": lambda folder: chain(_told(folder), Sum.si([3], folder=folder)),
    "a chord": lambda folder: chain(_told(folder), chord([Number.si(folder, 1)], Sum.s(folder=folder))),
    "a group": lambda folder: chain(_told(folder), group([Sum.si([3], folder=folder)])),
}


@pytest.fixture(params=["with the messages", "elsewhere"])
def small_broker(
    request: Any, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Iterator[Installation]:
    """These tasks, with messages in a server that a test may fill up, and the claims there, too, or elsewhere."""
    with small_server(tmp_path / "server") as url:
        made: dict[str, Any] = {"broker_url": url, "database_url": new_database(tmp_path), "broker_timeout": 1}
        if request.param == "elsewhere":
            made["redis_url"] = valkey_url
        yield Installation(tmp_path, [fault_tasks.__name__], **made)


@pytest.mark.parametrize("step", STEPS)
def test_steps_wait_for_a_broker_that_takes_nothing(small_broker: Installation, tmp_path: Path, step: str) -> None:
    """Its job has ended, and comes again until all is sent: a short outage makes no dead letter."""
    with small_broker.application() as app, acting_through(app), small_broker.worker("-c", "1") as worker:
        STEPS[step](tmp_path).apply_async()
        wait_until(lambda: notes(tmp_path) == ["began 3"], description="it runs")
        app.broker.store.redis.config_set("maxmemory", "1")
        (tmp_path / "go").touch()
        came = re.compile(rf"{Number.name}\[[^]]*\] received")
        wait_until(lambda: len(came.findall(worker.output)) > 1, 20, "it comes again")
        app.broker.store.redis.config_set("maxmemory", "0")
        wait_until(lambda: any(one.startswith("sum") for one in notes(tmp_path)), 30, "the step has run")
        wait_until_empty(app)
        assert letters(app, state=None) == []
        ran = [one for one in notes(tmp_path) if not one.startswith("began")]
        assert ran == [f"sum {1 if 'chord' in step else 3}"]


def test_a_step_that_waits_holds_no_other_one(others: Installation, tmp_path: Path) -> None:
    """Only functions wait with it, since a function would run each time that the job comes again."""
    (tmp_path / "steps wait").touch()
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        function = fault_tasks.noted.si([1], str(tmp_path))
        steps = [function, After.s(folder=tmp_path), Sum.si([20], folder=tmp_path)]
        Works.apply_async((tmp_path,), link=steps)
        wait_until(lambda: worker.output.count(NOT_SENT) > 1, 20, "it has come again")
        wait_until(lambda: notes(tmp_path) == ["ran", "sum 20"], 20, "the other one has run, alone")
        (tmp_path / "steps wait").unlink()
        wait_until(lambda: len(notes(tmp_path)) == 4, 20, "the others have run")
        wait_until_empty(app)
        assert sorted(notes(tmp_path)) == ["after a success", "ran", "sum 20", "sum [1] 1"]


@pytest.mark.parametrize("terminate", [False, True])
def test_a_job_that_only_waits_for_its_steps_cannot_be_revoked(
    others: Installation, tmp_path: Path, terminate: bool
) -> None:
    """It has succeeded, and every id has one end."""
    (tmp_path / "steps wait").touch()
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        sent = Works.apply_async((tmp_path,), link=After.s(folder=tmp_path))
        worker.wait_for(NOT_SENT)
        app.control.revoke(sent.id, terminate=terminate)
        wait_until(lambda: sent.id in str(app.control.inspect().revoked()), 20, "the worker has heard that")
        (tmp_path / "steps wait").unlink()
        wait_until(lambda: "after a success" in notes(tmp_path), 20, "the step has run")
        wait_until_empty(app)
        assert kinds(app, sent.id)[0] == "succeeded"
        assert "revoked" not in kinds(app, sent.id)


BODIES: dict[str, Callable[[Path], Any]] = {
    "a job": lambda folder: Sum.s(folder=folder),
    "a group": lambda folder: group([Sum.s(folder=folder)]),
    "a chord": lambda folder: chord([Sum.s(folder=folder)], Sum.s(folder=folder)),
    "a function": lambda folder: fault_tasks.noted.s(str(folder)),
    "errbacks": lambda folder: Sum.s(folder=folder).set(link_error=Sum.si([7], folder=folder)),
}


@pytest.mark.parametrize("body", BODIES)
def test_what_follows_a_chord_waits_for_a_broker_that_takes_nothing(
    small_broker: Installation, tmp_path: Path, body: str
) -> None:
    """The last part comes again until it is sent: Celery would take it for a failure of the chord."""
    with small_broker.application() as app, acting_through(app), small_broker.worker("-c", "2") as worker:
        last = Fails.s(tmp_path) if body == "errbacks" else Number.s(tmp_path, 4)
        chord([Number.s(tmp_path, 3), last])(BODIES[body](tmp_path))
        wait_until(lambda: len(notes(tmp_path)) == 2, description="both run")
        app.broker.store.redis.config_set("maxmemory", "1")
        (tmp_path / "go").touch()
        worker.wait_for("not s", 20)  # sent, or stored
        app.broker.store.redis.config_set("maxmemory", "0")
        wait_until(lambda: any("7" in one for one in notes(tmp_path)), 60, "the body has run")
        wait_until_empty(app, 40)
        dead = [Fails.name] if body == "errbacks" else []
        wait_until(lambda: [one.task for one in letters(app, state=None)] == dead, 20, "only these are dead letters")
        ran = {"a function": ["sum [3, 4] 7"], "a chord": ["sum 7", "sum 7"]}.get(body, ["sum 7"])
        assert [one for one in notes(tmp_path)[2:] if "sum" in one] == ran


def test_a_death_before_the_body_of_a_chord_is_sent(others: Installation, tmp_path: Path) -> None:
    """The last part comes again at once, and still is the one that sends the body."""
    for file in ("armed", "go"):
        (tmp_path / file).touch()
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        chord([Number.s(tmp_path, 3), Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
        wait_until(lambda: "sum 7" in notes(tmp_path), 60, "the body has run")
        wait_until_empty(app)
        assert not (tmp_path / "armed").exists()
        assert sorted(notes(tmp_path)) == ["began 3", "began 4", "sum 7"]
        assert letters(app, state=None) == []
        assert NOT_SENT not in worker.output


def test_an_answer_to_the_last_part_of_a_chord_is_lost(others: Installation, tmp_path: Path) -> None:
    """Redis has given it the right to send the body, and it asks once more."""
    for file in ("go", "an answer is lost"):
        (tmp_path / file).touch()
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        chord([Number.s(tmp_path, 3), Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
        wait_until(lambda: "sum 7" in notes(tmp_path), 20, "the body has run")
        wait_until_empty(app)
        assert not (tmp_path / "an answer is lost").exists()
        assert sorted(notes(tmp_path)) == ["began 3", "began 4", "sum 7"]


def test_a_part_whose_own_error_is_one_of_a_server(app: ConventionsApp, tmp_path: Path) -> None:
    """The chord has failed: the error is that of the part, and no server is away."""
    last = tmp_path / "last"
    last.mkdir()
    (tmp_path / "go").touch()
    fails = Disconnected.si(tmp_path).set(task_id=uuid4().hex)
    result = chord([chain(Number.si(tmp_path, 3), group(Number.si(last, 4), fails))])(Sum.s(folder=tmp_path))
    wait_for_letter(app, fails.id)
    (last / "go").touch()
    wait_until(lambda: result.state == "FAILURE", 30, "the chord has failed")
    assert isinstance(result.result, ChordError)
    wait_until_empty(app)


def test_groups_within_a_header(app: ConventionsApp, tmp_path: Path) -> None:
    """The body gets what the parts have returned in the form of the header, also where a result is not kept: Celery waits for that."""
    (tmp_path / "go").touch()
    header = [chain(Number.si(tmp_path, 3), group(Works.si(tmp_path), Number.si(tmp_path, 4))), Number.si(tmp_path, 5)]
    chord(header)(Show.s(folder=tmp_path))
    wait_until(lambda: f"parts [['{tmp_path}', 4], 5]" in notes(tmp_path), 20, "the body has run")
    wait_until_empty(app)


LATE: dict[str, Callable[[Path, Any], list[Any]]] = {
    "within a group": lambda folder, late: [chain(Number.si(folder, 1), group(late, Number.si(folder, 3)))],
    "beside a group": lambda folder, late: [chain(Number.si(folder, 1), group(Number.si(folder, 2), Number.si(folder, 3))), late],
}  # fmt: skip


@pytest.mark.parametrize("where", LATE)
def test_a_late_part_of_a_header_with_groups(app: ConventionsApp, tmp_path: Path, where: str) -> None:
    """The chord has failed: the body gets no `None` in its place, and nobody waits for its result."""
    (tmp_path / "go").touch()
    late = Number.si(tmp_path, 9).set(countdown=1, expires=0.1)
    result = chord(LATE[where](tmp_path, late))(Show.s(folder=tmp_path))
    wait_until(lambda: result.state == "FAILURE", 30, "the chord has failed")
    assert "TaskRevokedError" in str(result.result)
    wait_until_empty(app)


def test_a_death_while_a_chord_hears_of_a_chain_that_failed(others: Installation, tmp_path: Path) -> None:
    """The failure of the last step is stored then, and the chord does not know of it."""
    for file in ("armed", "go"):
        (tmp_path / file).touch()
    with others.worker("-c", "1"), others.application() as app, acting_through(app):
        body = Sum.s(folder=tmp_path).set(link_error=[After.s(folder=tmp_path)])
        result = chord([Number.s(tmp_path, 1), chain(Disconnected.si(tmp_path), Number.si(tmp_path, 2))])(body)
        wait_until(lambda: result.state == "FAILURE", 30, "the chord has failed")
        wait_until(lambda: "after a failure" in notes(tmp_path), 30, "the errback has run")
        wait_until_empty(app)
        assert not (tmp_path / "armed").exists()
        assert sorted(notes(tmp_path)) == ["after a failure", "began 1", "ran"]


def _failing(folder: Path) -> list[Any]:
    return [Number.si(folder, 1), Fails.si(folder)]


# What fails within another chord, whose body gets nothing then.
OUTER: dict[str, Callable[[Path, Any], Any]] = {
    "a chord": lambda folder, body: chord([chord(_failing(folder), Show.s(folder=folder)), Number.si(folder, 2)], body),
    "a chord with a group": lambda folder, body: chord(
        [chord(_failing(folder), group(Show.s(folder=folder), Show.s(folder=folder))), Number.si(folder, 2)], body
    ),
    "a chord with a group of chains": lambda folder, body: chord(
        [
            chord(_failing(folder), group(chain(Show.s(folder=folder), Number.si(folder, 5)), Show.s(folder=folder))),
            Number.si(folder, 2),
        ],
        body,
    ),
    "a chord with a group of chords": lambda folder, body: chord(
        [
            chord(
                _failing(folder), group(chord([Show.s(folder=folder)], Show.s(folder=folder)), Show.s(folder=folder))
            ),
            Number.si(folder, 2),
        ],
        body,
    ),
    "a chain with a group": lambda folder, body: chord(
        [chain(Fails.si(folder), group(Number.si(folder, 2), Number.si(folder, 3))), Number.si(folder, 4)], body
    ),
    "a chain with a group of chains": lambda folder, body: chord(
        [chain(Fails.si(folder), group(chain(Number.si(folder, 2), Number.si(folder, 3)), Number.si(folder, 4)))], body
    ),
    "the header of a body": lambda folder, body: chord(_failing(folder), chord([Show.s(folder=folder)], body)),
}


@pytest.mark.parametrize("inner", OUTER)
def test_a_failure_within_a_chord_fails_the_chord_around_it(app: ConventionsApp, tmp_path: Path, inner: str) -> None:
    """Celery tells only the inner one."""
    (tmp_path / "go").touch()
    body = Show.s(folder=tmp_path).set(link_error=[After.s(folder=tmp_path)])
    result = OUTER[inner](tmp_path, body).apply_async()
    wait_until(lambda: result.state == "FAILURE", 20, "the outer chord has failed")
    wait_until(lambda: "after a failure" in notes(tmp_path), 20, "the errback has run")
    wait_until_empty(app)
    assert notes(tmp_path).count("after a failure") == 1
    assert not [note for note in notes(tmp_path) if note.startswith("parts")]


def test_parts_of_a_chord_that_end_together(app: ConventionsApp, workers: list[Worker], tmp_path: Path) -> None:
    """One of them sends the body, and no other one waits for it."""
    before = [worker.output.count(NOT_SENT) for worker in workers]  # other tests have the same workers
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "go").touch()
        result = chord([Number.s(folder, one) for one in range(30)])(Sum.s(folder=folder))
        assert result.get(timeout=patient(30)) == 435
        assert [note for note in notes(folder) if "sum" in note] == ["sum 435"]
    assert [worker.output.count(NOT_SENT) for worker in workers] == before


def test_a_single_errback_of_a_chord(app: ConventionsApp, tmp_path: Path) -> None:
    """Celery takes it for a list of its keys, and sends a message for each of them."""
    (tmp_path / "go").touch()
    body = Sum.s(folder=tmp_path).set(link_error=After.s(folder=tmp_path))
    chord([Number.s(tmp_path, 3), Fails.s(tmp_path)])(body)
    wait_until(lambda: "after a failure" in notes(tmp_path), 20, "the errback has run")
    wait_until_empty(app)
    assert sorted(notes(tmp_path)) == ["after a failure", "began 3", "ran"]


def test_errbacks_wait_for_no_other_one(others: Installation, tmp_path: Path) -> None:
    """Functions wait for all others; they may run more than once, since Celery tells of a failure again where its telling failed."""
    (tmp_path / "steps wait").touch()
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        function = fault_tasks.noted.si([1], str(tmp_path))
        Fails.apply_async((tmp_path,), link_error=[function, After.s(folder=tmp_path), Sum.si([20], folder=tmp_path)])
        wait_until(
            lambda: len(re.findall(rf"{Fails.name}\[[^]]*\] received", worker.output)) > 2, 20, "it has come again"
        )
        wait_until(lambda: notes(tmp_path) == ["ran", "sum 20"], 20, "the other one has run, alone")
        (tmp_path / "steps wait").unlink()
        wait_until(lambda: "sum [1] 1" in notes(tmp_path), 20, "the others have run")
        wait_until_empty(app)
        assert [one for one in sorted(notes(tmp_path)) if "[1]" not in one] == ["after a failure", "ran", "sum 20"]


def test_a_chord_whose_body_another_process_may_send(others: Installation, tmp_path: Path) -> None:
    """One of an older release, or a function: its last part waits until that process has sent it, or is dead for sure."""
    with others.worker("-c", "1") as worker, others.application() as app, acting_through(app):
        result = chord([Number.s(tmp_path, 3), Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
        right = app.backend.get_key_for_group(result.parent.id, ".c")
        app.backend.client.set(right, uuid4().hex)
        (tmp_path / "go").touch()
        worker.wait_for(NOT_SENT)
        app.backend.client.delete(right)
        assert result.get(timeout=patient(30)) == 7
        wait_until_empty(app)


def test_a_late_job_tells_those_who_wait_for_its_chain(app: ConventionsApp, tmp_path: Path) -> None:
    """Also where its chain is a part of a chord, which Celery would let wait for ever."""
    (tmp_path / "go").touch()
    late = chain(Number.s(tmp_path, 3).set(countdown=1, expires=0.1), Number.si(tmp_path, 4))
    result = chord([late, Number.s(tmp_path, 5)])(Sum.s(folder=tmp_path))
    with pytest.raises((ChordError, TaskRevokedError)):
        result.get(timeout=patient(30))
    alone = chain(Number.s(tmp_path, 6).set(countdown=1, expires=0.1), Number.si(tmp_path, 7)).apply_async()
    with pytest.raises(TaskRevokedError):
        alone.get(timeout=patient(30))


ENDS: dict[str, Callable[[ConventionsApp, Path], Any]] = {
    "at its hard limit": lambda _, folder: Hangs.apply_async((folder,), link_error=Who.s(folder=folder)),
    "part, hard limit": lambda _, folder: _chord(folder, Hangs.si(folder)),
    "part, too late": lambda _, folder: _chord(folder, Number.si(folder, 1).set(countdown=1, expires=0.1)),
    "part, revoked": lambda app, folder: _chord(folder, Number.si(folder, 1).set(task_id=_revoked(app))),
}


def _revoked(app: ConventionsApp) -> str:
    """An id that both workers know to be revoked."""
    chosen = uuid4().hex

    def known() -> bool:
        app.control.revoke(chosen)
        return str(app.control.inspect().revoked() or "").count(chosen) == 2

    wait_until(known, 30, "both workers have heard that")
    return chosen


def _chord(folder: Path, part: Any) -> Any:
    return chord([part, Number.si(folder, 2)])(Sum.s(folder=folder).set(link_error=Who.s(folder=folder)))


@pytest.mark.parametrize("end", ENDS)
def test_errbacks_have_the_actor_of_what_failed(app: ConventionsApp, tmp_path: Path, end: str) -> None:
    """Also where the main process of the worker sends them, in which no job runs."""
    (tmp_path / "go").touch()
    with acting_as("u-42"):
        ENDS[end](app, tmp_path)
    wait_until(lambda: "in the name of u-42" in notes(tmp_path), 30, "the errback has run")
    wait_until_empty(app)
    assert "in the name of system" not in notes(tmp_path)


def test_a_chord_lives_as_long_as_its_parts_may_be_due(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """Also where results live for a second only."""
    (tmp_path / "go").touch()
    installed = Installation(
        tmp_path, [fault_tasks.__name__], broker_url=valkey_url, database_url=new_database(tmp_path), result_expires="1"
    )
    with installed.worker("-c", "2") as worker, installed.application() as app, acting_through(app):
        assert app.conf.result_chord_expires > app.settings.max_delay.total_seconds()
        chord([Number.si(tmp_path, 1), Number.si(tmp_path, 2).set(countdown=3)])(Sum.s(folder=tmp_path))
        wait_until(lambda: "sum 3" in notes(tmp_path), 30, "the body has run")
        wait_until_empty(app)
        result = chord([Number.si(tmp_path, 3), Number.si(tmp_path, 4).set(countdown=3)])(Sum.s(folder=tmp_path))
        app.store.redis.delete(app.backend.get_key_for_group(result.parent.id, ".s"))
        worker.wait_for(f"id={result.parent.results[1].id}: its chord {result.parent.id} is not known")


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_without_processes_let_it_come_again_too(
    valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path, pool: str
) -> None:
    """A thread would keep the error to itself, and the message would stay with the worker; solo would call the job dead."""
    others = Installation(tmp_path, [fault_tasks.__name__], broker_url=valkey_url, database_url=new_database(tmp_path))
    for file in ("go", "not stored in time"):
        (tmp_path / file).touch()
    with others.worker("-P", pool, "-c", "1"), others.application() as app, acting_through(app):
        sent = Number.delay(tmp_path, 3)
        assert sent.get(timeout=patient(15)) == 3
        wait_until_empty(app)
        assert kinds(app, sent.id) == ["succeeded"]
        assert notes(tmp_path) == ["began 3"]


@contextmanager
def small_server(folder: Path) -> Iterator[str]:
    """A server that a test may fill up."""
    port = free_port()
    with process(folder, [f"port {port}", "appendonly yes"]):
        wait_for_server(folder, port)
        yield f"redis://127.0.0.1:{port}/0"


def test_results_that_do_not_fit_into_redis_wait(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """Both parts of a chord end while it is full: they are no dead letters, and the body runs when there is room."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        with installation.application() as app, installation.worker("-c", "2") as worker:
            parts = [Number.s(tmp_path, number) for number in (3, 4)]
            result = chord(parts)(Sum.s(folder=tmp_path))
            wait_until(lambda: len(notes(tmp_path)) == 2, description="both run")
            app.store.redis.config_set("maxmemory", "1")
            (tmp_path / "go").touch()
            worker.wait_for("OutOfMemory")
            wait_until(lambda: app.journal.length() == 0, description="both are recorded")
            app.store.redis.config_set("maxmemory", "0")
            assert result.get(timeout=patient(30)) == 7
            wait_until_empty(app)
            assert letters(app, state=None) == []
            assert worker.process.poll() is None
            assert notes(tmp_path)[2:] == ["sum 7"]


def test_a_hard_limit_while_results_do_not_fit_into_redis(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """The pool hears nothing of such an error: the message, and the place of its process, would stay taken."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        with installation.application() as app, installation.worker("-c", "1") as worker:
            sent = Hangs.apply_async((tmp_path,), link_error=After.s(folder=tmp_path))
            wait_until(lambda: notes(tmp_path) == ["ran"], description="it runs")
            app.store.redis.config_set("maxmemory", "1")
            worker.wait_for("not told of its dead letter yet")
            app.store.redis.config_set("maxmemory", "0")
            assert wait_for_letter(app, sent.id).error == "TimeLimitExceeded"
            Works.delay(tmp_path)
            wait_until(lambda: notes(tmp_path).count("ran") == 2, 20, "the next one runs")
            wait_until_empty(app)
            assert sorted(notes(tmp_path)) == ["after a failure", "ran", "ran"]
            assert kinds(app, sent.id) == ["dead"]


def test_a_message_that_is_late_ends_once_while_results_do_not_fit(
    tmp_path: Path, new_database: Callable[[Path], str]
) -> None:
    """Its end is recorded; that nobody can be told is no second one."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        with installation.application() as app:
            sent = Started.apply_async((tmp_path,), expires=0.1)
            app.store.redis.config_set("maxmemory", "1")
            with installation.worker("-c", "1") as worker:
                worker.wait_for(f"state REVOKED not stored: id={sent.id}")
                wait_until_empty(app, 20)
                app.store.redis.config_set("maxmemory", "0")
                assert (kinds(app, sent.id), letters(app, state=None)) == (["expired"], [])


def test_a_cancelled_message_tells_its_caller_once_there_is_room(
    tmp_path: Path, new_database: Callable[[Path], str]
) -> None:
    """Its end is recorded after that: else nobody would tell him any more."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        with installation.application() as app, acting_through(app):
            sent = Started.apply_async((tmp_path,), countdown=600)
            steps = chain(Started.si(tmp_path, 1).set(countdown=600), Started.si(tmp_path, 2)).apply_async()
            for message_id in (sent.id, steps.parent.id):
                Started.cancel(message_id)
            app.store.redis.config_set("maxmemory", "1")
            with installation.worker("-c", "1") as worker:
                for message_id in (sent.id, steps.parent.id):
                    worker.wait_for(f"what follows it is not sent yet: id={message_id}")
                app.store.redis.config_set("maxmemory", "0")
                for result in (sent, steps):
                    with pytest.raises(TaskRevokedError):
                        result.get(timeout=patient(30))
                wait_until_empty(app, 20)
                for message_id in (sent.id, steps.parent.id):
                    assert kinds(app, message_id) == ["cancelled"]
                assert letters(app, state=None) == []
                assert "Exception in thread" not in worker.output


def test_a_late_part_of_a_chord_tells_it_once_there_is_room(
    tmp_path: Path, new_database: Callable[[Path], str]
) -> None:
    """While the chord cannot hear of it, it has not ended; without it the chord would wait for ever."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        (tmp_path / "go").touch()
        with installation.application() as app, acting_through(app):
            late = Number.s(tmp_path, 3).set(expires=0.1, task_id=uuid4().hex)
            result = chord([late, Number.s(tmp_path, 4)])(Sum.s(folder=tmp_path))
            app.store.redis.config_set("maxmemory", "1")
            with installation.worker("-c", "1") as worker:
                worker.wait_for("its chord, or its chain, is not told of its end")
                app.store.redis.config_set("maxmemory", "0")
                with pytest.raises((ChordError, TaskRevokedError)):
                    result.get(timeout=patient(30))
                wait_until_empty(app, 20)
                assert (kinds(app, late.id), letters(app, state=None)) == (["expired"], [])


def test_a_process_that_is_killed_while_its_worker_starts(
    tmp_path: Path, valkey_url: str, new_database: Callable[[Path], str]
) -> None:
    """Another one takes its place; Celery would end the worker. The module kills it just before Celery looks."""
    installation = Installation(
        tmp_path, [killed_at_start.__name__], broker_url=valkey_url, database_url=new_database(tmp_path)
    )
    with installation.application() as app, installation.worker("--concurrency=1") as worker:
        killed_at_start.Answering.delay()
        wait_until_empty(app, 20)
        assert worker.process.poll() is None


def test_a_worker_that_starts_at_a_full_server(tmp_path: Path, new_database: Callable[[Path], str]) -> None:
    """It runs what waits there, which is what makes room; `check` says meanwhile that the server takes nothing."""
    with small_server(tmp_path / "server") as url:
        installation = Installation(
            tmp_path, [fault_tasks.__name__], broker_url=url, database_url=new_database(tmp_path)
        )
        with installation.application() as app:
            for number in range(5):
                Works.delay(tmp_path / str(number))
                (tmp_path / str(number)).mkdir()
            app.store.redis.config_set("maxmemory", "1")
            found = installation.run("check")
            assert found.returncode == 1
            for server in ("broker", "redis"):
                assert re.search(
                    rf"^{server} +False +Redis does not take this now: its memory is full", found.stdout, re.MULTILINE
                )
            with installation.worker("-c", "1") as worker:
                wait_until_empty(app, 20)
                assert worker.process.poll() is None
            assert [notes(tmp_path / str(number)) for number in range(5)] == [["ran"]] * 5
