"""`JobLine`: a job, or an attempt that has ended, as lists show it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conventions.core.error_text import clean
from conventions.now.job_filter import State


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job that waits or runs, or an attempt that has ended.

    Attributes:
        worker, release: that runs it, or ran it; `None`: not known, or it waits.
        at: of a waiting one, when it was sent; of a running one, when it began; else when it ended.
        runtime: seconds, so far or in all.
        attempt: from 1; 0: it never started.
        error, error_message: of the last attempt that failed; of a retrying one, as far as it is recorded.
        due_at: of a waiting one, when it may run at the earliest, where that is later than now; of one that only a pause holds back, nothing.
    """

    id: str
    task: str
    state: State
    queue: str = ""
    actor: str | None = None
    worker: str | None = None
    release: str | None = None
    at: datetime | None = None
    runtime: float | None = None
    attempt: int = 1
    error: str | None = None
    error_message: str | None = None
    due_at: datetime | None = None


def text_of_header(value: Any) -> str:
    """A header as text that a page can show, whoever wrote it."""
    return clean(str(value)) if value is not None else ""
