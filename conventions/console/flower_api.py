"""Flower's own writes, such as the end of a worker: for admins, and with a row in the audit (R22)."""

import asyncio
from http import HTTPStatus
from typing import Any

from flower.api import BaseApiHandler
from tornado import web

from conventions import audit
from conventions.console.page import READS, Guarded
from conventions.deeds import Deed

ACTION_LENGTH = 64


class GuardedApi(Guarded):
    """Goes before a handler of Flower's API."""

    async def prepare(self) -> None:
        """Refuse who is no admin, and write down what an admin does."""
        super().prepare()
        if self.request.method in (*READS, "OPTIONS") or not self.current_user:  # Flower sends these to the login
            return
        if refused := self.refusal("admin"):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, refused)
        await asyncio.to_thread(self._record)

    def _record(self) -> None:
        # /api/worker/shutdown/celery@host: what is done, and to which
        kind, _, rest = self.request.path.partition("/api/")[2].partition("/")
        deed, _, target = rest.partition("/")
        action = f"flower {kind} {deed}"[:ACTION_LENGTH]
        with self.capp.database.session() as session:
            audit.record(session, Deed(self.visitor.name, action, target or "all"))


def guarded(handler: Any) -> Any:
    """A handler of Flower's API with the checks before it."""
    return type(handler.__name__, (GuardedApi, handler), {"__doc__": handler.__doc__})


def guard(handlers: list[Any]) -> None:
    """Put the checks before each handler of Flower's API in this list."""
    for place, entry in enumerate(handlers):
        if isinstance(entry, tuple) and len(entry) == 2 and issubclass(entry[1], BaseApiHandler):
            handlers[place] = (entry[0], guarded(entry[1]))
