"""`RunnableTask`: what a worker uses of a task, beside what its sender does, to run a job and to record how it ended."""

from collections.abc import Callable
from typing import Any, Protocol

from conventions.declare.arguments_as_json import Returned
from conventions.execution.attempt import Attempt
from conventions.execution.declared_task import DeclaredTask


class RunnableTask(DeclaredTask, Protocol):
    """A declared task in the process that runs it; `tasks/running_task.py` has what is not declared."""

    @property
    def request_stack(self) -> Any:
        """Celery's: the requests that this thread runs, one within the other."""

    @property
    def returned(self) -> Returned:
        """What `run` returns, and how it is written."""

    @property
    def stalls_after(self) -> float:
        """Seconds without a report after which readers call a job stalled."""

    @property
    def split_after(self) -> float | None:
        """Seconds; a longer job should be split. `None`: it may take long."""

    @property
    def hangs_after(self) -> float:
        """Seconds without a report until the lease is no longer renewed; 0: the hard time limit ends the job."""

    @property
    def overrules_retry(self) -> bool:
        """Whether `should_retry` decides in place of the policy."""

    @property
    def hears_of_death(self) -> bool:
        """Whether `on_dead` does something."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The team's own code."""

    def stall_check(self) -> Callable[[], bool]:
        """A function, safe in any thread, that tells whether the job of this thread hangs."""

    def should_retry(self, error: Exception, attempts_made: int, /) -> bool:
        """Whether another attempt follows this error."""

    def on_dead(self, job: Attempt, error: Exception, /) -> None:
        """Its message became a dead letter."""

    def signature_from_request(self, request: Any, /, **options: Any) -> Any:
        """Celery's: the message of a request as one that can be sent again."""
