"""Every error this package raises, in one tree.

    Exception
    └── ConventionError
        ├── BusinessError            raise it in `run`: a failure that no retry can mend
        │   └── ItemsChanged         an interrupted batch finds that its items have changed
        ├── RetryRequested           `self.retry()` was called without an error
        ├── JobFailed                the job failed before; a duplicate tells its waiting caller
        ├── JobExited                a job called `sys.exit()`
        ├── JobRejected              a job raised Celery's `Reject`
        ├── JobCancelled             the message was cancelled while it ran; raised at the next report of progress
        ├── TooManyStarts            started too often without an outcome, as when its process is killed each time
        ├── TooOldToTell             older than our memory of finished jobs: nobody knows whether it ran
        ├── UnknownTask              no task of that name is registered
        ├── UndeliverableMessage     an entry of a queue is not a message of a task
        │   └── SignatureRefused     nobody with the keys has sent it as it is
        │       └── KeyRevoked       somebody has sent it who may have stolen the key
        ├── UnknownForm              a later release wrote the message in a new form; it stays where it is
        ├── PayloadError             an argument that cannot be sent or cannot be run  (ValueError)
        │   ├── CredentialInPayload  an argument that looks like a credential
        │   └── CannotOpen           what a message holds is sealed, and cannot be opened here
        ├── CannotSeal               what a message holds is to be sealed, and there is no key; nothing was sent
        ├── NotSearchable            an argument is sealed, and no job can be found by it (ValueError)
        ├── IdempotencyConflict      one key, two different payloads
        ├── TransactionRepeated      a second `self.transaction()` in one attempt
        ├── TransactionRefused       a transaction whose record and writes would not be committed together
        ├── TransactionRolledBack    a block of `self.transaction(using=...)` ended, and nothing of it was committed
        ├── LeaseLost                another worker has taken this job over, or it was ended from outside
        ├── LetterNotEditable        a dead letter whose arguments cannot be changed
        ├── SelectionChanged         the dead letters are not the ones that somebody confirmed
        ├── SelectionUnknown         which letters a redrive was to send is not known here (TypeError)
        ├── JournalFull              too many events wait for SQL; no more may be added
        ├── PurgeStopped             a purge had to stop; says how many messages are gone and how many are left
        ├── PermissionDenied         the actor may not run this task
        ├── BrokerUnavailable        the broker did not take a message in time (ConnectionError)
        ├── DeclarationError         a task class that may not exist as written (TypeError)
        ├── ScheduleError            a schedule that may not exist as written   (ValueError)
        └── ConfigurationError       settings that cannot work, all faults at once (click: exit status 2)
            ├── NewerLayout          a later release wrote the data in Redis; this one sends and runs nothing
            └── TaskModuleError      a task module that cannot be imported

Every error passes all its arguments to `Exception.__init__`, so it survives pickling between processes. Public errors have the
module name `conventions`: results and pickles keep that name, so this file may move.
"""

from collections.abc import Sequence
from typing import Any

import click

from conventions.core.printable_text import printable
from conventions.core.secrets_in_text import without_secrets


class ConventionError(Exception):
    """Base of every error of this package.

    Attributes:
        sent: ids of the messages that a bulk call had already sent before the error.
    """

    __module__ = "conventions"

    sent: Sequence[str] = ()


class BusinessError(ConventionError):
    """A failure with a business reason. It is never retried: the job becomes a dead letter at once (R16)."""

    __module__ = "conventions"


class ItemsChanged(BusinessError):
    """An interrupted batch finds other items than before. To go on would skip or repeat some of them."""


class RetryRequested(ConventionError):
    """A task asked for another attempt without naming an error."""


class JobFailed(ConventionError):
    """The job is already a dead letter. Raised when its message arrives again, for callers that still wait."""


class JobExited(ConventionError):
    """A job called `sys.exit()`; retried like any other failure."""


class JobRejected(ConventionError):
    """A job raised Celery's `Reject`."""


class JobCancelled(ConventionError):
    """The message was cancelled; raised in the job at its next report of progress."""


class TooManyStarts(ConventionError):
    """A message was started too often without an outcome, so it does not run again."""


