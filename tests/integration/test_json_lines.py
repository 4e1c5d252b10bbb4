"""`CONVENTIONS_LOG_FORMAT=json` in real processes: each line of a worker, beat and Flower is one JSON object."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.exceptions import Ignore

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from tests.support import wait_until
from tests.workers import Installation, Worker

logger = logging.getLogger("shop")


class Speaks(ImmediateTask):
    """Log a line, and fail if told to."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, name: str, fails: bool) -> None:
        logger.warning("hello %s", name, extra={"customer": name, "id": 5})
        if fails:
            raise BusinessError("the account is\nempty")


class Again(ImmediateTask):
    """Fail once."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(first_wait=0.1)

    def run(self, name: str) -> None:
        if self.attempt == 1:
            raise ConnectionError(f"{name} is away")


class Ignored(ImmediateTask):
    """Give itself up."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, name: str) -> None:
        raise Ignore(name)


@contextmanager
def running(installation: Installation, *command: str) -> Iterator[Worker]:
    """A command of ours, without Celery's banner."""
    # Celery warns of root before there is a log, and Python writes that.
    variables = {"CONVENTIONS_LOG_FORMAT": "json", "PYTHONWARNINGS": "ignore:You're running the worker with superuser"}
    started = Worker(installation, installation.celery("--quiet", *command), variables)
    try:
        yield started
    finally:
        started.kill()


def told(process: Worker) -> list[dict[str, Any]]:
    """Its lines; the last one only if it is whole."""
    return [json.loads(line) for line in process.output.splitlines(keepends=True) if line.endswith("\n")]


def line_of(process: Worker, message: str) -> dict[str, Any]:
    """The line with this message, as soon as it is there."""
    try:
        return wait_until(
            lambda: next((line for line in told(process) if message in line["message"]), None), 30, message
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{process.output}") from error


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker(module_installation: Installation, pool: str) -> None:
    """Lines of a job name it, whoever writes them; a failure has its parts; a success has no arguments."""
    with (
        module_installation.application(),
        running(module_installation, "worker", "--loglevel=INFO", f"--pool={pool}") as worker,
    ):
        line_of(worker, " ready.")
        done = Speaks.delay(name=f"ada-{pool}", fails=False).id
        dead = Speaks.delay(name=f"bob-{pool}", fails=True).id
        succeeded = line_of(worker, f"[{done}] succeeded in ")
        assert (succeeded["id"], succeeded["task"]) == (done, Speaks.name)
        assert (succeeded["event"], succeeded["actor"], succeeded["attempt"]) == ("succeeded", "system", 1)
        assert 0 < succeeded["runtime"] < 60
        assert "kwargs" not in succeeded
        for name, id_ in ((f"ada-{pool}", done), (f"bob-{pool}", dead)):
            said = line_of(worker, f"hello {name}")
            assert (said["id"], said["task"], said["customer"], said["logger"]) == (id_, Speaks.name, name, "shop")
            assert said["extra_id"] == 5
        failed = line_of(worker, "failed: id=")
        assert failed["actor"] == "system"
        assert 0 <= failed["runtime"] < 60
        parts = {
            name: failed[name] for name in ("event", "id", "task", "error", "error_message", "attempt", "next_step")
        }
        assert parts == {
            "event": "failed", "id": dead, "task": Speaks.name, "error": "BusinessError", "error_message": "the account is empty", "attempt": 1,
            "next_step": "dead letter",
        }  # fmt: skip


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_job_that_is_tried_again(module_installation: Installation, pool: str) -> None:
    """One line for each attempt, and none that cannot be written; a job that its own code gives up says so as in Celery."""
    with (
        module_installation.application(),
        running(module_installation, "worker", "--loglevel=INFO", f"--pool={pool}") as worker,
    ):
        line_of(worker, " ready.")
        again, gone = Again.delay(name=pool).id, Ignored.delay(name=pool).id
        line_of(worker, f"[{again}] succeeded in ")
        assert line_of(worker, f"[{gone}] ignored")["task"] == Ignored.name
        about = [
            line for line in told(worker) if line.get("id") == again and line["logger"] != "celery.worker.strategy"
        ]
        assert [(line["event"], line["attempt"]) for line in about] == [("failed", 1), ("succeeded", 2)]
        assert [line for line in told(worker) if "log_fault" in line] == []


def test_retries_as_text(module_installation: Installation) -> None:
    """Nothing that logging could not write."""
    with module_installation.application(), module_installation.worker("-c", "1") as worker:
        id_ = Again.delay(name="text").id
        worker.wait_for(f"[{id_}] succeeded in ")
        about = [line for line in worker.output.splitlines() if id_ in line and " received" not in line]
        assert [next(word for word in ("failed: ", "succeeded") if word in line) for line in about] == [
            "failed: ",
            "succeeded",
        ]
        assert "Logging error" not in worker.output


def test_beat_and_flower(module_installation: Installation) -> None:
    """The same form."""
    with running(module_installation, "beat", "--loglevel=INFO") as beat:
        assert line_of(beat, "beat: no schedule")["logger"] == "celery.beat"
    with running(module_installation, "flower", "--address=127.0.0.1", "--port=0") as flower:
        assert line_of(flower, "Connected to ")["level"] == "INFO"


def test_a_wrong_form_is_refused(module_installation: Installation) -> None:
    """With the two that there are."""
    refused = module_installation.run("worker", CONVENTIONS_LOG_FORMAT="logfmt")
    assert refused.returncode == 2
    assert "CONVENTIONS_LOG_FORMAT" in refused.stdout
    assert "'text' or 'json'" in refused.stdout
