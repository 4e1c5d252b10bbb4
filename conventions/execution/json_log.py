"""`CONVENTIONS_LOG_FORMAT=json`: each line of the log is one JSON object, for programs that collect logs."""

import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery.app.log import Logging

from conventions.core.printable_text import printable
from conventions.core.secrets_in_text import without_secrets
from conventions.library_internals.celery import current_task
from conventions.tracing.door import ids_of_open_span

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
_OURS = ("celery.", "conventions.")  # their lines are about a job that they name
_OF_CELERY = "celery."  # its loggers put the arguments of a job into `data`, which may be personal
_TOLD = {
    "id": "id",
    "name": "task",
    "runtime": "runtime",
    "actor": "actor",
    "attempt": "attempt",
    "event": "event",
}  # what we take of that
MOST = 10**300  # of a number: Python refuses to write longer ones
_DEPTH = 4  # of what a team passes as `extra`


class LogSetup(Logging):
    """Celery's own set-up of the log, with our form of a line where the settings say so."""

    def setup_handlers(self, *args: Any, **options: Any) -> logging.Logger:
        """A logger with its handler. Celery asks for the root, for tasks, and for processes."""
        if self.app.settings.log_format == "json":
            options["formatter"] = JsonFormatter
        logger: logging.Logger = super().setup_handlers(*args, **options)
        return logger


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object in one line.

    It has `time` (ISO 8601, UTC), `level`, `logger`, `process` and `message`; `id` and `task` within a job; `trace_id` and `span_id` within a span of
    OpenTelemetry; `traceback` of an error; and whatever
    was passed as `extra=`, as our lines about failures do: as `extra_<name>` where there is such a field already. Secrets of addresses are left
    out. A record that cannot be written as it is has the field `log_fault`.
    """

    def __init__(self, *_format: Any, **_options: Any) -> None:
        super().__init__()  # a form, a form of dates and colours, as Celery passes them, say nothing here

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        try:
            return json.dumps(self._line_of(record), ensure_ascii=False)
        except Exception as fault:  # noqa: BLE001  # logging would print the record, as it is, in many lines
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": _text(record.levelname)}
            line |= {"logger": _text(record.name), "message": _text(record.msg), "log_fault": _text(repr(fault))}
            return json.dumps(line)

    def _line_of(self, record: logging.LogRecord) -> dict[str, Any]:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": _text(record.levelname),
            "logger": _text(record.name),
            "process": _text(record.processName),
            "message": _text(record.getMessage()),
        }
        extra = {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.name.startswith(_OF_CELERY) and isinstance(told := extra.pop("data", None), Mapping):
            extra |= {ours: told[theirs] for theirs, ours in _TOLD.items() if theirs in told}
        if not record.name.startswith(_OURS) or "id" not in extra:
            line |= _running_job()
        line |= ids_of_open_span()
        for name, value in extra.items():
            line[f"extra_{_text(name)}" if name in line else _text(name)] = _plain(value)
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["traceback"] = _plain(record.exc_text)
        if record.stack_info:
            line["stack"] = _plain(record.stack_info)
        return line


def _running_job() -> dict[str, str]:
    task = current_task()
    running = task and task.request.id  # `None` where a task is only called
    return {"id": running, "task": task.name} if running else {}


def _plain(value: Any, depth: int = _DEPTH) -> Any:
    """A value as JSON has it; a text without secrets; what JSON cannot say, as a text."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < MOST):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and depth:
        return {_text(name): _plain(one, depth - 1) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth:
        return [_plain(one, depth - 1) for one in value]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return printable(without_secrets(str(value)), lines=True)
    except Exception as fault:  # noqa: BLE001  # of a class of a team; the line is written all the same
        return f"<its text cannot be read: {type(fault).__name__}>"
