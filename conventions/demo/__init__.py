"""What `celery -A <app> demo` runs: a scenario of the app's own, and the `Outcome` of each of its jobs.

The module `<package>.demo` of one of the app's task packages defines `scenario`, and may define `environment`.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

if TYPE_CHECKING:
    from conventions.app import ConventionsApp


@dataclass(frozen=True)
class Outcome:
    """What became of one kind of job.

    Args:
        job: what people call it.
        sent: how many messages were sent.
        done: how many succeeded.
        failed: how many became dead letters.
        expected_failed: how many had to fail.
        seconds: from the first send to the last end, seconds.
    """

    job: str
    sent: int
    done: int
    failed: int
    expected_failed: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Every message came to an end, and exactly the expected ones failed."""
        return self.done + self.failed == self.sent and self.failed == self.expected_failed

    @property
    def rate(self) -> float:
        """Jobs brought to an end per second; 0 when no time passed."""
        return (self.done + self.failed) / self.seconds if self.seconds > 0 else 0.0


class Scenario(Protocol):
    """`scenario(app, console, folder)`: sends the jobs, waits for them, and says what became of them."""

    def __call__(self, app: "ConventionsApp", console: Console, folder: Path) -> Iterable[Outcome]:
        """Run it. What it raises is shown as one line, its traceback goes to a log."""


class Environment(Protocol):
    """`environment(folder)`: what must exist before the services start; entered first, left last.

    It yields the environment variables that the services and the scenario get.
    """

    def __call__(self, folder: Path) -> AbstractContextManager[Mapping[str, str]]:
        """Make the context; `folder` is the stack's folder `.conventions`."""
