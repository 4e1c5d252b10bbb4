"""What is hidden from who may not see values: arguments keep their names, reasons are hidden, but not those of pauses (R22)."""

from collections.abc import Mapping
from typing import Any

from conventions.console.display import as_json
from conventions.core.time_units import local_time, moment

HIDDEN = "•••"
PAUSES = (
    "schedule pause",
    "queue pause",
    "task pause",
    "worker pause",
)  # their forms say that everybody sees the reason
WITH_ARGUMENTS = ("dead-letters edit",)  # actions whose rows name arguments of jobs, which are shown as they are
OUR_TIMES = ("until", "counted_at", "newest")  # what else such a row has as a time


def arguments_text(arguments: Any, *, hidden: bool) -> str:
    """Arguments as JSON text; hidden ones keep their names."""
    if hidden and isinstance(arguments, Mapping):
        arguments = dict.fromkeys(arguments, HIDDEN)
    elif hidden:
        return HIDDEN
    return as_json(arguments)


def audit_text(action: str | None, value: Any, zone: str, *, hidden: bool) -> str:
    """What was before an action, or after it, as JSON text: times of ours in the time zone of the settings."""
    if isinstance(value, Mapping) and action not in WITH_ARGUMENTS:
        value = {name: _in_zone(name, one, zone) for name, one in value.items()}
    return arguments_text(value, hidden=hidden)


def _in_zone(name: str, value: Any, zone: str) -> Any:
    found = moment(value) if name in OUR_TIMES and isinstance(value, str) else None
    return value if found is None else local_time(found, zone)


def reason_text(action: str | None, reason: str | None, *, hidden: bool) -> str:
    """Why somebody did something; hidden but for a pause, whose form says that everybody sees it."""
    if not reason:
        return ""
    return HIDDEN if hidden and action not in PAUSES else reason
