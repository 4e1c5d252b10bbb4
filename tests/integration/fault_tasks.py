"""Jobs around which something goes wrong: before they run, between their outcome and what follows it, at their limit."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Signature, current_app, current_task, shared_task
from celery.signals import before_task_publish, task_failure, worker_init, worker_process_init
from celery.states import STARTED
from redis.exceptions import ConnectionError as RedisConnectionError

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask
from conventions.core.lease_timings import SETTLE_FOR
from conventions.jobs import result_backend


def note(folder: Path, what: str) -> None:
    """Append a line to the file of a test."""
    with (folder / "notes").open("a") as lines:
        lines.write(f"{what}\n")


def once(file: Path) -> bool:
    """Whether the file was there; it is not any more."""
    there = file.exists()
    file.unlink(missing_ok=True)
    return there


class Works(ImmediateTask):
    """Note that it ran, after so many seconds."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path, seconds: float = 0) -> str:
        time.sleep(seconds)
        note(folder, "ran")
        return str(folder)


class Number(ImmediateTask):
    """Wait for the file `go`, and return its number, which cannot be stored where a test asks for that."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, folder: Path, number: int) -> int:
        note(folder, f"began {number}")
        while not (folder / "go").exists():
            time.sleep(0.02)
        if once(folder / "stored at the second try"):
            refuse(self.backend, 1)
        elif once(folder / "not stored in time"):
            result_backend.STORE_FOR = 0
            refuse(self.backend, 2)  # nor that it was not
        else:
            result_backend.STORE_FOR = SETTLE_FOR
        return number


def refuse(backend: Any, times: int) -> None:
    """Let no result be stored by this process, so many times."""
    left = iter(range(times))

    def store_result(*args: Any, **options: Any) -> Any:
        for _ in left:
            raise ConnectionError("there is no room for it")
        del backend.store_result
        return backend.store_result(*args, **options)

    backend.store_result = store_result


class Started(Works):
    """The same; its result says that it has begun, which cannot be stored where a test asks for that."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    track_started = True


@worker_process_init.connect
def _refuse(**_: Any) -> None:
    """Let a process store no start, and send no step, where a test asks for that. A signal of jobs would be one that somebody listens to."""
    backend, send = current_app.backend, Signature.apply_async
    store = backend._store_result

    def store_result(task_id: str, result: Any, state: str, *args: Any, request: Any = None, **options: Any) -> Any:
        if state == STARTED:
            if once(Path(request.kwargs["folder"]) / "start is not stored"):
                raise ConnectionError("there is no room for it")
            if once(Path(request.kwargs["folder"]) / "no memory for a start"):
                raise MemoryError
        return store(task_id, result, state, *args, request=request, **options)

    def apply_async(step: Any, *args: Any, **options: Any) -> Any:
        if step.task == After.name and (Path(step.kwargs["folder"]) / "steps cannot be sent").exists():
            raise LookupError("this step")
        if step.task == After.name and (Path(step.kwargs["folder"]) / "steps wait").exists():
            raise ConnectionError("no server takes this step")
        return send(step, *args, **options)

    def read_response(self: Any, *args: Any, **options: Any) -> Any:
        answer = read(self, *args, **options)
        if (
            isinstance(answer, list)
            and answer[3:] == [1]  # a chord's, to the part that sends its body
            and once(Path(current_task.request.kwargs["folder"]) / "an answer is lost")
        ):
            self.disconnect()
            raise RedisConnectionError("the answer is lost")
        return answer

    connection = backend.client.connection_pool.connection_class
    read = connection.read_response
    connection.read_response = read_response
    backend._store_result = store_result
    Signature.apply_async = apply_async


class Sum(ImmediateTask):
    """Note the sum."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, numbers: list[int], folder: Path) -> int:
        note(folder, f"sum {sum(numbers)}")
        return sum(numbers)


class Show(ImmediateTask):
    """Note what the parts have returned."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, parts: list[Any], folder: Path) -> None:
        note(folder, f"parts {parts}")


@shared_task
def noted(numbers: list[int], folder: str) -> None:
    """Note the sum as a function."""
    note(Path(folder), f"sum {numbers} {sum(numbers)}")


class Fails(ImmediateTask):
    """Become a dead letter at once."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> None:
        note(folder, "ran")
        raise BusinessError("no")


class Away(BusinessError, RedisConnectionError):
    """A server of the job's own is away, and the job gives up at once."""


class Disconnected(Fails):
    """The same, with an error that might be one of the platform's servers."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False

    def run(self, folder: Path) -> None:
        note(folder, "ran")
        raise Away


class Told(Fails):
    """The same; hears of it, which fails two times."""

    idempotent_on = EVERY_ARGUMENT

    def on_dead(self, job: Any, error: Exception) -> None:  # noqa: ARG002  # the platform's signature
        """Note it."""
        folder = Path(job.payload["folder"])
        note(folder, "told")
        if once(folder / "armed") or once(folder / "armed again"):
            raise ConnectionError("whoever it wants to tell is away")


class Twice(ImmediateTask):
    """Use two transactions."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> None:
        for number in range(2):
            with self.transaction():
                note(folder, f"transaction {number}")


class Hangs(ImmediateTask):
    """Go on beyond every limit."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    soft_time_limit = 0.9
    time_limit = 1

    def run(self, folder: Path) -> None:
        note(folder, "ran")
        while True:
            try:
                time.sleep(60)
            except Exception:  # noqa: BLE001  # the soft limit
                continue


class After(ImmediateTask):
    """What follows a job, good or bad."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, result: str, folder: Path) -> None:
        note(folder, f"after {'a failure' if result != str(folder) else 'a success'}")


class Who(ImmediateTask):
    """An errback: note in whose name it runs."""

    not_idempotent = "a test"

    def run(self, failed: str, folder: Path) -> None:  # noqa: ARG002  # Celery names the message that failed
        note(folder, f"in the name of {self.actor}")


@before_task_publish.connect
def _die_once(sender: str | None = None, body: Any = None, **_: Any) -> None:
    """Die between the outcome of a job and what follows it, where a test asks for that."""
    if sender in (After.name, Sum.name) and once(Path(body[1]["folder"]) / "armed"):
        os.kill(os.getpid(), signal.SIGKILL)


@task_failure.connect
def _report_slowly(sender: Any = None, **_: Any) -> None:
    """As an error reporter does that sends over the network."""
    if sender is not None and sender.name == Hangs.name:
        time.sleep(0.5)


@worker_init.connect
def _hook(sender: Any = None, **_: Any) -> None:
    """A hook of Celery's that fails, which a declaration would refuse; here it stands for any fault outside of `run`."""

    def before_start(_: Any, __: str, ___: Any, kwargs: dict[str, Any]) -> None:
        if once(Path(kwargs["folder"]) / "hook fails"):
            raise RuntimeError("before the job")

    type(sender.app.tasks[Works.name]).before_start = before_start
