"""`AuditFilter`: which executions and actions a reader of the audit asks for; the same on the command line and on the page (R22)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Of: TypeAlias = Literal["all", "executions", "actions"]

OF: tuple[Of, ...] = ("all", "executions", "actions")
OF_EXECUTIONS = ("task", "queue", "outcome", "worker", "release")  # an action of a person has none of these
OF_ACTIONS = ("action",)  # an execution has no such field


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Selects rows of the audit. Every given field must match.

    A field that only executions have leaves out the actions, and the other way round.

    Attributes:
        of: the kind of rows; `all` for both.
        actor: who acted, or in whose name the job was sent.
        task: a task's name, or the last part of it.
        queue: name of the queue.
        id: of the message, or the target of an action: a schedule, a batch, a redrive.
        action: of a person, as `dead-letters edit`, or its first words, as `dead-letters`.
        outcome: one of `KINDS` of `records/journal.py`.
        worker: host name of the worker.
        release: of the code that ran it.
        since: the first moment.
        until: the moment after the last one.
    """

    of: Of = "all"
    actor: str | None = None
    task: str | None = None
    queue: str | None = None
    id: str | None = None
    action: str | None = None
    outcome: str | None = None
    worker: str | None = None
    release: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def has_executions(self) -> bool:
        """Whether executions can match."""
        return self.of != "actions" and not self._given(OF_ACTIONS)

    @property
    def has_actions(self) -> bool:
        """Whether actions can match."""
        return self.of != "executions" and not self._given(OF_EXECUTIONS)

    def fault(self, prefix: str = "") -> str | None:
        """Why no row can ever match; `None` if some can.

        Args:
            prefix: what stands before the name of a field where it was written, such as `--`.
        """
        of_executions, of_actions = self._given(OF_EXECUTIONS), self._given(OF_ACTIONS)
        if of_executions and of_actions:
            return (
                f"{prefix}{of_executions[0]} finds executions, {prefix}{of_actions[0]} finds actions of people, "
                "and no row is both: leave one out"
            )
        if self.of == "actions" and of_executions:
            return f"{prefix}{of_executions[0]} finds executions, and {prefix}of says actions: leave one out"
        if self.of == "executions" and of_actions:
            return f"{prefix}{of_actions[0]} finds actions of people, and {prefix}of says executions: leave one out"
        if self.since is not None and self.until is not None and self.since >= self.until:
            return f"{prefix}since is not before {prefix}until, so nothing lies between"
        return None

    def _given(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]
