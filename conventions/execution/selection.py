"""`Selection`: messages that wait, chosen by task, arguments, sender and age. `change_selected.py` cancels and moves them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.broker.waiting_messages import Waiting, look
from conventions.core.errors import ConventionError
from conventions.core.units import moment
from conventions.execution.application import Application
from conventions.execution.purge import PLACES


class NoSelection(ConventionError):
    """The broker shows no single messages."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages.

    Attributes:
        queues: the queues.
        tasks: names of tasks; empty: all.
        arguments: pairs of an argument's name and its value, as text or as JSON.
        actor: who sent it; empty: anybody.
        older_than: sent so long ago, by the clock of who sent it.
    """

    queues: tuple[str, ...]
    tasks: frozenset[str] = frozenset()
    arguments: tuple[tuple[str, str], ...] = ()
    actor: str = ""
    older_than: timedelta | None = None

    def holds(self, one: Waiting, now: datetime) -> bool:
        """Whether a message is one of them."""
        headers = one.headers
        if not one.is_message:
            return False
        if self.tasks and headers.get("task") not in self.tasks:
            return False
        if self.actor and headers.get(ACTOR) != self.actor:
            return False
        if self.older_than is not None:
            sent = moment(headers.get(ENQUEUED_AT))
            if sent is None or now - sent < self.older_than:
                return False
        return not self.arguments or _has(one.arguments, self.arguments)

    @property
    def words(self) -> dict[str, Any]:
        """The parts that narrow it, for the audit."""
        found = {name: value for name, value in asdict(self).items() if value}
        if self.tasks:
            found["tasks"] = sorted(self.tasks)
        if self.older_than is not None:
            found["older_than"] = self.older_than.total_seconds()
        return json.loads(json.dumps(found, default=sorted))  # type: ignore[no-any-return]  # tuples become lists


def _has(arguments: Mapping[str, Any] | None, wanted: Sequence[tuple[str, str]]) -> bool:
    if arguments is None:
        return False
    return all(
        name in arguments and (arguments[name] == text or json.dumps(arguments[name]) == text) for name, text in wanted
    )


def found(app: Application, selection: Selection, most: int | None = None) -> Iterator[Waiting]:
    """The selected messages, those that are not due first.

    Args:
        app: the application.
        selection: which.
        most: how many messages to look at; `None`: all.

    Raises:
        NoSelection: the broker shows none.
        RedisError.
    """
    check_looks(app)
    now, looked = datetime.now(UTC), 0
    for queue in selection.queues:
        for place in PLACES:
            seen = 0
            while some := look(app.broker, queue, place, seen):
                seen += len(some)
                for one in some:
                    if most is not None and (looked := looked + 1) > most:
                        return
                    if selection.holds(one, now):
                        yield one


def check_looks(app: Application) -> None:
    """Refuse where messages cannot be chosen. Raises: NoSelection."""
    if not app.port.can.looks:
        raise NoSelection(
            "this broker shows no single messages of a queue: pause the queue, cancel messages by their ids, or purge all of it"
        )
