"""Every error this package raises, in one tree.

    Exception
    └── ConventionError
        ├── BusinessError            raise it in `run`: a failure that no retry can mend
        │   └── ItemsChanged         a batch was interrupted, and its items are others now
        ├── RetryRequested           `self.retry()` was called without an error
        ├── JobFailed                the job failed before, and whoever waits for it hears of it now
        ├── JobExited                a job called `sys.exit()`
        ├── JobRejected              a job gave its message up, or returned it
        ├── JobCancelled             the message was cancelled while it ran; told at the next report of progress
        ├── TooManyStarts            started again and again, and its process was killed each time
        ├── TooOldToTell             older than what is remembered: nobody can tell whether it ran
        ├── UnknownTask              no task of that name is registered
        ├── UndeliverableMessage     what lay in a queue is no message of a task
        ├── UnknownForm              a message in a form of a later release: it is left where it is
        ├── PayloadError             an argument that cannot be sent or cannot be run  (ValueError)
        │   └── CredentialInPayload  an argument that looks like a credential
        ├── IdempotencyConflict      one key, two different payloads
        ├── TransactionRepeated      a second `self.transaction()` in one attempt
        ├── LeaseLost                another worker has taken this job over
        ├── LetterNotEditable        a dead letter whose arguments cannot be changed
        ├── SelectionChanged         other dead letters than those that somebody agreed to
        ├── JournalFull              events wait for SQL, so that no more may be added
        ├── PurgeStopped             a purge that could not go on; says how many messages are gone and left
        ├── PermissionDenied         the actor may not run this task
        ├── BrokerUnavailable        the broker did not take a message in time (ConnectionError)
        ├── DeclarationError         a task class that may not exist as written (TypeError)
        ├── ScheduleError            a schedule that may not exist as written   (ValueError)
        └── ConfigurationError       settings that cannot work, all faults at once (click: exit status 2)
            ├── NewerLayout          a later release has written what is in Redis: nothing is sent or run by this one
            └── TaskModuleError      a task module that cannot be imported

Every argument goes to `Exception.__init__`, so that each of them survives pickling between processes. Those that a team imports say that
they are of `conventions`: results and pickles keep that name, and this file may move.
"""

from collections.abc import Sequence
from typing import Any

import click

from conventions.core.safe_text import printable, without_secrets


class ConventionError(Exception):
    """Base of every error of this package.

    Attributes:
        sent: ids of the messages that a call which sends many had sent before.
    """

    __module__ = "conventions"

    sent: Sequence[str] = ()


class BusinessError(ConventionError):
    """A failure for a reason of the business: not retried, a dead letter at once (R16)."""

    __module__ = "conventions"


class ItemsChanged(BusinessError):
    """A batch that was interrupted finds other items than those that it has cut: going on would skip or repeat some."""


class RetryRequested(ConventionError):
    """A task asked for another attempt without naming an error."""


class JobFailed(ConventionError):
    """The message is a dead letter already: raised when it comes again, for those who have not heard of it."""


class JobExited(ConventionError):
    """A job called `sys.exit()`; retried like any other failure."""


class JobRejected(ConventionError):
    """A job raised Celery's `Reject`."""


class JobCancelled(ConventionError):
    """The message was cancelled; raised in the job at its next report of progress."""


class TooManyStarts(ConventionError):
    """A message was started so often without an outcome that it does not run again."""


class TooOldToTell(ConventionError):
    """A message is older than its task's horizon, and nothing is remembered of it."""


class UnknownTask(ConventionError):
    """A message names a task that no worker here knows."""


class UndeliverableMessage(ConventionError):
    """What lay in a queue cannot be read as a message of a task."""


class UnknownForm(ConventionError):
    """A later release has written a message in a form that this one does not know; it is left for a worker that does."""


class PayloadError(ConventionError, ValueError):
    """An argument has the wrong type, cannot be held by JSON, or makes the payload too large."""

    __module__ = "conventions"


class CredentialInPayload(PayloadError):
    """An argument looks like a credential; the message names its path, never its value."""

    __module__ = "conventions"


class IdempotencyConflict(ConventionError):
    """The idempotency key was used before with a different payload."""

    __module__ = "conventions"


class TransactionRepeated(ConventionError):
    """One attempt commits one transaction, since its record says that the whole effect happened; not retried."""


class LeaseLost(ConventionError):
    """The claim on this job is held by another worker now; what this one did is not recorded."""

    __module__ = "conventions"


class LetterNotEditable(ConventionError):
    """A dead letter is not there, is not dead any more, or nothing could check its arguments."""


class SelectionChanged(ConventionError):
    """There are more or fewer dead letters than somebody agreed to; nothing was done."""


class JournalFull(ConventionError):
    """So many events wait to be recorded in SQL that no more may be added."""


class PurgeStopped(ConventionError):
    """A purge could not go on; what it removed until then has its rows, the rest is left."""


class PermissionDenied(ConventionError):
    """The actor who caused the message may not run this task."""

    __module__ = "conventions"


class BrokerUnavailable(ConventionError, ConnectionError):
    """The broker did not take a message in time.

    Args:
        args: the text.
        maybe_sent: the value of the attribute.
        ids: the same.

    Attributes:
        maybe_sent: whether the broker may have what `ids` names: the request left, and no answer came. Send it again under
            the same id, which changes nothing where it is there. False: it is not there.
        ids: ids of the messages that were not taken.
    """

    __module__ = "conventions"

    def __init__(self, *args: Any, maybe_sent: bool = False, ids: Sequence[str] = ()) -> None:
        super().__init__(*args)
        self.maybe_sent = maybe_sent
        self.ids = list(ids)


class DeclarationError(ConventionError, TypeError):
    """A task class breaks a rule of declaration; raised when its module is imported."""


class ScheduleError(ConventionError, ValueError):
    """An entry of the schedule breaks a rule; raised when it is declared."""


class ConfigurationError(ConventionError, click.ClickException):
    """The configuration cannot work. As a click error it ends a command with its text and status 2.

    Args:
        faults: one sentence for each fault; all of them are shown.
    """

    exit_code = 2

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))

    def format_message(self) -> str:
        """What a terminal shows."""
        return printable(without_secrets(super().format_message()), lines=True)

    def __reduce__(self) -> tuple[type["ConfigurationError"], tuple[tuple[str, ...]], dict[str, Any]]:
        return type(self), (self.faults,), self.__dict__


class NewerLayout(ConfigurationError):
    """What is in Redis has a layout that this release does not know: nothing was sent, and nothing is run."""


class TaskModuleError(ConfigurationError):
    """A module of the task packages cannot be imported; names the module, the file and the line."""
