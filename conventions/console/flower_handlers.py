"""Checks before Flower's own pages and API: each requires a role and hides values from viewers (R22)."""

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from flower.utils.blocking import BlockingOperationRunner
from flower.views import BaseHandler
from flower.views.error import NotFoundErrorHandler
from redis.exceptions import RedisError
from tornado import web
from tornado.options import options
from tornado.routing import URLSpec

from conventions.console.flower_masks import SORTED, masked
from conventions.console.flower_permissions import LOGIN, NO_SEARCH, OPEN, RULES, UNKNOWN, may_search
from conventions.console.flower_queues import FlowerQueues
from conventions.console.flower_writes import METHODS, AuditedWrites, with_audit_entry
from conventions.console.guard import READS, Checked
from conventions.console.page import POLICY
from conventions.core.time_units import local_time
from conventions.library_internals.celery import symbol_by_name
from conventions.metrics.prometheus_server import text_of

logger = logging.getLogger(__name__)

LONGEST_WAIT = 3.0  # seconds for a result
WAITS = 10  # threads that wait for results; only other such requests queue behind them
METRICS = "flower.views.monitor.Metrics"
UNREADABLE = b'# TYPE conventions_part_unreadable gauge\nconventions_part_unreadable{part="counts"} 1.0\n'
SEARCHES = ("search[value]", "search")


