"""Which failures have one cause: the fingerprint that groups them, and the place in the code that it comes from (R18)."""

import hashlib
import itertools
import linecache
import re
import sysconfig
import traceback as tracebacks
from types import TracebackType

from conventions.core.errors import PayloadError

_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r'^  File "([^"\n]+)", line (\d+), in (\S+)', re.MULTILINE)
_CHAINED = re.compile(
    r"\n\n(?:During handling of the above exception, another exception occurred|"
    r"The above exception was the direct cause of the following exception):\n\n"
)


def fingerprint(task: str | None, error: BaseException) -> str:
    """One value for all failures of one cause: task, exception type, and the innermost line of code outside libraries.

    The text of the line counts, not its number: a change elsewhere in the file keeps the fingerprint.

    Arguments that do not fit all fail at one line of ours. There the kind of misfit counts, too, and the declared argument
    that it is about: two releases that each refuse the other's messages have two causes. See `Arguments.misfit`.
    """
    cause = f"{task}|{type(error).__qualname__}|{_place(error.__traceback__)}"
    if isinstance(error, PayloadError) and error.misfit:
        cause += f"|{error.misfit}"
    return hashlib.sha256(cause.replace("\0", "\\0").encode(errors="backslashreplace")).hexdigest()[:16]


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
        name = file.replace("\\", "/").rpartition("/")[2]
        return f"{name}:{number} in {function}"
    return ""


def _of_a_library(file: str) -> bool:
    library = ("site-packages" in file) or ("dist-packages" in file) or file.startswith("<frozen ")
    return library or file.startswith(sysconfig.get_path("stdlib"))
