"""A limit that passes, or a lease that is over, while a job is recorded or keeps its process to itself repeats nothing."""

from collections import Counter
from collections.abc import Sequence

import pytest

from conventions.app import ConventionsApp
from tests.crash import settling_tasks
from tests.crash.chaos import pause
from tests.crash.server import Server
from tests.crash.settling_tasks import HARD, SOFT, Alone, End, Endless, Fail, KeepGil, Overtime, Then, Together
from tests.crash.tempo import BRISK, QUICK, Tempo
from tests.integration.lane_fixtures import kinds
from tests.support import at_most, patient, wait_until
from tests.workers import Installation, letters, wait_for_letter, wait_until_empty

JOBS = 30
LASTING = Tempo(2 * HARD)  # no lease is over when the server is back


@pytest.fixture
def task_module() -> str:
    """The tasks of these tests."""
    return settling_tasks.__name__


def lines(installation: Installation, name: str) -> Counter[int]:
    """What jobs have written."""
    path = installation.folder / name
    return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()


def ended(app: ConventionsApp, message_id: str) -> list[str]:
    """How the attempts of a message have ended, once everything is recorded."""
    wait_until(lambda: app.journal.length() == 0, 20, "everything is recorded")
    return kinds(app)[message_id]


def outage(installation: Installation, server: Server, numbers: Sequence[int]) -> None:
    """The server is away for longer than both limits, from when these jobs run until they have long had their effect."""
    wait_until(lambda: lines(installation, "began").keys() >= {*numbers}, 20, "they have begun")
    server.kill()
    (installation.folder / "down").touch()
    wait_until(lambda: lines(installation, "effects").keys() >= {*numbers}, 20, "they have had their effect")
    pause(HARD + 2)
    server.start()


@pytest.mark.parametrize("task", [Alone, Fail])
def test_limits_that_pass_while_outcomes_are_recorded(
    installation: Installation, store_server: Server, task: type[Alone]
) -> None:
    """Both do, and no effect is repeated, but that of a job which fails."""
    installation.settings["redis_url"] = store_server.url
    LASTING.install(installation)
    with installation.application() as app, installation.worker("-c", "1") as worker:
        (sent,) = task.enqueue_many([{"number": 0}])
        outage(installation, store_server, [0])
        wait_until_empty(app, 60)
        assert f"Soft time limit ({SOFT}s) exceeded" in worker.output
        assert worker.process.poll() is None
        assert lines(installation, "effects")[0] == (2 if task is Fail else 1)
        assert ended(app, sent) == (["retried", "succeeded"] if task is Fail else ["succeeded"])
        assert letters(app, state=None) == []


@pytest.mark.parametrize("stands_still", [True, False])
def test_a_hard_limit_that_passes_while_the_store_is_away(
    installation: Installation, store_server: Server, stands_still: bool
) -> None:
    """The worker's loop goes on, and the death is recorded once the store answers: one letter, one start, and its errback.

    The log says once that it is tried again.
    """
    installation.settings["redis_url"] = store_server.url
    QUICK.install(installation)
    with installation.application() as app, installation.worker("-c", "2") as worker:
        sent = Endless.apply_async((7,), link_error=Then.si(8))
        wait_until(lambda: lines(installation, "began").keys() == {7}, 20, "it has begun")
        store_server.freeze() if stands_still else store_server.kill()
        worker.wait_for(f"dead letter not recorded yet: id={sent.id}", 20)
        with at_most(2):
            assert app.control.ping(timeout=patient(8), limit=1), "the loop answers"
        store_server.thaw() if stands_still else store_server.start()
        letter = wait_for_letter(app, sent.id)
        assert (letter.error, letter.attempts) == ("TimeLimitExceeded", 1)
        wait_until_empty(app, 60)
        assert (lines(installation, "began"), lines(installation, "effects")) == (Counter([7]), Counter([8]))
        assert ended(app, sent.id) == ["dead"]
        assert worker.output.count("the message is held, and it is tried again") == 1
        assert "the message comes again" not in worker.output


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("task", [Alone, Together])
def test_limits_that_have_passed_when_the_server_is_back(
    installation: Installation, app: ConventionsApp, server: Server, task: type[Together], pool: str
) -> None:
    """The worker sees them all at once, in the moment in which outcomes can be recorded again."""
    LASTING.install(installation)
    with installation.worker("--pool", pool, "-c", "4") as worker:
        if task is Together:
            task.enqueue_many({"number": number} for number in range(1000, 1300))  # they are known to be short
            wait_until_empty(app, 60)
        sent = task.enqueue_many({"number": number} for number in range(JOBS if task is Together else 4))
        outage(installation, server, range(4) if task is Alone else [0])
        wait_until_empty(app, 60)
        assert worker.process.poll() is None
        effects = lines(installation, "effects")
        assert {number: effects[number] for number in range(len(sent))} == dict.fromkeys(range(len(sent)), 1)
        assert [ended(app, one) for one in sent] == [["succeeded"]] * len(sent)
    assert letters(app, state=None) == []


def test_a_job_that_keeps_its_process_to_itself(installation: Installation, app: ConventionsApp) -> None:
    """For more than two leases: the main process renews it, nobody calls it hung, and it runs once."""
    BRISK.install(installation)
    with installation.worker("-c", "1") as worker, installation.worker("-c", "1"):
        sent = KeepGil.delay(12)
        wait_until_empty(app, 60)
        assert lines(installation, "began") == lines(installation, "effects") == Counter([12])
        assert ended(app, sent.id) == ["succeeded"]
        assert "hung" not in worker.output


def test_what_is_known_of_the_end_of_a_process(installation: Installation, app: ConventionsApp) -> None:
    """The dead letter says it."""
    QUICK.install(installation)
    with installation.worker("-c", "1"):
        late = Overtime.delay(1)
        by_signal, by_status = End.delay("signal"), End.delay("status")
        assert wait_for_letter(app, late.id).error == "SoftTimeLimitExceeded"
        assert "killed by signal 11 (SIGSEGV)" in wait_for_letter(app, by_signal.id, 60).error_message
        assert "ended with status 7" in wait_for_letter(app, by_status.id, 60).error_message


def test_a_limit_that_passes_while_what_follows_is_sent(installation: Installation, app: ConventionsApp) -> None:
    """The process is killed once it has had its time; what follows the job is sent all the same, and the job stays what it is."""
    QUICK.install(installation)
    module = installation.folder / "installed.py"
    # What the main process asks of its pages; the job's process goes on to try for as long as always.
    module.write_text(
        f"from conventions.idempotency import shared_memory\n\nshared_memory.SETTLE_FOR = 1\n{module.read_text()}"
    )
    (installation.folder / "down").touch()
    with installation.worker("-c", "1"):
        (installation.folder / "stuck").touch()
        sent = Alone.apply_async((7,), link=Then.si(8))
        wait_until(lambda: lines(installation, "effects")[8], 40, "what follows has run")
        wait_until_empty(app, 20)
        assert lines(installation, "effects") == Counter([7, 8])
        assert ended(app, sent.id) == ["succeeded"]
    assert letters(app, state=None) == []