class GuardedFlower(AuditedWrites):
    """The checks of a handler of Flower. They run before the handler."""

    rule = UNKNOWN

    def set_default_headers(self) -> None:
        """Forbid copies on a disk."""
        super().set_default_headers()
        self.set_header("Cache-Control", POLICY["Cache-Control"])

    async def prepare(self) -> None:
        """Refuse a wrong host, a missing login, or a role that is too low."""
        found = super().prepare()
        if found is not None:
            await found
        self.sign_in()
        if self._finished:  # redirected to the login
            return
        if self.request.method in (*READS, "OPTIONS") or (self.rule.posts and self.request.method == "POST"):
            self.require(self.rule.reads)
        elif refused := self.refusal("admin"):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, refused)
        if not self.visitor.sees_values:
            self._refuse_guesses()

    def _refuse_guesses(self) -> None:
        """Refuse a search or a sort order that would reveal values. Raises: HTTPError."""
        if not all(may_search(web.RequestHandler.get_argument(self, name, "")) for name in SEARCHES):
            raise web.HTTPError(HTTPStatus.FORBIDDEN, NO_SEARCH)
        column = BaseHandler.get_argument(self, "order[0][column]", None, type=int)  # Flower reads "01" as 1
        for name in ("sort_by", f"columns[{column}][data]"):
            if web.RequestHandler.get_argument(self, name, "").lstrip("-") not in {"", *SORTED}:
                raise web.HTTPError(HTTPStatus.FORBIDDEN, NO_SEARCH)

    # Hiding values.

    def write(self, chunk: Any) -> None:
        """Answer. Viewers get tasks without values."""
        super().write(masked(chunk) if isinstance(chunk, dict) and not self._sees_values else chunk)

    def render(self, template_name: str, **kwargs: Any) -> Any:
        """Show a page. Viewers get tasks without values."""
        shown = kwargs if self._sees_values else {name: masked(value) for name, value in kwargs.items()}
        return super().render(template_name, **shown)

    def format_task(self, task: Any) -> Any:
        """A task in the list of tasks."""
        found = super().format_task(task)
        if self._sees_values:
            return found
        return (found[0], masked(found[1])) if isinstance(found, tuple) else masked(found)

    @property
    def _sees_values(self) -> bool:
        # An error page may be shown before the visitor is known.
        return getattr(self, "_current_user", None) is not None and self.visitor.sees_values

    @property
    def heard(self) -> str:
        """Of what its pages are: not of what has happened, but of the events that it has heard."""
        begun_at = local_time(self.application.settings["conventions_begun_at"], self.capp.settings.timezone)
        since = "its file of --persistent was begun" if self.application.options.persistent else begun_at
        return f"By the events that this Flower has heard since {since}. What came before, or was not told, is missing."

    # Queues.

    def get_broker(self) -> Any:
        """The object that reads the lengths of queues."""
        if not self.capp.port.can.looks:
            return super().get_broker()
        state = self.application.events.state
        return FlowerQueues(self.capp, [name for name, worker in state.workers.items() if worker.alive])

    # Waiting for results.

    async def run_blocking(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Wait for results in threads of their own, since a result may never come."""
        if operation in ("task.result", "task.result_wait"):
            return await _waiting().run(operation, *args, **kwargs)
        return await super().run_blocking(operation, *args, **kwargs)

    def read_result(self, result: Any, timeout: float | None) -> Any:
        """A result, after at most a short wait."""
        return super().read_result(result, None if timeout is None else _bounded(timeout))

    def wait_results(self, result: Any, response: Any, timeout: float | None = None) -> Any:
        """The result of a task that was just sent, after at most a short wait."""
        return super().wait_results(result, response, timeout=_bounded(timeout))


class CheckedHandler(Checked):
    """The checks of a handler that needs no login. They run before the handler."""


def with_our_metrics(get: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Flower's `/metrics`, and ours below it. They are read in a thread, since Flower's one loop also takes the events of workers."""

    @functools.wraps(get)
    async def both(handler: Any) -> None:
        await get(handler)
        try:
            text = await asyncio.to_thread(text_of, handler.capp)
        except RedisError as error:
            logger.warning("/metrics lacks those of the jobs: %s", error)
            text = UNREADABLE
        handler.write(text)

    return both


class Login(BaseHandler):
    """`/login`: Flower's own handler, or the one of `--auth-provider`."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """The chosen login handler, with the checks before it."""
        provider: type[Any] = symbol_by_name(options.auth_provider) if options.auth_provider else NotFoundErrorHandler
        return _with(CheckedHandler, provider)(*args, **kwargs)


class UnknownHandler(GuardedFlower):
    """Replaces an unknown handler, for example one of a later Flower."""

    def get(self, *_: str) -> None:
        """Refuse. Raises: HTTPError."""
        raise web.HTTPError(HTTPStatus.FORBIDDEN, "The console does not know this part of Flower.")

    head = post = put = patch = delete = get


def guarded(handler: type[Any]) -> type[Any]:
    """A handler of Flower with the checks before it."""
    if issubclass(handler, Checked):
        return handler
    name = f"{handler.__module__}.{handler.__qualname__}"
    if name == LOGIN:
        return Login
    if name in OPEN:
        return _with(CheckedHandler, handler)
    if not issubclass(handler, BaseHandler):
        return UnknownHandler
    rule = RULES.get(name, UNKNOWN)
    found = {"rule": rule, "audit_action": rule.audit_action, "is_answered": rule.is_answered}
    methods = METHODS[1:] if rule.posts else METHODS
    if name == METRICS:
        found["get"] = with_our_metrics(handler.get)
    writes = {name: with_audit_entry(vars(handler)[name]) for name in methods if name in vars(handler)}
    return _with(GuardedFlower, handler, found | writes)


def guard_handlers(handlers: list[Any], settings: dict[str, Any]) -> None:
    """Put the checks before these handlers, and before the static file handlers that Tornado adds itself."""
    for place, entry in enumerate(handlers):
        spec = entry if isinstance(entry, URLSpec) else web.url(*entry)
        handlers[place] = web.url(spec.regex.pattern, guarded(spec.handler_class), spec.kwargs, spec.name)
    settings["static_handler_class"] = guarded(settings.get("static_handler_class", web.StaticFileHandler))


def _with(checks: type[Any], handler: type[Any], more: Mapping[str, Any] | None = None) -> type[Any]:
    return type(handler.__name__, (checks, handler), {"__doc__": handler.__doc__, **(more or {})})


def _bounded(timeout: float | None) -> float:
    if timeout is None or not math.isfinite(timeout) or timeout <= 0:
        return LONGEST_WAIT
    return min(timeout, LONGEST_WAIT)


@functools.cache
def _waiting() -> Any:
    return BlockingOperationRunner(ThreadPoolExecutor(WAITS, "results"), WAITS)
