"""Say of a listing that has found nothing which of the names that it was given are not known here: one may be mistyped."""

from collections.abc import Iterable

from conventions.app import ConventionsApp
from conventions.cli.base import say
from conventions.core.near_names import did_you_mean
from conventions.metrics.worker_reports import WorkerReports
from conventions.now.pause_targets import all_queues, known_targets
from conventions.sealing.argument_names import taken_by


def say_unknown(
    app: ConventionsApp,
    *,
    task: str | None = None,
    queue: str | None = None,
    worker: str | None = None,
    arguments: Iterable[tuple[str, str]] = (),
) -> None:
    """Say it on standard error. Nothing is refused: there may be records of a task that is gone.

    Args:
        app: the application.
        task: a task's name, or the last part of it.
        queue: name of a queue.
        worker: host name of a worker.
        arguments: pairs of an argument's name and its value.

    Raises:
        RedisError.
    """
    tasks = known_targets(app, "task") if task or arguments else set()
    named = {one for one in tasks if not task or one == task or one.endswith(f".{task}")}
    if task and not named:
        say(f"there is no task {task} here{did_you_mean(task, tasks)}", err=True)
    if queue and queue not in (queues := all_queues(app)):
        say(f"there is no queue {queue} here{did_you_mean(queue, queues)}", err=True)
    if worker and worker not in (workers := {one.name for one in WorkerReports(app.store).listing()}):
        there = ", ".join(sorted(workers)) or "none"
        near = [one for one in sorted(workers) if one.partition("@")[0] == worker]
        meant = f" (did you mean {near[0]}?)" if near else did_you_mean(worker, workers)
        say(f"no worker {worker} runs now: it has ended, or has another name{meant}; there are: {there}", err=True)
    takes = [taken_by(app.tasks[one]) for one in named]
    taken = {name for names, _ in takes for name in names}
    for name, _ in arguments if named and not any(others for _, others in takes) else ():
        if name not in taken:
            whose = f"the task {task} takes" if task else "no task here takes"
            no = "no argument" if task else "an argument"
            say(f"{whose} {no} {name}{did_you_mean(name, taken)}", err=True)
