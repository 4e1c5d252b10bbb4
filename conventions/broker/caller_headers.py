"""`OwnHeaders`: the headers that this platform writes; and a check of the headers that a caller passes.

Our headers decide what a message is: its key, its sender, its attempts. So a caller may not pass them, nor the headers
of
Celery's protocol. Other headers, such as those of tracing, travel unchanged, even if they begin with `x_`.
"""

from collections.abc import Mapping
from typing import Any

from kombu.utils.json import dumps

from conventions.broker.header_names import (
    ACTOR,
    COUNTS,
    ENQUEUED_AT,
    KEY,
    LATER,
    ON_REQUEST,
    OURS,
    PLANNED_AT,
    READY_AT,
)
from conventions.core.errors import PayloadError
from conventions.core.value_bounds import fault_of_name, half_character
from conventions.library_internals.celery import REQUEST_FIELDS

LIMIT = 16 * 1024  # bytes of JSON: all headers that a caller passes

_OF_CELERY = frozenset(
    [name for name in REQUEST_FIELDS if not name.startswith("_") and name != "headers"]
    + ["argsrepr", "compression", "kwargsrepr", "lang", "task"]
    + [*ON_REQUEST]
)
_INSTEAD = {
    ACTOR: "pass actor=...",
    KEY: "pass idempotency_key=...",
    PLANNED_AT: "pass planned_at=...",
    "id": "pass task_id=...",
    **{
        name: f"pass {name}=..."
        for name in ("eta", "expires", "ignore_result", "shadow", "time_limit", "soft_time_limit")
    },
    **dict.fromkeys((COUNTS, ENQUEUED_AT, READY_AT), "leave it out: each message gets its own"),
}
_OURS = frozenset(OURS)


class OwnHeaders(dict[str, Any]):
    """Headers that this process made. Headers from JSON or from a caller are plain mappings."""


class AcceptedHeaders(OwnHeaders):
    """Headers of a message that was checked before, perhaps under other limits. So it is not checked again. A retry has them, for example."""


def without_passed_on(headers: Any, of_running: Any) -> Any:
    """The headers without those of ours that a function passes on from its own message, as Celery's `request.headers` has them."""
    if not isinstance(headers, Mapping) or _OURS.isdisjoint(headers):
        return headers
    passed_on = {
        name for name in _OURS & headers.keys() if name in (of_running or {}) and of_running[name] == headers[name]
    }
    return {name: value for name, value in headers.items() if name not in passed_on}


def check_sender(headers: Mapping[str, Any], application: str) -> None:
    """Refuse a message that Celery has made for another application. It would go where no worker of that application looks.

    Each message that Celery makes for an application of ours has a header of ours.

    Raises:
        TypeError: this one has none.
    """
    if "task" in headers and "origin" in headers and _OURS.isdisjoint(headers):
        raise TypeError(
            f"{headers['task']}: another application of Celery has made this message, and sends it over a connection of {application}, where no "
            "worker of that one looks for it: leave connection= and producer= out, and send a group with tasks of several applications in parts"
        )


def of_another_program(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a message of another program, without those that only our applications write."""
    return {name: one for name, one in headers.items() if isinstance(name, str) and not _is_of_platform(name)}


def without_ours(headers: Any) -> dict[str, Any]:
    """The headers without those that no caller may pass."""
    found = headers if isinstance(headers, Mapping) else {}
    return {name: value for name, value in found.items() if isinstance(name, str) and not _is_ours(name)}


def _is_ours(name: str) -> bool:
    return _is_of_platform(name) or name in _OF_CELERY


def _is_of_platform(name: str) -> bool:
    return name.lower() in _OURS or name.lower().startswith(LATER)


def check_headers(task: str, options: Mapping[str, Any]) -> None:
    """Refuse headers that a caller may not pass, in the options of a send or of a step after it.

    Raises:
        TypeError: they are not a mapping, or one of them is ours or Celery's.
        ValueError: the name of a header cannot be a name.
        PayloadError: JSON cannot hold them, or they are too large.
    """
    given = options.get("headers")
    if not given or isinstance(given, OwnHeaders):
        return
    if not isinstance(given, Mapping):
        raise TypeError(f"{task}: headers is a mapping of names and values, not {type(given).__name__}")
    within = given.get("headers")  # tracing repeats the headers here
    for name in (*given, *(within if isinstance(within, Mapping) else ())):
        if not isinstance(name, str):
            raise TypeError(f"{task}: the name of a header is text, not {type(name).__name__}")
        if _is_ours(name):
            instead = _INSTEAD.get(name, "call it something else")
            raise TypeError(f"{task}: the header {name} is the platform's own, and no caller may give it; {instead}")
        if fault := fault_of_name(name):
            raise ValueError(f"{task}: the name of a header {fault}")
    try:
        size = len(dumps(dict(given), allow_nan=False))  # type: ignore[no-untyped-call]  # kombu has few types
        where = half_character(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"{task}: headers cannot be written as JSON ({error})") from None
    if where is not None:
        raise PayloadError(
            f"{task}: the header '{where}' holds half a character (a lone surrogate), which no text may hold"
        )
    if size > LIMIT:
        raise PayloadError(
            f"{task}: headers have {size:,} bytes of JSON, the limit is {LIMIT:,}; pass the data as arguments, or store it"
        )
