"""Filters the events of workers before Flower keeps them: a wrong event or field would break Flower's pages.

Anybody who can publish to the broker can send any event in the name of any worker. Flower calculates with these values on each
page, and never forgets a worker.
"""

import logging
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from celery.events.state import Task, Worker

from conventions.core.error_text import clean
from conventions.core.value_bounds import is_text

logger = logging.getLogger(__name__)

NEEDED = {"type": str, "hostname": str}
MOMENTS = frozenset(
    [
        *("timestamp", "local_received"),
        *("sent", "received", "started", "rejected", "succeeded", "failed", "retried", "revoked"),
    ]
)
NUMBERS = MOMENTS | {"clock", "pid", "utcoffset", "freq", "active", "processed", "runtime", "retries"}
TEXTS = frozenset(
    [
        *("uuid", "name", "state", "args", "kwargs", "result", "exception", "traceback", "eta", "expires"),
        *("exchange", "routing_key", "queue", "root_id", "parent_id", "client", "sw_ident", "sw_ver", "sw_sys"),
    ]
)
OF_WORKERS = frozenset(Worker._fields)
OF_TASKS = frozenset(Task._fields)
OF_EVENTS = frozenset(["type", "hostname", "timestamp", "local_received", "clock", "pid", "utcoffset", "uuid"])
SET_BY_FLOWER = frozenset(["worker", "children", "root", "parent", "heartbeats", "event", "cluster_state"])
LARGEST = 2.0**53  # the largest whole number in JavaScript
LATEST = 2.0**37  # seconds since 1970, in a year that Python's calendar has


def clean_event(event: Any) -> dict[str, Any] | None:
    """The event without the fields that Flower cannot show. `None` if it is not an event."""
    if not isinstance(event, Mapping) or not all(isinstance(event.get(name), kind) for name, kind in NEEDED.items()):
        return None
    group, dash, rest = event["type"].partition("-")
    if not (dash and rest) or (group == "task" and not isinstance(event.get("uuid"), str)):
        return None
    return {name: _written(value) for name, value in event.items() if _fits(group, name, value)}


def _written(value: Any) -> Any:
    """Escape lone surrogates. Pages and Prometheus cannot encode them."""
    return clean(value) if isinstance(value, str) and not is_text(value) else value


def _fits(group: str, name: Any, value: Any) -> bool:
    if not isinstance(name, str) or not _is_known(group, name):
        return False
    if value is None:
        return True
    if name in NUMBERS:
        return _is_number(value) and (name not in MOMENTS or 0 <= value < LATEST)
    if name == "loadavg":
        return isinstance(value, list | tuple) and len(value) <= 3 and all(map(_is_number, value))
    return name not in TEXTS or isinstance(value, str)


def _is_known(group: str, name: str) -> bool:
    if name in SET_BY_FLOWER:
        return False
    if group == "worker":
        return name in OF_EVENTS | OF_WORKERS
    # A field of a team's own event must not replace a method.
    return group != "task" or name in OF_EVENTS | OF_TASKS | {"queue"} or not (name[:1] == "_" or hasattr(Task, name))


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and math.isfinite(value) and abs(value) < LARGEST


def with_filter(on_event: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Flower's receiver of events, with the filter before it."""

    @wraps(on_event)
    def take(events: Any, event: Any) -> None:
        found = clean_event(event)
        if found is None:
            logger.warning("an event was left out that is none")
        else:
            if len(found) < len(event):
                names = ", ".join(repr(name)[:40] for name in event if name not in found)
                logger.debug("an event of %r was taken without %s", found["hostname"][:80], names)
            on_event(events, found)

    take.is_checked = True  # type: ignore[attr-defined]  # marks the receiver, so that it is wrapped once
    return take
