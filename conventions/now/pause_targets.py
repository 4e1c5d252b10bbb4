"""What people may pause: the names that there are, and which workers follow a pause; the same on the command line and on the page."""

from typing import NamedTuple

from conventions.execution.application import Application
from conventions.execution.purge import known_queues
from conventions.metrics.known_series import known_names
from conventions.metrics.worker_reports import WorkerNow, WorkerReports
from conventions.pauses.actions import FOLLOW_WITHIN, those_that_do_not_follow
from conventions.pauses.pause_store import Kind, Target


class Followers(NamedTuple):
    """Who follows a pause.

    Attributes:
        following: how many of the workers that it concerns follow.
        late: names of those that have not said so.
    """

    following: int
    late: list[str]


def all_queues(app: Application) -> set[str]:
    """Names of the queues that the application declares, and of those that workers or senders use."""
    return {*known_names(app), *known_queues(app)}


def known_targets(app: Application, kind: Kind) -> set[str]:
    """Names of this kind that can be paused."""
    app.loader.import_default_modules()  # tasks name queues, too
    if kind == "queue":
        return all_queues(app)
    if kind == "worker":
        return {one.name for one in WorkerReports(app.store).listing()}
    return {one for one in app.tasks if not one.startswith("celery.")}


def target_of(app: Application, kind: Kind, name: str) -> Target:
    """What a name means: a task may be called by an alias. Nothing says that there is one of this name."""
    if kind != "task":
        return Target(kind, name)
    app.loader.import_default_modules()
    task = app.tasks.get(name)
    return Target(kind, name if task is None else str(task.name))


def followers_of(app: Application, target: Target, revision: int) -> Followers:
    """Wait until the workers that run follow a change of a pause, at most `FOLLOW_WITHIN` seconds."""

    def concerned() -> list[WorkerNow]:
        alive = [one for one in WorkerReports(app.store).listing() if not one.silent]
        return [one for one in alive if target.kind != "worker" or one.name == target.name]

    late = those_that_do_not_follow(concerned, revision, FOLLOW_WITHIN)
    return Followers(sum(one.name not in late for one in concerned()), late)
