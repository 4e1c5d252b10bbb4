"""`IgnoredResult`: what a send returns whose result nobody keeps."""

import functools
from typing import Any

from celery.result import AsyncResult
from vine import promise


class IgnoredResult(AsyncResult):
    """Celery's result, `ignored`, which prepares for those who wait only when somebody does.

    Nearly all are dropped at once, and what Celery prepares for each, and then takes apart again, is a tenth of a send.

    Args:
        id: that of the message.
    """

    app: Any = None

    def __init__(self, id: str) -> None:  # noqa: A002  # Celery's name
        self.id, self.backend, self.parent = id, self.app.backend, None
        self._cache = None
        self._ignored = True

    @functools.cached_property
    def on_ready(self) -> Any:
        """Fulfilled when there is a result."""
        return promise(self._on_fulfilled, weak=True)

    def __del__(self) -> None:
        """Let the backend forget it, which knows only of those that somebody has waited for."""
        if "on_ready" in vars(self):
            super().__del__()
