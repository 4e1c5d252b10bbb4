"""`Finding`: one thing that is wrong, in words, with what to look at and what to do."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: the name of the rule that found it.
        subject: the queue, task, worker, schedule or server; empty for the whole application.
        severity: `critical`: jobs do not run, or may be lost; `warning`: they will not, or run late.
        says: what is wrong, as a sentence without its end. It holds no values of jobs.
        do: what to do about it.
        page: the page of the console that shows more.
        value, threshold: what the rule compared; `None` where it compares nothing.
        since: seconds since the epoch, where it is known.
        detail: the text of an error, which may hold values.
    """

    rule: str
    subject: str
    severity: Severity
    says: str
    do: str
    page: str
    value: float | None = None
    threshold: float | None = None
    since: float | None = None
    detail: str = ""

    @property
    def key(self) -> str:
        """Names the same thing at the next look."""
        return f"{self.rule} {self.subject}".rstrip()

    @property
    def beyond(self) -> float:
        """How far it is beyond its threshold: 1 is just at it, 0 is a finding without a value."""
        return (self.value or 0.0) / (self.threshold or 1.0)

    def since_not_after(self, first_seen: float) -> float | None:
        """Since when it is so, of one that was first seen then: the cause that it names now may be a later one. `None`: it does not say."""
        return None if self.since is None else min(self.since, first_seen)
