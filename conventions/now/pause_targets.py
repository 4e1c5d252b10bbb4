"""What people may pause: the names that there are, and which workers follow a pause; the same on the command line and on the page."""

from collections.abc import Collection
from typing import NamedTuple

from conventions.core.near_names import did_you_mean
from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.metrics.known_series import known_names
from conventions.metrics.worker_reports import WorkerNow, WorkerReports
from conventions.pauses.pause_actions import FOLLOW_WITHIN, those_that_do_not_follow
from conventions.pauses.pause_store import Kind, Pauses, Target

SHOWN = 80  # characters of a name that somebody has written


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


class NoTarget(ValueError):
    """A name means nothing that can be paused, or several. `known`: the names that there are."""

    def __init__(self, said: str, known: Collection[str]) -> None:
        super().__init__(said)
        self.known = sorted(known)


def target_to_pause(app: Application, kind: Kind, name: str) -> Target:
    """What a name means: a task may be called by an alias, or by the last part of its name. Raises: NoTarget, RedisError."""
    return _target(app, kind, name, known_targets(app, kind))


def target_to_resume(app: Application, kind: Kind, name: str) -> Target:
    """The same, also of what is paused and does not exist any more. Raises: NoTarget, RedisError."""
    paused = {one.name for one in Pauses(app.store).read().pauses if one.kind == kind}
    return _target(app, kind, name, known_targets(app, kind) | paused)


def names_meant(app: Application, kind: Kind, name: str, known: set[str]) -> list[str]:
    """Those of the known names that a name may mean: itself, or what it is an alias of; else each task whose last part it is."""
    own = {one: str(app.tasks[one].name) if kind == "task" and one in app.tasks else one for one in known}
    if name in own:
        return [own[name]]
    return sorted({own[one] for one in known if kind == "task" and one.endswith(f".{name}")})


def _target(app: Application, kind: Kind, name: str, known: set[str]) -> Target:
    named = names_meant(app, kind, name, known)
    if not named:
        raise NoTarget(f"there is no {kind} {name[:SHOWN]}{did_you_mean(name, known)}", known)
    if len(named) > 1:
        raise NoTarget(f"several tasks are called {name[:SHOWN]}: {', '.join(named)}; name one in full", known)
    return Target(kind, named[0])


def followers_of(app: Application, target: Target, revision: int) -> Followers:
    """Wait until the workers that run follow a change of a pause, at most `FOLLOW_WITHIN` seconds."""

    def concerned() -> list[WorkerNow]:
        alive = [one for one in WorkerReports(app.store).listing() if not one.silent]
        return [one for one in alive if target.kind != "worker" or one.name == target.name]

    late = those_that_do_not_follow(concerned, revision, FOLLOW_WITHIN)
    return Followers(sum(one.name not in late for one in concerned()), late)
