"""A send that is refused for safety is in the audit: who tried to send what, and why it was refused (R20, R22)."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from redis.exceptions import RedisError

from conventions.core.actor import current_actor
from conventions.core.error_text import first_line, text_of
from conventions.core.errors import CredentialInPayload, PermissionDenied
from conventions.execution.application import Application
from conventions.records.audit_entry import MOMENT, AuditEntry

logger = logging.getLogger(__name__)

ACTION = "send refused"
REFUSALS = (CredentialInPayload, PermissionDenied)
LONGEST = 1000  # characters of the reason


class telling_refusals:  # noqa: N801  # used like a function
    """Around a send: what it refuses goes to the audit, by the journal in Redis. Its error goes on, also where Redis does not answer.

    Args:
        app: the application.
        task: the name of what is sent.
        options: of the send; they may name an actor.
    """

    __slots__ = ("_app", "_options", "_task")

    def __init__(self, app: Application, task: str, options: Mapping[str, Any]) -> None:
        self._app, self._task, self._options = app, task, options

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell it."""
        if isinstance(error, REFUSALS):
            named = self._options.get("actor")
            _tell(self._app, self._task, named if isinstance(named, str) and named else current_actor(), error)


def _tell(app: Application, task: str, actor: str, error: BaseException) -> None:
    after = {"task": task, "error": type(error).__name__, MOMENT: datetime.now(UTC).isoformat()}
    entry = AuditEntry(actor, ACTION, task, text_of(error)[:LONGEST], None, after)
    try:
        app.journal.note(entry)
    except RedisError as fault:
        logger.warning("a refused send of %s is not in the audit: %s", task, first_line(fault))
