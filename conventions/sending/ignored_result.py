"""`ignored_result`: the class of what a send returns whose result nobody keeps."""

import functools
from typing import Any

from vine import promise


class IgnoredResult:
    """A result of Celery that is `ignored`, and prepares for those who wait only when somebody does.

    Nearly all are dropped at once, and what Celery prepares for each, and then takes apart again, is a tenth of a send.

    Args:
        id, backend, task_name, app, parent: those of Celery's `AsyncResult`.
    """

    _on_fulfilled: Any
    app: Any

    def __init__(
        self,
        id: str,  # noqa: A002  # Celery's name
        backend: Any = None,
        task_name: str | None = None,  # noqa: ARG002  # Celery's signature
        app: Any = None,
        parent: Any = None,
    ) -> None:
        if app is not None:
            self.app = app
        self.id, self.backend, self.parent = id, backend or self.app.backend, parent
        self._cache = None
        self._ignored = True

    @functools.cached_property
    def on_ready(self) -> Any:
        """Fulfilled when there is a result."""
        return promise(self._on_fulfilled, weak=True)

    def __del__(self) -> None:
        """Let the backend forget it, which knows only of those that somebody has waited for."""
        if "on_ready" in vars(self):
            super().__del__()  # type: ignore[misc]  # of Celery's class, beside this one


def ignored_result(app: Any) -> Any:
    """Such results of an application: a class beside its `AsyncResult`, and of that name."""
    return type(app.AsyncResult.__name__, (IgnoredResult, app.AsyncResult), {"__module__": __name__})
