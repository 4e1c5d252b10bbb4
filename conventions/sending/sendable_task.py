"""`SendableTask`: a declared task with its ways to send; `tasks/base_classes.py` has them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from conventions.execution.declared_task import DeclaredTask
from conventions.sending.application import SendingApplication


class SendableTask(DeclaredTask, Protocol):
    """The methods that return `Any` are Celery's, or return what Celery's do: results and signatures, which have no types."""

    def _application(self) -> SendingApplication:
        """The application. Raises: RuntimeError when it is not one of ours."""

    def checked(self, args: Sequence[Any], kwargs: Mapping[str, Any], /) -> dict[str, Any]:
        """The payload of these arguments, with the checks of every send. Raises: TypeError, PayloadError."""

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **how: Any
    ) -> Any:
        """Send one message."""

    def apply(self, *args: Any, **how: Any) -> Any:
        """Run a job here."""

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """A signature."""

    def AsyncResult(self, task_id: str, /) -> Any:  # noqa: N802  # Celery's name
        """The result of a message."""
