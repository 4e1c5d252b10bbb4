"""Functions under an application of ours: plain Celery's outcomes, case by case, or those of a job where somebody has chosen so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import pytest

from tests.rabbitmq_servers import Rabbit
from tests.support import patient, wait_until
from tests.workers import Installation

pytestmark = [pytest.mark.processes]

PLAIN = """\
from celery import Celery

app = Celery("functions", broker={broker!r}, backend={broker!r})
app.conf.update(task_default_queue={queue!r}, broker_connection_retry_on_startup=True, include=["functions"])
"""
OURS = """\
from conventions import create_app

app = create_app("functions", packages=["functions"], schedule=None, functions={kind!r})
"""
TASKS = """
import os
import signal
import sys
import time

from celery import Task, group, shared_task
from celery.exceptions import Ignore, Reject


def note(what):
    with open("notes", "a") as notes:
        notes.write(f"{what}\\n")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def add(x, y=10):
    return x + y


@shared_task
def total(numbers):
    return sum(numbers)


@app.task
def fails():
    note("fails")
    raise ValueError("no")


@app.task(autoretry_for=(KeyError,), max_retries=2, default_retry_delay=0.1)
def tries():
    note("tries")
    raise KeyError("again")


@app.task(bind=True, max_retries=3)
def asks(self):
    note("asks")
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def dies():
    note("dies")
    die()


@app.task(acks_late=True)
def dies_late():
    note("dies_late")
    die()


@app.task(acks_late=True, reject_on_worker_lost=True)
def comes_again():
    note("comes_again")
    if not os.path.exists("died"):
        open("died", "w").close()
        die()
    return "done"


@app.task(time_limit=1)
def hangs():
    note("hangs")
    time.sleep(60)


@app.task
def exits():
    note("exits")
    sys.exit(3)


@app.task(ignore_result=True)
def ignored():
    note("ignored")
    return 1


@app.task(bind=True)
def replaced(self):
    raise self.replace(group(add.si(1, 1), add.si(2, 2)))


@app.task
def rejects():
    note("rejects")
    raise Reject("no", requeue=False)


@app.task(bind=True)
def says(self):
    self.update_state(state="SUCCESS", meta="half")
    raise Ignore()


@app.task
def heard(*given):
    note("heard")


class Base(Task):
    pass


@app.task(base=Base, acks_late=True)
def waits_late():
    note("waits_late")
    while not os.path.exists("go"):
        time.sleep(0.02)


@app.task
def waits():
    note("waits")
    while not os.path.exists("go"):
        time.sleep(0.02)
    note("has waited")
"""
JOBS = '''
import os
import signal
from datetime import timedelta

from celery import shared_task

from conventions import LongRunningTask, RetryPolicy

SOON = RetryPolicy(attempts=2, first_wait=timedelta(milliseconds=50))


def note(what):
    with open("notes", "a") as notes:
        notes.write(f"{what}\\n")


@app.job(queue="mail", idempotent_on=("number",), ignore_result=False)
def double(number: int) -> int:
    """Double a number."""
    note("double")
    return number * 2


@app.job(base=LongRunningTask, bind=True, not_idempotent="it notes only", ignore_result=False)
def comes_again(self, times: int) -> int:
    """Die at the first attempts."""
    note("comes_again")
    self.progress.advance()
    if open("notes").read().count("comes_again") < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return times


@app.task(retry_policy=SOON)
def fails(number: int) -> None:
    """Fail."""
    note("fails")
    raise ValueError("no")


@shared_task(ignore_result=False)
def half(number: int) -> float:
    """Take a half."""
    note("half")
    return number / 2
'''
SENDS_JOBS = """
import json

from functions import *

