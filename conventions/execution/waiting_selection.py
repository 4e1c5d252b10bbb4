"""`Selection`: messages that wait, chosen by task, arguments, sender and age. `change_waiting.py` cancels and moves them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.broker.signature import is_sent_since, key_of
from conventions.broker.waiting_messages import Waiting, WaitingPlace, look
from conventions.core.errors import ConventionError
from conventions.core.time_units import moment
from conventions.execution.application import Application
from conventions.execution.purge_queues import PLACES
from conventions.sealing.blind_index import Codes, Pairs, is_found

WORDS = (
    "task",
    "arguments",
    "codes",
    "actor",
    "older_than",
    "signed_with",
    "sent_since",
    "queues",
    "tasks",
)  # those that somebody has written first


class NoSelection(ConventionError):
    """The broker shows no single messages."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages.

    Attributes:
        queues: the queues.
        tasks: names of tasks; empty: all.
        arguments: pairs of an argument's name and its value, as text or as JSON.
        codes: the same of sealed messages, see `sealing/blind_index.py`. A name that has both matches in either way.
        actor: who sent it; empty: anybody.
        older_than: sent so long ago, by the clock of who sent it.
        signed_with: the name of the key that it says it is signed with; empty: any, or none.
        sent_since: sent then or later, or nobody knows when.
        task: how somebody has named the tasks, for the audit.
        all_queues: whether nobody has named the queues, for the audit.
    """

    queues: tuple[str, ...]
    tasks: frozenset[str] = frozenset()
    arguments: Pairs = ()
    codes: Codes = ()
    actor: str = ""
    older_than: timedelta | None = None
    signed_with: str = ""
    sent_since: datetime | None = None
    task: str = ""
    all_queues: bool = False

    def holds(self, one: Waiting, now: datetime) -> bool:
        """Whether a message is one of them."""
        headers = one.headers
        if not one.is_message:
            return False
        if self.tasks and headers.get("task") not in self.tasks:
            return False
        if self.actor and headers.get(ACTOR) != self.actor:
            return False
        if not self._holds_signature(headers):
            return False
        if self.older_than is not None:
            sent = moment(headers.get(ENQUEUED_AT))
            if sent is None or now - sent < self.older_than:
                return False
        return not (self.arguments or self.codes) or self._holds_arguments(one.arguments or {}, headers)

    def _holds_arguments(self, arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
        plain, coded = dict(self.arguments), dict(self.codes)
        return all(
            (name in plain and _has(arguments, name, plain[name]))
            or (name in coded and is_found(headers, name, coded[name]))
            for name in plain | coded
        )

    def _holds_signature(self, headers: Mapping[str, Any]) -> bool:
        if self.signed_with and key_of(headers) != self.signed_with:
            return False
        return self.sent_since is None or is_sent_since(headers, self.sent_since)

    @property
    def words(self) -> dict[str, Any]:
        """The parts that narrow it, for the audit."""
        names = [name for name in WORDS if name != "queues" or not self.all_queues]
        found = {name: value for name in names if (value := getattr(self, name))}
        if self.tasks:
            found["tasks"] = sorted(self.tasks)
        if self.older_than is not None:
            found["older_than"] = self.older_than.total_seconds()
        if self.sent_since is not None:
            found["sent_since"] = self.sent_since.isoformat()
        return json.loads(json.dumps(found, default=sorted))  # type: ignore[no-any-return]  # tuples become lists


def _has(arguments: Mapping[str, Any], name: str, text: str) -> bool:
    return name in arguments and (arguments[name] == text or json.dumps(arguments[name]) == text)


class Search:
    """The selected messages, as they are found.

    Args:
        app: the application.
        selection: which.
        most: how many messages to look at; `None`: all.
        places: of each queue, in this order.

    Attributes:
        looked: how many messages were looked at.
        is_cut: whether there were more than it may look at.

    Raises:
        NoSelection: the broker shows none.
    """

    def __init__(
        self, app: Application, selection: Selection, most: int | None = None, places: Sequence[WaitingPlace] = PLACES
    ) -> None:
        check_looks(app)
        self._app, self._selection, self._most, self._places = app, selection, most, places
        self.looked, self.is_cut = 0, False

    def __iter__(self) -> Iterator[Waiting]:
        """Look. Raises: RedisError."""
        now = datetime.now(UTC)
        for queue in self._selection.queues:
            for place in self._places:
                seen = 0
                while some := look(self._app.broker, queue, place, seen):
                    seen += len(some)
                    for one in some:
                        if self._most is not None and self.looked >= self._most:
                            self.is_cut = True
                            return
                        self.looked += 1
                        if self._selection.holds(one, now):
                            yield one


def found(
    app: Application, selection: Selection, most: int | None = None, places: Sequence[WaitingPlace] = PLACES
) -> Iterator[Waiting]:
    """The selected messages, those that are not due first. Raises: NoSelection, RedisError."""
    return iter(Search(app, selection, most, places))


def check_looks(app: Application) -> None:
    """Refuse where messages cannot be chosen. Raises: NoSelection."""
    if not app.port.can.looks:
        raise NoSelection(
            "this broker shows no single messages of a queue: pause the queue, cancel messages by their ids, or purge all of it"
        )
