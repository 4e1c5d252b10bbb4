"""`Permissions`: asks the authorizer, and remembers its answers for some seconds (R20)."""

import time
from collections.abc import Callable, Hashable, Iterable
from typing import TypeAlias

from conventions.core.actor import UNSIGNED
from conventions.core.errors import PermissionDenied
from conventions.declare.payload import digest
from conventions.permission.authorizer import Authorizer
from conventions.permission.question import Question

REMEMBERED = 5.0  # seconds from the question: so long may a role that was taken away still count
MOST = 10_000  # answers that a process remembers

_Answer: TypeAlias = tuple[float, bool]  # until when it counts, by the monotonic clock; and what it is


class NoAnswer(Exception):
    """The authorizer cannot answer. `cause` says why."""

    def __init__(self, text: str, cause: Exception) -> None:
        super().__init__(text, cause)
        self.cause = cause

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
        self._authorizer: Authorizer | None = None
        self._answers: dict[Hashable, _Answer] = {}

    @property
    def authorizer(self) -> Authorizer:
        """It is made at first use. Raises: ConfigurationError."""
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
                raise PermissionDenied(
                    f"{question.task}: it needs {question.permission}, and nobody has signed the message"
                )
            if not self._allows(actor, question):
                raise PermissionDenied(f"{question.task}: {actor} may not run it: it needs {question.permission}")

    def _allows(self, actor: str, question: Question) -> bool:
        try:
            authorizer = self.authorizer
            about = digest(question.arguments) if getattr(authorizer, "looks_at_arguments", True) else None
            key, asked_at = (actor, question.permission, question.task, about), self._clock()
            known = self._answers.get(key)
            if known is not None and known[0] > asked_at:
                return known[1]
            answer = _checked(authorizer.allows(actor, question.permission, question.task, question.arguments))
        except Exception as error:
            text = f"{question.task}: nobody can say whether {actor} may run it, which needs {question.permission}: {type(error).__name__}: {error}"
            raise NoAnswer(text, error) from error
        if len(self._answers) >= MOST:
            self._answers.clear()
        self._answers[key] = (asked_at + REMEMBERED, answer)
        return answer


def _checked(answer: object) -> bool:
    """Raises: TypeError: it is neither true nor false, such as a coroutine, which counts as true."""
    if not isinstance(answer, bool):
        raise TypeError(f"allows returns True or False, not {type(answer).__name__}")
    return answer
