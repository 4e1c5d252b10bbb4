"""`BatchApplication`: an application as what stands above batches uses it."""

from typing import Protocol

from conventions.batches.batch_state import Batches
from conventions.execution.application import Application


class BatchApplication(Application, Protocol):
    """It has all that is known of batches."""

    @property
    def batches(self) -> Batches:
        """The state of batches."""
