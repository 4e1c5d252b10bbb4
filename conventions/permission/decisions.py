"""`Permissions`: asks the authorizer, and remembers its answers for some seconds (R20)."""

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from copy import deepcopy
from types import MappingProxyType
from typing import TypeAlias

from conventions.core.actor import UNSIGNED
from conventions.core.canonical_json import digest
from conventions.core.error_text import first_line, without_values
from conventions.core.errors import JobExited, PermissionDenied
from conventions.core.forks import call_in_child
from conventions.library_internals.billiard import ends_process
from conventions.permission.authorizer import Authorizer
from conventions.permission.question import Question

REMEMBERED = 5.0  # seconds from the question: so long may a role that was taken away still count
MOST = 10_000  # answers that a process remembers

_Answer: TypeAlias = tuple[float, bool]  # until when it counts, by the monotonic clock; and what it is


class NoAnswer(Exception):
    """The authorizer cannot answer. `cause` says why.

    Attributes:
        lacked_by: whom it was asked for; `None`: it was not asked.
    """

    def __init__(self, text: str, cause: Exception, lacked_by: str | None = None) -> None:
        super().__init__(text, cause, lacked_by)
        self.cause, self.lacked_by = cause, lacked_by

    def __str__(self) -> str:
        return str(self.args[0])


class Permissions:
    """The answers of one authorizer in this process.

    Args:
        make: makes the authorizer, at the first question.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, make: Callable[[], Authorizer], clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._clock = make, clock
        self._forget()
        call_in_child(self._forget)

    def _forget(self) -> None:
        """A process that was forked has an authorizer of its own: one that is shared may read the answers of the other's questions."""
        self._authorizer: Authorizer | None = None
        self._answers: dict[Hashable, _Answer] = {}
        self._making = threading.Lock()

    @property
    def authorizer(self) -> Authorizer:
        """It is made at first use in each process. Raises: ConfigurationError."""
        if self._authorizer is None:
            with self._making:
                if self._authorizer is None:
                    self._authorizer = self._make()
        return self._authorizer

    def check(self, actors: Iterable[str], question: Question) -> None:
        """Ask for each of these actors: all of them need the permission.

        Raises:
            PermissionDenied: one of them has it not.
            NoAnswer: the authorizer cannot say whether one has it.
        """
        for actor in dict.fromkeys(actors):
            if actor == UNSIGNED:
                raise _denied(
                    f"{question.task}: it requires {question.permission}, and nobody has signed the message", actor
                )
            if not self._allows(actor, question):
                raise _denied(f"{question.task}: {actor} may not run it: it requires {question.permission}", actor)

    def _allows(self, actor: str, question: Question) -> bool:
        try:
            authorizer = self.authorizer
            about = digest(question.arguments) if getattr(authorizer, "looks_at_arguments", True) else None
            key, asked_at = (actor, question.permission, question.task, about), self._clock()
            known = self._answers.get(key)
            if known is not None and known[0] > asked_at:
                return known[1]
            arguments = MappingProxyType(deepcopy(dict(question.arguments)))
            answer = _checked(authorizer.allows(actor, question.permission, question.task, arguments))
        except BaseException as raised:
            text = f"{question.task}: nobody can say whether {actor} may run it, which requires {question.permission}"
            raise no_answer(text, raised, actor) from raised
        if len(self._answers) >= MOST:
            self._answers.clear()
        self._answers[key] = (asked_at + REMEMBERED, answer)
        return answer


def no_answer(text: str, raised: BaseException, asked_for: str | None = None) -> NoAnswer:
    """What to raise in place of an error, also of one that is no `Exception`, such as asyncio.CancelledError.

    Args:
        text: what nobody can say.
        raised: the error.
        asked_for: see `NoAnswer.lacked_by`.

    Raises:
        SystemExit: the same, where it says that this process is to end.
    """
    if ends_process(raised):
        raise raised
    if isinstance(raised, Exception):
        cause: Exception = raised
    else:
        cause = JobExited(f"{type(raised).__name__} was raised while permission was asked")
    return NoAnswer(f"{text}: {first_line(raised)}", cause, asked_for)


def _denied(text: str, actor: str) -> PermissionDenied:
    denied = without_values(PermissionDenied(text))
    denied.lacked_by = actor
    return denied


def _checked(answer: object) -> bool:
    """Raises: TypeError: it is neither true nor false, such as a coroutine, which counts as true."""
    if not isinstance(answer, bool):
        raise TypeError(f"allows returns True or False, not {type(answer).__name__}")
    return answer
