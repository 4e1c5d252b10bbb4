"""The history of a dead letter for its page: each attempt in each redrive, the actions of people, and the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conventions.storage.tables import AuditRow, DeadLetterRow

WORDS = {"retried": "to be tried again", "dead": "dead"}


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the history.

    Attributes:
        kind: `attempt`, `redrive`, or `action` (an action of a person).
        at: when; `None` for a redrive at an unknown time.
        text: the visible text: the number of an attempt, or what was done.
        attempt: the execution of an attempt.
        redrive: the id of the redrive run, if known.
    """

    kind: str
    at: datetime | None
    text: str
    attempt: Mapping[str, Any] | None = None
    redrive: str = ""

    @property
    def how(self) -> str:
        """How an attempt ended: the class of its error and what happens next, or one word."""
        if self.attempt is None:
            return ""
        error, word = self.attempt["error"], WORDS.get(self.attempt["kind"], self.attempt["kind"])
        return f"{error}, {word}" if error else word

    @property
    def went_well(self) -> bool:
        """Whether the attempt ended well."""
        return self.attempt is not None and self.attempt["kind"] in ("succeeded", "duplicate")


def story_of(
    letter: DeadLetterRow, history: Sequence[Mapping[str, Any]], audit_entries: Sequence[AuditRow]
) -> list[Step]:
    """All lines, the oldest first.

    Args:
        letter: the letter.
        history: its executions, in order.
        audit_entries: the audit entries of the letter, newest first.
    """
    steps: list[Step] = []
    before = sorted(audit_entries, key=lambda entry: entry.at, reverse=True)
    generation = 0
    for number, one in enumerate(history, 1):
        again = one["generation"]
        while before and before[-1].at <= one["ended_at"]:
            steps.append(_action(before.pop()))
        if again != generation:
            generation = again
            last = letter.redrive_id if again == _sent(letter) else None
            steps.append(Step("redrive", None, f"Sent again: redrive {again}", redrive=last or ""))
        which = f"Attempt {number}" + (f" (attempt {one['attempt']} after redrive {again})" if again else "")
        steps.append(Step("attempt", one["ended_at"], which, attempt=one))
    steps += [_action(one) for one in reversed(before)]
    if _sent(letter) > generation:
        steps.append(
            Step("redrive", None, f"Sent again: redrive {_sent(letter)}, not ended", redrive=letter.redrive_id or "")
        )
    return steps


def _sent(letter: DeadLetterRow) -> int:
    """How often it was redriven."""
    return letter.generation + (1 if letter.state in ("redriving", "redriven") else 0)


def _action(entry: AuditRow) -> Step:
    return Step("action", entry.at, f"{entry.actor}: {entry.action}" + (f", {entry.reason}" if entry.reason else ""))