results = [double.delay(4), double.delay(number=4), comes_again.delay(2), half.delay(5)]
failed = fails.delay(1)
print(json.dumps({{"results": [one.get(timeout={timeout}) for one in results], "failed": failed.id}}))
"""
PROGRAM = '''
import json

from celery import chain, chord, group
from functions import *

TIMEOUT = {timeout}


def ended(sent):
    """How it ended, as those who sent it see it."""
    try:
        return sent.get(timeout=TIMEOUT)
    except Exception as error:
        return type(error).__name__


CASES = {{
    "result": lambda: add.delay(1, y=2),
    "default": lambda: add.delay(1),
    "by name": lambda: app.send_task("functions.add", (4, 4){queue}),
    "shared": lambda: total.delay([1, 2]),
    "failure": lambda: fails.delay(),
    "autoretry": lambda: tries.delay(),
    "retry": lambda: asks.delay(),
    "killed": lambda: dies.delay(),
    "killed late": lambda: dies_late.delay(),
    "killed, to come again": lambda: comes_again.delay(),
    "hard limit": lambda: hangs.delay(),
    "exit": lambda: exits.delay(),
    "rejected": lambda: rejects.delay(),
    "state": lambda: says.delay(),
    "expired": lambda: add.apply_async((1, 2), expires=-1),
    "delayed": lambda: add.apply_async((1, 2), countdown=0.2),
    "chain": lambda: chain(add.s(1, 2), add.s(3))(),
    "group": lambda: group(add.s(n, n) for n in range(3))(),
    "chord": lambda: chord([add.s(n, n) for n in range(3)])(total.s()),
    # Without its parent, since Celery raises the error of the one that it looks at first.
    "chord that fails": lambda: app.AsyncResult(chord([add.s(1, 1), fails.s()])(total.s()).id),
    "map": lambda: total.map([[1], [2, 3]]).apply_async(),
    "starmap": lambda: add.starmap([(1, 2), (3, 4)]).apply_async(),
    "chunks": lambda: add.chunks([(1, 2), (3, 4), (5, 6)], 2).group().apply_async(),
    "replaced": lambda: replaced.delay(),
    "linked": lambda: add.apply_async((1, 2), link=heard.s()),
    "errback": lambda: fails.apply_async(link_error=heard.s()),
}}
found = {{name: ended(CASES[name]()) for name in {names}}}
ignored.delay()
print(json.dumps(found))
'''
EXPECTED = {
    "result": 3,
    "default": 11,
    "by name": 8,
    "shared": 3,
    "failure": "ValueError",
    "autoretry": "KeyError",
    "retry": 2,
    "killed": "WorkerLostError",
    "killed late": "WorkerLostError",
    "killed, to come again": "done",
    "hard limit": "TimeLimitExceeded",
    "exit": "WorkerLostError",
    "rejected": "Reject",
    "state": "half",
    "expired": "TaskRevokedError",
    "delayed": 3,
    "chain": 6,
    "group": [0, 2, 4],
    "chord": 6,
    "chord that fails": "ChordError",
    "map": [1, 5],
    "starmap": [3, 7],
    "chunks": [[3, 7], [11]],
    "replaced": [2, 4],
    "linked": 3,
    "errback": "ValueError",
}
RUNS = {
    "fails": 3,
    "tries": 3,
    "asks": 3,
    "dies": 1,
    "dies_late": 1,
    "comes_again": 2,
    "hangs": 1,
    "exits": 1,
    "rejects": 1,
    "heard": 2,
    "ignored": 1,
}

Make: TypeAlias = Callable[..., Installation]


@pytest.fixture
def make(request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path) -> Make:
    """Makes an installation whose module `functions` has a plain application, or ours of this kind."""

    def make(kind: str, tasks: str = TASKS) -> Installation:
        broker = valkey_url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
        plain = PLAIN.format(broker=broker, queue=f"plain-{uuid4().hex[:8]}")
        head = plain if kind == "plain" else OURS.format(kind="celery" if kind == "rabbitmq" else kind)
        (tmp_path / "functions.py").write_text(head + tasks, encoding="utf-8")
        settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(tmp_path), "lease": 6}
        if kind == "rabbitmq":
            rabbit: Rabbit = request.getfixturevalue("rabbit")
            settings |= {"broker_url": rabbit.url_of(rabbit.add_host()), "redis_url": valkey_url}
        return Installation(tmp_path, ["functions"], **settings)

    return make


def printed(installation: Installation, program: str) -> Any:
    """The JSON that a program prints, which sends and waits."""
    return json.loads(installation.python(program))


def outcomes(installation: Installation, kind: str, names: list[str]) -> Any:
    """How these cases end."""
    queue = ", queue=app.conf.task_default_queue" if kind == "plain" else ""
    return printed(installation, PROGRAM.format(timeout=patient(10), queue=queue, names=names))


def send(installation: Installation, sends: str) -> None:
    """Send from a process of its own."""
    printed(installation, f"from functions import *\n{sends}\nprint(1)")


def dead(installation: Installation) -> Any:
    """Its dead letters."""
    printed = installation.run("dead-letters", "list", "--json", app="functions").stdout
    return json.loads(printed[printed.index("[") :])  # a line before it may say what is not recorded yet


def runs(folder: Path) -> dict[str, int]:
    """How often each function has begun."""
    lines = (folder / "notes").read_text().split() if (folder / "notes").exists() else []
    return {name: lines.count(name) for name in dict.fromkeys(lines)}


@pytest.mark.parametrize("kind", ["plain", "celery", "rabbitmq"])
def test_functions_end_as_in_plain_celery(make: Make, kind: str, tmp_path: Path) -> None:
    """Each case has one expected outcome, which Celery itself has, too."""
    installation = make(kind)
    with installation.worker("-c", "2", app="functions") as worker:
        found = outcomes(installation, kind, list(EXPECTED))
        assert found == EXPECTED, worker.output
        wait_until(lambda: runs(tmp_path) == RUNS, description=f"each ran as often as in Celery: {RUNS}")
        assert ("keep Celery's meaning" in worker.output) is (kind != "plain")
    if kind != "plain":
        assert dead(installation) == []


@pytest.mark.parametrize("kind", ["plain", "celery"])
def test_functions_in_threads(make: Make, kind: str) -> None:
    """The same, but for what needs a process."""
    names = ["result", "failure", "autoretry", "retry", "rejected", "expired", "chain", "chord"]
    installation = make(kind)
    with installation.worker("-c", "4", "-P", "threads", app="functions") as worker:
        assert outcomes(installation, kind, names) == {name: EXPECTED[name] for name in names}, worker.output


def test_a_function_whose_worker_is_killed_runs_once(make: Make, tmp_path: Path) -> None:
    """Its message was acknowledged before it ran; one that had not begun comes again."""
    installation = make("celery")
    with installation.worker("-c", "1", app="functions") as worker:
        send(installation, "waits.delay()")
        wait_until(lambda: runs(tmp_path) == {"waits": 1}, description="it runs")
        send(installation, "heard.delay()")  # which waits behind it, in this worker
        worker.wait_for("Task functions.heard")
        worker.kill()
    (tmp_path / "go").touch()
    with installation.worker("-c", "1", app="functions"):
        send(installation, "ignored.delay()")
        wait_until(lambda: set(runs(tmp_path)) == {"waits", "heard", "ignored"}, description="the others have run")
        assert runs(tmp_path) == {"waits": 1, "heard": 1, "ignored": 1}


def test_a_function_with_a_base_runs_once_where_its_worker_stops(make: Make, tmp_path: Path) -> None:
    """It ends before that, and does not go back."""
    installation = make("celery")
    with installation.worker("-c", "1", app="functions") as worker:
        send(installation, "waits_late.delay()")
        wait_until(lambda: runs(tmp_path) == {"waits_late": 1}, description="it runs")
        worker.process.terminate()
        wait_until(lambda: "Warm shutdown" in worker.output, 30, "it was told to stop")
        (tmp_path / "go").touch()
        assert worker.process.wait(patient(20)) == 0
    with installation.worker("-c", "1", app="functions"):
        send(installation, "ignored.delay()")
        wait_until(lambda: "ignored" in runs(tmp_path), description="the other one has run")
        assert runs(tmp_path) == {"waits_late": 1, "ignored": 1}


def test_jobs_of_functions_keep_the_conventions(make: Make, tmp_path: Path) -> None:
    """By `@app.job`, and by choice for all functions: once for each key, again after a kill, retried, dead in the end."""
    installation = make("conventions", JOBS)
    with installation.worker("-c", "2", app="functions") as worker:
        found = printed(installation, SENDS_JOBS.format(timeout=patient(20)))
        assert found["results"] == [8, 8, 2, 2.5], worker.output
        wait_until(lambda: runs(tmp_path).get("fails") == 2, description="it is tried again")
        (letter,) = wait_until(lambda: dead(installation), description="it is a dead letter")
        assert (letter["id"], letter["task"], letter["error"]) == (found["failed"], "functions.fails", "ValueError")
        assert runs(tmp_path) == {"double": 1, "comes_again": 2, "fails": 2, "half": 1}
        assert "keep Celery's meaning" not in worker.output
