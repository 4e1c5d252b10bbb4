"""Flower's own actions, such as stopping a worker. Each runs in the name of the login and gets an audit entry (R22)."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from tornado import web

from conventions.broker.caller_headers import check_headers
from conventions.console.guard import Guarded
from conventions.core.actor import acting_as
from conventions.core.errors import PayloadError
from conventions.core.priority import Priority
from conventions.records import audit
from conventions.records.audit_entry import AuditEntry
from conventions.sending.option_checks import check_types

logger = logging.getLogger(__name__)

ACTION_LENGTH, TEXT_LENGTH = 64, 300
METHODS = ("post", "put", "patch", "delete")
# The arguments of Flower's actions.
FLOWER_ARGUMENTS = ("n", "min", "max", "queue", "ratelimit", "hard", "soft", "terminate", "signal")
OPTIONS = frozenset(
    [
        *(
            "countdown",
            "eta",
            "exchange",
            "expires",
            "headers",
            "idempotency_key",
            "ignore_result",
            "priority",
            "queue",
        ),
        *("retry", "routing_key", "shadow", "soft_time_limit", "task_id", "time_limit", "timeout"),
    ]
)
NUMBERS = frozenset(["countdown", "expires", "soft_time_limit", "time_limit", "timeout"])
MOMENTS = frozenset(["eta", "expires"])
LIMITS = {"hard": "time_limit", "soft": "soft_time_limit"}  # by Flower's name
CALLERS_FAULTS = (TypeError, ValueError)
NO_RECORDS = "Nothing was done: the audit cannot be written, since the database does not answer."
NOT_RECORDED = "It was done, or tried, but the audit could not be written; Flower's log has what was done."


class AuditedWrites(Guarded):
    """Records the actions of a handler of Flower in the audit.

    Attributes:
        audit_action: the name of its action in the audit.
        is_answered: whether the worker reports the result; otherwise we only know that the command was sent.
    """

    audit_action = ""
    is_answered = True
    _response: Any = None
    _fault: Exception | None = None

    def write(self, chunk: Any) -> None:
        """Answer, and keep the answer for the audit."""
        self._response = chunk
        super().write(chunk)

    # Messages.

    def get_task_args(self) -> tuple[Any, Any, dict[str, Any]]:
        """The body as Flower reads it. Raises: HTTPError if the sender may not use one of its options."""
        args, kwargs, options = super().get_task_args()
        options = {name: value for name, value in options.items() if value is not None}  # null means "not given"
        if fault := options_fault(options):
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, fault)
        try:
            options = read_options(options)
        except (TypeError, ValueError) as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error
        if not isinstance(kwargs, dict):
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, "kwargs is a mapping of the task's arguments")
        return args, kwargs, options

    def normalize_options(self, options: dict[str, Any]) -> None:
        """Do nothing: `get_task_args` has already read numbers and times."""

    async def run_blocking(
        self, operation: str, target: str, func: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run a blocking call. Messages are sent in the name of the login. Raises: HTTPError."""
        if operation != "task.publish":
            return await super().run_blocking(operation, target, func, *args, **kwargs)
        try:
            return await super().run_blocking(operation, target, self._publishing(func), *args, **kwargs)
        except web.HTTPError as error:
            if isinstance(self._fault, CALLERS_FAULTS):
                raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(self._fault)) from error
            raise

    def _publishing(self, send: Callable[..., Any]) -> Callable[..., Any]:
        actor = self.visitor.name

        @functools.wraps(send)
        def publish(*args: Any, **kwargs: Any) -> Any:
            try:
                with acting_as(actor):
                    return send(*args, **kwargs)
            except Exception as error:
                self._fault = error
                raise

        return publish

    # The audit.

    async def call_and_record(self, method: Callable[..., Any], *args: Any) -> None:
        """Call a method of Flower, and record its result in the audit. Raises: HTTPError."""
        await self._before_writing(self._check_database)
        try:
            self._check_limits()
            found = method(self, *args)
            if isinstance(found, Awaitable):
                await found
        except web.HTTPError as error:
            await self._record(args, error.status_code, error.get_message() or str(self._fault or error))
            raise
        except Exception as error:
            await self._record(args, HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
            raise
        await self._record(args, self.get_status(), self._response)

    def _check_limits(self) -> None:
        """Refuse a time limit that is out of range. Raises: HTTPError."""
        try:
            check_types(
                self.audit_action,
                {wanted: read_number(self.get_argument(name, None)) for name, wanted in LIMITS.items()},
            )
        except (TypeError, ValueError) as error:
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, str(error)) from error

    async def _record(self, args: tuple[Any, ...], status: int, response: Any) -> None:
        after: dict[str, Any] = {"outcome": self._outcome(status), "status": status}
        words = {name: text for name in FLOWER_ARGUMENTS if (text := self.get_argument(name, None)) is not None}
        if worker := self.get_argument("workername", None):
            after["worker"] = worker
        if words:
            after["asked"] = {name: text[:TEXT_LENGTH] for name, text in words.items()}
        if isinstance(response, Mapping) and "task-id" in response:
            after["message_id"] = response["task-id"]
        else:
            after["said"] = str(response.get("message", "") if isinstance(response, Mapping) else response)[
                :TEXT_LENGTH
            ]
        entry = AuditEntry(
            self.visitor.name, f"flower {self.audit_action}"[:ACTION_LENGTH], args[0] if args else "all", after=after
        )
        try:
            await asyncio.to_thread(self._insert, entry)
        except SQLAlchemyError as error:
            logger.exception("not in the audit: %s", entry)
            raise web.HTTPError(HTTPStatus.INTERNAL_SERVER_ERROR, NOT_RECORDED) from error

    def _outcome(self, status: int) -> str:
        if status >= HTTPStatus.BAD_REQUEST:
            return "failed"
        return "done" if self.is_answered else "sent"

    async def _before_writing(self, function: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(function)
        except SQLAlchemyError as error:
            raise web.HTTPError(HTTPStatus.SERVICE_UNAVAILABLE, NO_RECORDS) from error

    def _check_database(self) -> None:
        with self.capp.database.session() as session:
            audit.listing(session, 1)

    def _insert(self, entry: AuditEntry) -> None:
        with self.capp.database.session() as session:
            audit.record(session, entry)


def with_audit_entry(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a handler that also records its result in the audit."""

    @functools.wraps(method)
    async def write(self: AuditedWrites, *args: Any) -> None:
        await self.call_and_record(method, *args)

    return write


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read the options of a message: numbers and times, also from texts, and the priority. Raises: TypeError, ValueError."""
    found = dict(options)
    for name in NUMBERS & found.keys():
        found[name] = read_number(found[name])
    check_types("the message", found)
    for name in MOMENTS & found.keys():
        if isinstance(found[name], str):
            found[name] = datetime.fromisoformat(found[name])
    if "priority" in found:
        found["priority"] = read_priority(found["priority"])
    return found


def read_priority(value: int) -> Priority:
    """The priority for a JSON number. Raises: ValueError."""
    try:
        return Priority(value)
    except ValueError:
        names = ", ".join(f"{member.value} ({member.name})" for member in Priority)
        raise ValueError(f"the message: priority is one of {names}, not {value}") from None


def read_number(value: Any) -> Any:
    """The number in a text; any other value unchanged."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def options_fault(options: Mapping[str, Any]) -> str | None:
    """Why options are refused: an unknown option, the actor, or a header that only we write. `None` if they are allowed."""
    if unknown := sorted(str(name)[:40] for name in options if name not in OPTIONS):
        who = "the actor is who is logged in; " if "actor" in unknown else ""
        return f"{who}leave out {', '.join(unknown)}: a message of Flower's API has {', '.join(sorted(OPTIONS))}"
    try:  # also for an unknown task, as in `send-task`
        check_headers("send-task", options)
    except (TypeError, ValueError, PayloadError) as fault:
        return str(fault)
    return None
