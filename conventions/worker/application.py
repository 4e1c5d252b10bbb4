"""`WorkerApplication`: an application as a worker's main process uses it."""

from collections.abc import Callable
from typing import Any, Protocol

from conventions.execution.application import Application
from conventions.execution.process_ends import Ends
from conventions.worker.hung_jobs import HungJobs
from conventions.worker.intake import Intake
from conventions.worker.loop_calls import LoopCalls
from conventions.worker.refused_messages import Refusals
from conventions.worker.sender_check import SenderCheck


class WorkerApplication(Application, Protocol):
    """It has what one worker has once."""

    new_intake: Callable[[Any], Intake]  # made for the consumer, which is Celery's

    @property
    def refusals(self) -> Refusals:
        """Dead letters of messages that never reach a task."""

    @property
    def sender_check(self) -> SenderCheck | None:
        """Whom a worker believes; `None`: everybody, since there are no keys."""

    @property
    def hung_jobs(self) -> HungJobs:
        """Ends jobs that hang, where the broker's heartbeats do not tell of them."""

    @property
    def loop_calls(self) -> LoopCalls:
        """What other threads ask the loop of this worker to do."""

    @property
    def process_ends(self) -> Ends:
        """Says how processes of the pool have ended."""
