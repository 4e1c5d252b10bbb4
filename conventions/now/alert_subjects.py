"""What a person means by the subject of an alert: its name as the alert prints it, or in full; and whether there is one of this name."""

import difflib
from collections.abc import Collection
from typing import NamedTuple

from conventions.alerts.alert_store import AlertStore
from conventions.broker.server_checks import servers_of
from conventions.execution.application import Application
from conventions.now.pause_targets import known_targets
from conventions.pauses.pause_store import Kind
from conventions.schedules.schedule_module import load_schedule
from conventions.schedules.schedule_summary import summaries_of

KINDS: dict[str, Kind] = {
    "backlog": "queue", "mean delay": "queue", "oldest": "queue", "no consumer": "queue",
    "failure rate": "task", "retrying": "task", "dead letters": "task", "interrupted": "task", "busy with one task": "task",
    "worker silent": "worker", "not consuming": "worker",
}  # fmt: skip
OF_SCHEDULES = ("schedule overdue", "schedule failing")
OF_SERVERS = ("memory", "evicts")
SHOWN_OF_ID = 8  # characters of the id of a batch or redrive that an alert prints
OF_IDS = ("batch stalled", "redrive stopped")


class Subject(NamedTuple):
    """The subject of some alerts.

    Attributes:
        name: in full, as findings have it; empty for all of a rule.
        doubt: why it may silence nothing, for people; empty: there is one of this name.
    """

    name: str
    doubt: str = ""


def subject_of(app: Application, rule: str, said: str) -> Subject:
    """What a person means.

    Raises:
        ValueError: several have this name; says which.
        RedisError: nobody can tell.
    """
    if not said:
        return Subject("")
    fires = {one.finding.subject for one in AlertStore(app.store).episodes().values() if one.finding.rule == rule}
    known = _known(app, rule)
    task = app.tasks.get(said) if KINDS.get(rule) == "task" else None
    name = said if task is None else str(task.name)  # it may be an alias
    if name in fires or name in known:
        return Subject(name)
    for names in (fires, known):
        found = sorted(one for one in names if said == _printed(rule, one))
        if len(found) > 1:
            raise ValueError(f"several are called {said}: write one of {', '.join(found)}")
        if found:
            return Subject(found[0])
    return Subject(said, _doubt(rule, said, {*fires, *known}))


def _known(app: Application, rule: str) -> Collection[str]:
    if (kind := KINDS.get(rule)) is not None:
        return known_targets(app, kind)
    if rule in OF_SCHEDULES:
        return {one.listed.name for one in summaries_of(app, load_schedule(app))}
    return set(servers_of(app.port, app.store)) if rule in OF_SERVERS else set()


def _printed(rule: str, name: str) -> str:
    """A name as the alert prints it."""
    if KINDS.get(rule) == "task":
        return name.rpartition(".")[2]
    return name[:SHOWN_OF_ID] if rule in OF_IDS else name


def _doubt(rule: str, said: str, names: Collection[str]) -> str:
    what = KINDS.get(rule) or ("schedule" if rule in OF_SCHEDULES else "server" if rule in OF_SERVERS else "")
    doubt = f"no {what} {said!r} is known" if what else f"no alert {rule!r} of {said!r} fires now"
    printed = {_printed(rule, one): one for one in names} | {one: one for one in names}
    near = difflib.get_close_matches(said, printed, 1)
    return f"{doubt}{f'; did you mean {printed[near[0]]!r}?' if near else ''}"
