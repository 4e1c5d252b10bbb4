"""`ignored_result`: the class of the result that a send returns if nobody keeps the result."""

import functools
from typing import Any

from vine import promise

from conventions.execution.application import Application


class IgnoredResult:
    """An ignored result of Celery. It prepares for waiting only when somebody waits.

    Nearly all such results are dropped at once. Celery's preparation, and its removal, would cost a tenth of a send.

    Args:
        id, backend, task_name, app, parent: as for Celery's `AsyncResult`.
    """

    _on_fulfilled: Any
    app: Application

    def __init__(
        self,
        id: str,  # noqa: A002  # Celery's name
        backend: Any = None,
        task_name: str | None = None,  # noqa: ARG002  # Celery's signature
        app: Application | None = None,
        parent: Any = None,
    ) -> None:
        if app is not None:
            self.app = app
        self.id, self.backend, self.parent = id, backend or self.app.backend, parent
        self._cache = None
        self._ignored = False  # `get` waits: the end of a job is known, also if its result is not kept

    @functools.cached_property
    def on_ready(self) -> Any:
        """A promise that is fulfilled when there is a result."""
        return promise(self._on_fulfilled, weak=True)

    def __del__(self) -> None:
        """Let the backend forget it. The backend only knows results that somebody has waited for."""
        if "on_ready" in vars(self):
            super().__del__()  # type: ignore[misc]  # the other base class has it


def ignored_result(app: Application) -> Any:
    """The class of ignored results of an application: a subclass of its `AsyncResult`, with the same name."""
    return type(app.AsyncResult.__name__, (IgnoredResult, app.AsyncResult), {"__module__": __name__})
