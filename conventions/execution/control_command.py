"""`celery control`, Celery's own command, with a row in the audit: who asked which workers for what, and what they answered (R22).

What a program asks by `app.control`, or any other program that reaches the broker, leaves no row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from conventions.core.errors import ConfigurationError
from conventions.core.redis_answers import fault_of
from conventions.execution.application import Application
from conventions.execution.celerys_command import put_around
from conventions.library_internals.celery import control_command
from conventions.records.audit_entry import AuditEntry

EVERYBODY = "all workers"
ACTION_LENGTH, TEXT_LENGTH = 64, 300  # characters
MOST_ANSWERS = 50


@dataclass
class _Heard:
    """A command that was sent to the workers. `answers` is `None` until the question has come back."""

    asked: Mapping[str, Any]
    destination: Sequence[str]
    answers: Sequence[Mapping[str, Any]] | None = None

    @property
    def targets(self) -> Sequence[str]:
        """What the audit names: the messages, the task, or the workers."""
        ids = self.asked.get("task_id")
        if ids:
            return [str(one) for one in (ids if isinstance(ids, (list, tuple)) else [ids])]
        return [str(self.asked.get("task_name") or ", ".join(self.destination) or EVERYBODY)]

    def outcome(self, fault: str) -> dict[str, Any]:
        """What became of it, for `after`. Who shuts down does not answer, so no answer is no failure."""
        found = {name: answer for one in self.answers or () for name, answer in one.items()}
        failed = self.answers is None or any(isinstance(one, Mapping) and "error" in one for one in found.values())
        after: dict[str, Any] = {
            "outcome": "failed" if failed else "done" if found else "sent",
            "asked": dict(self.asked),
        }
        if self.destination:
            after["workers"] = list(self.destination)
        if found:
            after["answers"] = {name: str(found[name])[:TEXT_LENGTH] for name in sorted(found)[:MOST_ANSWERS]}
        if fault:
            after["said"] = fault[:TEXT_LENGTH]
        return after


def prepare_control() -> None:
    """Let `celery control` leave a row in the audit, where that command may run in this process."""
    put_around(control_command(), _control_of_any)


def _control_of_any(app: Any, run: Callable[[], Any], options: dict[str, Any]) -> Any:
    return _control(app, options["command"], run) if hasattr(type(app), "journal") else run()  # else of another program


def _control(app: Application, command: str, run: Callable[[], Any]) -> Any:
    try:
        app.journal.length()
    except RedisError as error:
        raise ConfigurationError([f"nothing was done, since the audit cannot be written: {fault_of(error)}"]) from error
    with _hearing(app) as heard:
        try:
            found = run()
        except Exception as error:
            _note(app, command, heard, str(error))
            raise
        _note(app, command, heard)
        return found


@contextmanager
def _hearing(app: Application) -> Iterator[list[_Heard]]:
    """What is sent to the workers within the block. Of wrong usage, nothing is."""
    heard: list[_Heard] = []
    broadcast = app.control.broadcast

    def hear(command: str, **options: Any) -> Any:
        heard.append(_Heard(options.get("arguments") or {}, options.get("destination") or ()))
        heard[-1].answers = broadcast(command, **options) or ()
        return heard[-1].answers

    vars(app.control)["broadcast"] = hear
    try:
        yield heard
    finally:
        del vars(app.control)["broadcast"]


def _note(app: Application, command: str, heard: Sequence[_Heard], fault: str = "") -> None:
    from conventions.execution.purge_queues import who_acts  # noqa: PLC0415  # whoever only sends needs none of it

    for one in heard:
        after = one.outcome(fault)
        try:
            for target in one.targets:
                entry = AuditEntry(who_acts(), f"control {command}"[:ACTION_LENGTH], target, None, None, after)
                app.journal.note(entry)
        except RedisError as error:
            text = f"it was {after['outcome']}, but the audit could not be written: {fault_of(error)}"
            raise ConfigurationError([text]) from error
