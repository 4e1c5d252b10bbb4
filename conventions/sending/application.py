"""`SendingApplication`: an application as a sender uses it."""

from typing import Protocol

from conventions.execution.application import Application
from conventions.sending.templates import Templates


class SendingApplication(Application, Protocol):
    """It makes messages from templates."""

    @property
    def templates(self) -> Templates:
        """Messages as Celery made them, from which those of their kind are made."""

    @property
    def routes_alike(self) -> bool:
        """Whether a task's messages all go the same way, because no other router looks at them."""
