"""Whether what waits fits this code: each payload against the signature of its task. For the moment before a deploy (R16)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from conventions.app import ConventionsApp
from conventions.broker.codec import Body, UnreadableBody
from conventions.cli.base import existing
from conventions.core.errors import CannotOpen, PayloadError
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.execution.purge_queues import PLACES, known_queues
from conventions.execution.waiting_selection import Selection, found
from conventions.library_internals.celery import signature_fault
from conventions.now.running_jobs import AT_WORKERS
from conventions.outbox.entry import opened_parts
from conventions.outbox.waiting_entries import entries_of
from conventions.sealing.kept_message import open_body

COLUMNS = ("where", "task", "fault", "payloads", "example")
NO_TASK = "no such task"
NO_BODY = "cannot be read"
SEALED = "sealed payloads were not opened: their keys are not here"
UNSEEN = "RabbitMQ shows no messages that wait: only dead letters and the outbox were looked at"


class Misfit(NamedTuple):
    """Payloads that this code could not run.

    Attributes:
        where: `queue NAME`, `delayed in NAME`, `at a worker`, `dead letters`, `outbox`.
        task: its name.
        fault: what does not fit, without a value: `missing user_id`, `unknown`, `wrong day`.
        payloads: how many.
        example: the id of one.
    """

    where: str
    task: str
    fault: str
    payloads: int
    example: str


class _Kept(NamedTuple):
    """One payload that is kept somewhere. `body`: `None` where it cannot be read."""

    where: str
    id: str
    task: str
    body: Body | None


class Contracts:
    """Looks at all that is kept.

    Args:
        app: the application, with the code that is to be deployed.

    Attributes:
        looked: how many payloads were looked at.
        notes: what could not be looked at.
    """

    def __init__(self, app: ConventionsApp) -> None:
        self._app = app
        self.looked = 0
        self._sealed = 0

    @property
    def notes(self) -> list[str]:
        """What could not be looked at."""
        found = [f"{self._sealed:,} {SEALED}"] if self._sealed else []
        return found if self._app.port.can.looks else [*found, UNSEEN]

    def misfits(self) -> list[Misfit]:
        """What does not fit, the most frequent first.

        Raises:
            RedisError, SQLAlchemyError.
            ConfigurationError: there is no database.
        """
        self._app.load_tasks()
        counted: Counter[tuple[str, str, str]] = Counter()
        examples: dict[tuple[str, str, str], str] = {}
        for kept in self._every():
            self.looked += 1
            if fault := self._fault(kept):
                key = kept.where, kept.task, fault
                counted[key] += 1
                examples.setdefault(key, kept.id)
        return [Misfit(*key, count, examples[key]) for key, count in counted.most_common()]

    def _fault(self, kept: _Kept) -> str:
        """What does not fit; empty: nothing."""
        task = self._app.tasks.get(kept.task)
        if task is None:
            return NO_TASK
        if kept.body is None:
            return NO_BODY
        args, kwargs, options = kept.body
        return _misfit(task, args, kwargs) or self._fault_of_steps(options)

    def _fault_of_steps(self, options: Mapping[str, Any]) -> str:
        """Of what follows: a step whose task is not there. Its arguments are not known yet, unless it takes no result."""
        for step in _steps(options):
            name = str(step.get("task"))
            task = self._app.tasks.get(name)
            if task is None:
                return f"{NO_TASK}: {name}, which follows"
            if step.get("immutable") and (fault := _misfit(task, step.get("args") or (), step.get("kwargs") or {})):
                return f"{fault} of {name}, which follows"
        return ""

    def _every(self) -> Iterator[_Kept]:
        if self._app.port.can.looks:
            yield from self._waiting()
        yield from self._recorded()

    def _waiting(self) -> Iterator[_Kept]:
        named = {"queue": "queue {}", "delayed": "delayed in {}"}
        for one in found(self._app, Selection(tuple(known_queues(self._app))), places=(*PLACES, *AT_WORKERS)):
            where = named.get(one.place, "at a worker").format(one.queue)
            if one.at_worker != "ended":
                yield from self._kept(where, one.message_id, one.headers.get("task"), json.loads(one.payload))

    def _recorded(self) -> Iterator[_Kept]:
        with existing(self._app.database).session(read_only=True) as session:
            for letter in dead_letters.every(session, Filter()):
                message = dead_letters.message(letter)
                if letter.task is None:  # it was no message of a task
                    continue
                if message is not None and "headers" in message:
                    yield from self._kept("dead letters", letter.id, letter.task, message)
                elif isinstance(letter.arguments, dict):
                    yield _Kept("dead letters", letter.id, letter.task, Body([], letter.arguments, {}))
            for entry in entries_of(session, self._app.settings.key_prefix):
                try:
                    arguments, _ = opened_parts(self._app.payload_keys, entry)
                except CannotOpen:
                    self._sealed += 1
                else:
                    yield _Kept("outbox", entry.id, entry.task, Body([], arguments, {}))

    def _kept(self, where: str, message_id: str, task: Any, message: Any) -> Iterator[_Kept]:
        try:
            body: Body | None = open_body(self._app.payload_keys, message)
        except CannotOpen:
            self._sealed += 1
            return
        except (UnreadableBody, ValueError, TypeError):
            body = None
        yield _Kept(where, message_id, str(task), body)


def _misfit(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What does not fit a task of ours, or a function; empty: nothing."""
    if not hasattr(task, "arguments"):
        return signature_fault(task, args, kwargs)
    try:
        task.arguments.load(args, kwargs)
    except PayloadError as error:
        return error.misfit or "wrong"
    return ""


def _steps(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in ("chain", "callbacks", "errbacks"):
        yield from (one for one in options.get(name) or () if isinstance(one, Mapping))
    if isinstance(chord := options.get("chord"), Mapping):
        yield chord
