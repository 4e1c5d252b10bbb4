"""An error as text: what the journal and dead letters keep of it (R18)."""

import traceback as tracebacks
from dataclasses import dataclass
from typing import TypeVar

from conventions.core.failure_fingerprint import fingerprint
from conventions.core.sealed_mark import SHOWN
from conventions.core.secrets_in_text import without_secrets

NAME_LENGTH = 255  # of every name in SQL
MESSAGE_LENGTH, TRACEBACK_LENGTH = 10_000, 50_000  # characters: the text of an error may repeat its whole input


MOST_CAUSES = 100  # of one error; a chain may go in a circle
_OF_THE_PLATFORM = "_conventions_text"  # set by who raises it
_Error = TypeVar("_Error", bound=BaseException)


def without_values(error: _Error) -> _Error:
    """Say of an error that the platform has written its text, and that it repeats nothing of what a job holds. Code of a team may raise the same class."""
    error.__dict__[_OF_THE_PLATFORM] = str(error)
    return error


def says_nothing(error: BaseException) -> bool:
    """Whether the text of an error is the platform's, and repeats nothing of what a job holds. A note that was added to it may."""
    told = error.__dict__.get(_OF_THE_PLATFORM)
    return told is not None and told == str(error) and not getattr(error, "__notes__", None)


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


def describe(task: str | None, error: BaseException, *, sealed: bool = False) -> FailureText:
    """Any error as text that every database can store.

    Args:
        task: the name of its task.
        error: what was raised.
        sealed: whether its text and those of its causes are left out, since they may repeat what is sealed: classes and places in the code stay.
    """
    if sealed:
        return FailureText(
            error=cut(type(error).__name__),
            error_message=text_for(error, sealed=True),
            traceback=_shortened(clean(_places(error)), TRACEBACK_LENGTH),
            fingerprint=fingerprint(task, error),
        )
    return FailureText(
        error=cut(type(error).__name__),
        error_message=text_of(error),
        traceback=_shortened(clean(without_secrets("".join(tracebacks.format_exception(error)))), TRACEBACK_LENGTH),
        fingerprint=fingerprint(task, error),
    )


def text_for(error: BaseException, *, sealed: bool) -> str:
    """The text of an error. For a sealed job only if the text is our own and repeats no value of the job; else a placeholder."""
    return SHOWN if sealed and not says_nothing(error) else text_of(error)


def _places(error: BaseException) -> str:
    """A traceback without the texts of errors: the places of each, the cause first."""
    blocks: list[str] = []
    one: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if one is None:
            break
        places = "".join(tracebacks.format_tb(one.__traceback__))
        blocks.append(
            f"Traceback (most recent call last):\n{places}{type(one).__name__}: {text_for(one, sealed=True)}\n"
        )
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\nDuring handling of the above exception, another exception occurred:\n\n".join(reversed(blocks))


def clean(text: str) -> str:
    """Text that every database can store: NUL and half characters become escapes."""
    if text.isascii() and "\0" not in text:  # most texts are
        return text
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def cut(name: str) -> str:
    """A name that fits into its column."""
    if name.isascii() and len(name) <= NAME_LENGTH and "\0" not in name:  # most names are
        return name
    return clean(name)[:NAME_LENGTH]


def text_of(error: BaseException) -> str:
    """The text of any error, also of one whose `str()` fails."""
    try:
        return _shortened(clean(without_secrets(str(error))), MESSAGE_LENGTH)
    except BaseException as fault:  # noqa: BLE001  # an error without a readable text is kept, too, also where it calls `exit`
        return f"<its text cannot be read: {type(fault).__name__}>"


def _shortened(text: str, limit: int) -> str:
    """Head and tail of a text that is too long. The start shows where it began, the end shows what failed."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit:,} characters …\n{text[-limit // 2 :]}"


def first_line(error: BaseException) -> str:
    """The kind of an error and its text in one line; of an SQL error without the statement and its values.

    Where a table of ours is missing, it says what makes it.
    """
    cause = getattr(error, "orig", None) or error
    text = text_of(cause).strip()
    line = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    is_missing = "no such table: " in line or type(cause).__name__ == "UndefinedTable"  # of SQLite, of psycopg
    return f"{line}; `celery -A <app> db upgrade` makes it" if is_missing and "conventions_" in line else line
