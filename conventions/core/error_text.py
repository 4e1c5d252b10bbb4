"""An error as text: what journal and dead letters keep of it, and the fingerprint by which failures are grouped (R18)."""

import hashlib
import itertools
import linecache
import re
import sysconfig
import traceback as tracebacks
from dataclasses import dataclass
from types import TracebackType

from conventions.core.safe_text import without_secrets

NAME_LENGTH = 255  # of every name in SQL
MESSAGE_LENGTH, TRACEBACK_LENGTH = 10_000, 50_000  # characters: an error may carry all that it was given

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+), in (\S+)', re.MULTILINE)
_CHAINED = re.compile(
    r"\n\n(?:During handling of the above exception, another exception occurred|"
    r"The above exception was the direct cause of the following exception):\n\n"
)


@dataclass(frozen=True, slots=True)
class FailureText:
    """What is kept of an error.

    Args:
        error: the name of its class.
        error_message: its text.
        traceback: as Python prints it, with the errors it was raised from.
        fingerprint: what failures of one cause share.
    """

    error: str
    error_message: str
    traceback: str
    fingerprint: str


def describe(task: str | None, error: BaseException) -> FailureText:
    """The error as text that every database stores, whatever it is."""
    return FailureText(
        error=cut(type(error).__name__),
        error_message=text_of(error),
        traceback=_shortened(clean(without_secrets("".join(tracebacks.format_exception(error)))), TRACEBACK_LENGTH),
        fingerprint=fingerprint(task, error),
    )


def fingerprint(task: str | None, error: BaseException) -> str:
    """What failures of one cause share: task, exception type, and the innermost line of code that is not a library's.

    The line counts as it is written, without its number: what is changed elsewhere in the file makes no new cause.
    """
    cause = f"{task}|{type(error).__qualname__}|{_place(error.__traceback__)}"
    return hashlib.sha256(clean(cause).encode()).hexdigest()[:16]


def clean(text: str) -> str:
    """Text that every database stores: no NUL, no half characters; both are written as escapes."""
    if text.isascii() and "\0" not in text:  # as most is
        return text
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def cut(name: str) -> str:
    """A name that fits into its column."""
    return clean(name)[:NAME_LENGTH]


def text_of(error: BaseException) -> str:
    """What an error says, whatever it is."""
    try:
        return _shortened(clean(without_secrets(str(error))), MESSAGE_LENGTH)
    except Exception as fault:  # noqa: BLE001  # an error that cannot say what it is must be kept all the same
        return f"<its text cannot be had: {type(fault).__name__}>"


def _place(trace: TracebackType | None) -> str:
    frames = [*tracebacks.walk_tb(trace)]
    ours = [one for one in frames if not _of_a_library(one[0].f_code.co_filename)]
    for frame, number in reversed(ours or frames):
        line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("conventions."):  # without its file: a group of one cause outlives a move
            module = "conventions"
        place = f"{module}.{frame.f_code.co_qualname}"
        return f"{place}|{line}" if line else place
    return ""


def place_in(traceback: str) -> str:
    """Where the innermost line is that counts for the cause, as `shop.py:12 in charge`; nothing where no line is told."""
    frames = _CHAINED.split(traceback)[-1]
    # Up to the text of the error, which may be a traceback, too.
    block = itertools.takewhile(lambda line: line.startswith((" ", _HEADER)), frames.splitlines())
    found = _FRAME.findall("\n".join(block))
    ours = [one for one in found if not _of_a_library(one[0])]
    for file, number, function in reversed(ours or found):
        return f"{file.replace('\\', '/').rpartition('/')[2]}:{number} in {function}"
    return ""


def _of_a_library(file: str) -> bool:
    library = ("site-packages" in file) or ("dist-packages" in file) or file.startswith("<frozen ")
    return library or file.startswith(sysconfig.get_path("stdlib"))


def _shortened(text: str, limit: int) -> str:
    """Head and tail of a text that is too long: what failed stands at the end, where it began at the start."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit:,} characters …\n{text[-limit // 2 :]}"
