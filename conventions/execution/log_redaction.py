"""What our processes write to their logs: no secrets of addresses, nothing that a terminal obeys; `success_log.py` leaves out results."""

import logging
from collections.abc import Callable
from typing import Any

from conventions.core.printable_text import printable
from conventions.core.secrets_in_text import without_secrets
from conventions.execution.success_log import use_success_line

TALKERS = ("httpx", "httpcore")  # at INFO they log each address, and a webhook's is a secret


class SafeRecord(logging.LogRecord):
    """A line of the log, whatever formats it; a traceback keeps its lines."""

    makes_safe = True  # a mark: it may be the factory itself

    def getMessage(self) -> str:  # noqa: N802  # logging's name
        """What it says."""
        if self.exc_info or self.exc_text:
            self.__class__ = SafeTraceback  # formatters ask for this first, and only then write the traceback
        return printable(without_secrets(logging.LogRecord.getMessage(self)))


class SafeTraceback(SafeRecord):
    """A line with a traceback. It is a class of its own, since a property of every line costs 1 µs, and few lines have a traceback."""

    @property
    def exc_text(self) -> str | None:
        """The traceback."""
        found: str | None = self.__dict__.get("exc_text")
        return found

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        self.__dict__["exc_text"] = text and printable(without_secrets(text), lines=True)


def make_safe() -> None:
    """Let this process, and those that it forks, write such logs. Does nothing the second time."""
    factory = logging.getLogRecordFactory()
    if not hasattr(factory, "makes_safe"):
        # The usual factory gives way to the class itself: to make a record of another class of one costs a microsecond a line.
        logging.setLogRecordFactory(SafeRecord if factory is logging.LogRecord else _safe(factory))
        use_success_line()
    for name in TALKERS:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.WARNING)


def _safe(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if type(record) is logging.LogRecord:  # that of another library has a form of its own
            record.__class__ = SafeRecord
        return record

    made.makes_safe = True  # type: ignore[attr-defined]  # a mark
    return made