class TooOldToTell(ConventionError):
    """A message is older than its task's horizon, and we remember nothing of it."""


class UnknownTask(ConventionError):
    """A message names a task that no worker here knows."""


class UndeliverableMessage(ConventionError):
    """An entry of a queue cannot be read as a message of a task."""


class SignatureRefused(UndeliverableMessage):
    """Nobody who has the keys has sent this message as it is, or its key is not here."""


class KeyRevoked(SignatureRefused):
    """A message was signed with a key after it was stolen. Its letter has all of it: whoever redrives it has looked at it."""


class UnknownForm(ConventionError):
    """A later release wrote a message in a form that this release does not know. The message stays for a newer worker."""


class PayloadError(ConventionError, ValueError):
    """An argument has the wrong type, cannot be held by JSON, or makes the payload too large.

    Args:
        args: the text.
        misfit: see the attribute.

    Attributes:
        misfit: what the check of arguments found, as `Arguments.misfit` says it; empty for any other fault. It is part of
            the cause by which failures are grouped, so it holds no value and no name that a sender chose.
    """

    __module__ = "conventions"

    misfit: str = ""

    def __init__(self, *args: Any, misfit: str = "") -> None:
        super().__init__(*args)
        if misfit:
            self.misfit = misfit


class CredentialInPayload(PayloadError):
    """An argument looks like a credential; the message names its path, never its value."""

    __module__ = "conventions"


class CannotOpen(PayloadError):
    """What a message holds is sealed, and cannot be opened here: its key is not here, or it was altered."""

    __module__ = "conventions"


class CannotSeal(ConventionError):
    """What a message holds is to be sealed, and this process has no key for it. Nothing was sent."""

    __module__ = "conventions"


class NotSearchable(ConventionError, ValueError):
    """An argument is sensitive, and no job can be found by it here."""

    __module__ = "conventions"


class IdempotencyConflict(ConventionError):
    """The idempotency key was used before with a different payload."""

    __module__ = "conventions"


class TransactionRepeated(ConventionError):
    """A second transaction in one attempt. The record of the first says that the whole effect happened. Not retried."""


class TransactionRefused(ConventionError):
    """`self.transaction()` cannot commit the record and the writes of its block together, as they are written. Nothing was done. Not retried."""


class TransactionRolledBack(ConventionError):
    """A block of `self.transaction(using=...)` has ended, and its transaction was rolled back. Nothing of it is committed."""


class LeaseLost(ConventionError):
    """Another worker now holds the claim on this job, or it was ended from outside, as by a revoke. The outcome of this attempt is not recorded."""

    __module__ = "conventions"


class LetterNotEditable(ConventionError):
    """A dead letter does not exist, is no longer dead, or no known task can check its arguments."""


class SelectionChanged(ConventionError):
    """There are more or fewer dead letters than somebody confirmed. Nothing was done."""


class SelectionUnknown(ConventionError, TypeError):
    """Nobody here can tell which dead letters a redrive was to send: its row is gone, or a later release wrote it. Nothing was done."""


class JournalFull(ConventionError):
    """Too many events wait to be recorded in SQL. No more may be added."""


class PurgeStopped(ConventionError):
    """A purge had to stop. The removed messages have their SQL rows; the rest stays in the queue."""


class PermissionDenied(ConventionError):
    """The actor who caused the message, or who has changed it as a dead letter, may not run this task.

    Attributes:
        lacked_by: who lacks the permission, where it was asked for before a job; `None` of an error that a job raises itself.
    """

    __module__ = "conventions"

    lacked_by: str | None = None


class BrokerUnavailable(ConventionError, ConnectionError):
    """The broker did not accept a message in time.

    Args:
        args: the text.
        maybe_sent: see the attribute.
        ids: see the attribute.

    Attributes:
        maybe_sent: true: the request left, and no answer came, so the broker may have the messages of `ids`. Send them again
            under the same ids: a message that is already there stays as it is. False: the broker does not have them.
        ids: ids of the messages that the broker did not confirm.
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
    """The data in Redis has a layout that this release does not know. Nothing was sent, and nothing runs."""


class TaskModuleError(ConfigurationError):
    """A module of the task packages cannot be imported; names the module, the file and the line."""
