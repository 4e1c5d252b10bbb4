"""An error as text: what the journal and dead letters keep, and the fingerprint that groups failures (R18)."""

import hashlib
import itertools
import linecache
import re
import sysconfig
import traceback as tracebacks
from dataclasses import dataclass
from types import TracebackType

from conventions.core.secrets_in_text import without_secrets

NAME_LENGTH = 255  # of every name in SQL
MESSAGE_LENGTH, TRACEBACK_LENGTH = 10_000, 50_000  # characters: the text of an error may repeat its whole input

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+), in (\S+)', re.MULTILINE)
_CHAINED = re.compile(
    r"\n\n(?:During handling of the above exception, another exception occurred|"
    r"The above exception was the direct cause of the following exception):\n\n"
)


@dataclass(frozen=True, slots=True)
class FailureText:
    """What we keep of an error.

    Args:
        error: the name of its class.
        error_message: its text.
        traceback: as Python prints it, with the errors that caused it.
        fingerprint: the same for all failures of one cause.
    """

    error: str
    error_message: str
    traceback: str
    fingerprint: str


def describe(task: str | None, error: BaseException) -> FailureText:
    """Any error as text that every database can store."""
    return FailureText(
        error=cut(type(error).__name__),
        error_message=text_of(error),
        traceback=_shortened(clean(without_secrets("".join(tracebacks.format_exception(error)))), TRACEBACK_LENGTH),
        fingerprint=fingerprint(task, error),
    )


def fingerprint(task: str | None, error: BaseException) -> str:
    """One value for all failures of one cause: task, exception type, and the innermost line of code outside libraries.

    The text of the line counts, not its number: a change elsewhere in the file keeps the fingerprint.
    """
    cause = f"{task}|{type(error).__qualname__}|{_place(error.__traceback__)}"
    return hashlib.sha256(clean(cause).encode()).hexdigest()[:16]


def clean(text: str) -> str:
    """Text that every database can store: NUL and half characters become escapes."""
    if text.isascii() and "\0" not in text:  # most texts are
        return text
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def cut(name: str) -> str:
    """A name that fits into its column."""
    return clean(name)[:NAME_LENGTH]


def text_of(error: BaseException) -> str:
    """The text of any error, also of one whose `str()` fails."""
    try:
        return _shortened(clean(without_secrets(str(error))), MESSAGE_LENGTH)
    except Exception as fault:  # noqa: BLE001  # an error without a readable text is kept, too
        return f"<its text cannot be read: {type(fault).__name__}>"


def _place(trace: TracebackType | None) -> str:
    frames = [*tracebacks.walk_tb(trace)]
    ours = [one for one in frames if not _of_a_library(one[0].f_code.co_filename)]
    for frame, number in reversed(ours or frames):
        line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals).strip()
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("conventions."):  # without the file name: a moved file keeps the groups of dead letters
            module = "conventions"
        place = f"{module}.{frame.f_code.co_qualname}"
        return f"{place}|{line}" if line else place
    return ""


def place_in(traceback: str) -> str:
    """The innermost line of the cause in a printed traceback, as `shop.py:12 in charge`. Empty when there is none."""
    frames = _CHAINED.split(traceback)[-1]
    # Stop before the text of the error: it may itself contain a traceback.
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
    """Head and tail of a text that is too long. The start shows where it began, the end shows what failed."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit:,} characters …\n{text[-limit // 2 :]}"
