"""`ChordParts`: how the result backend tells chords, chains and errbacks how a job has ended.

Celery does the telling. It takes each error that it meets there for a failure of the chord, and an errback that cannot be sent
keeps the others from being sent.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any

from celery import states
from celery.exceptions import TaskRevokedError
from redis.exceptions import RedisError

from conventions.core.deadline import Deadline
from conventions.core.error_text import text_of
from conventions.core.errors import BrokerUnavailable
from conventions.core.redis_address import shown
from conventions.execution.application import Application, may_pass
from conventions.execution.follow_ups import StepsNotSent
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import listed

# What a chord does in this thread: nothing, it hears of a `part`, or its body was `not sent`.
_hears: ContextVar[str] = ContextVar("conventions_hears", default="")
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class _NotSent(BaseException):  # Celery fails the chord at each `Exception`
    """A server does not answer, or takes nothing, while a chord sends what follows it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ChordParts:
    """A base of our result backends, before Celery's."""

    app: Application
    client: Any
    chord_expires: Any
    get_key_for_group: Any

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Store the number of parts of a chord, before the parts are sent. Raises: BrokerUnavailable."""
        with self._for_a_send(group_id):
            super().set_chord_size(group_id, chord_size)  # type: ignore[misc]  # the other base class has it

    def apply_chord(self, *arguments: Any, **options: Any) -> None:
        """Store the data of a chord, before its parts are sent. Raises: BrokerUnavailable."""
        with self._for_a_send(str(arguments[0][0])):
            super().apply_chord(*arguments, **options)  # type: ignore[misc]  # the other base class has it

    @contextmanager
    def _for_a_send(self, group_id: str) -> Iterator[None]:
        with Deadline(self.app.settings.broker_timeout):
            try:
                yield
            except (RedisError, OSError, RuntimeError) as error:
                reason = error
                if isinstance(error, RuntimeError):  # Celery raises it when it cannot subscribe to the result
                    if not isinstance(error.__cause__, RedisError):
                        raise
                    reason = error.__cause__
                where = shown(self.app.store.url)
                text = f"not sent: Redis at {where}, which keeps results, does not answer for a chord: {reason}"
                raise BrokerUnavailable(text, ids=[group_id]) from reason

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Tell a chord how one of its parts has ended; the last one sends its body, or its errbacks.

        Celery would take a server that does not answer then for a failure of the chord. And the last part of a process that has
        died comes again at once, finds that the dead process has the right to send the body, and Celery would acknowledge it.

        Raises:
            StepsNotSent: a server does not answer, or another process sends the body or has died with it. The part comes again.
        """
        tell = super().on_chord_part_return  # type: ignore[misc]  # the other base class has it
        group = request.group
        if not group or not hasattr(self.app.tasks.get(request.task), "arguments"):  # a function would run again
            tell(request, state, result, **options)
            return
        # Before this part counts. Whoever sends the body already was told of all parts, so this one comes again.
        sender, size = self._sender_of(group)
        token = _hears.set("part")
        try:
            tell(request, state, result, **options)
        except _NotSent as not_sent:
            if size:  # Celery deletes it with a chord that has failed
                key = self.get_key_for_group(group, ".s")
                self.client.set(key, size, nx=True, ex=int(self.chord_expires or 0) or None)
            raise StepsNotSent(f"the body of the chord {group}: {text_of(not_sent.error)}", requeue=True) from None
        finally:
            _hears.reset(token)
        if sender and self._sender_of(group)[0]:
            raise StepsNotSent(
                f"the body of the chord {group} is being sent by a process that may have died", requeue=True
            )

    def _sender_of(self, group: str) -> tuple[Any, Any]:
        """Which process has taken the sending of a chord's body, and has not ended it; and the number of parts."""
        with self.client.pipeline() as pipe:
            pipe.get(self.get_key_for_group(group, ".c"))
            pipe.get(self.get_key_for_group(group, ".s"))
            sender, size = pipe.execute()
        return sender if size and sender != b"done" else None, size

    def chord_error_from_stack(self, callback: Any, exc: Any = None) -> Any:
        """Fail a chord; not where it met only a server that does not answer."""
        met = sys.exc_info()[1]
        if _hears.get() and isinstance(met, Exception) and may_pass(self.app, met):
            _hears.set("not sent")
            raise _NotSent(met)
        return super().chord_error_from_stack(callback, exc)  # type: ignore[misc]  # the other base class has it

    @property
    def _chord_cleanup_script(self) -> Any:
        """What ends the sending of a body: all of the chord goes, or only the right to send it, where it is not sent."""
        if _hears.get() == "not sent":
            return self.client.register_script(RELEASE)
        return super()._chord_cleanup_script  # type: ignore[misc]  # the other base class has it

    def mark_as_revoked(
        self,
        task_id: str,
        reason: Any = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Tell those who wait for a message that ends without having run. Celery would not tell those who wait for the rest of its chain."""
        super().mark_as_revoked(task_id, reason, request, store_result, state)  # type: ignore[misc]  # the other base class has it
        if request and request.chain:
            self._fail_chain(request.chain, TaskRevokedError(reason), state=state)  # type: ignore[attr-defined]

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Call or send each errback. One that can never be sent becomes a dead letter; Celery would send none of the others.

        Raises:
            Exception: a server does not answer.
        """
        for step in listed(request.errbacks):  # Celery takes a single one for a list of its keys
            alone = copy(request)
            alone.errbacks = [step]
            try:
                super()._call_task_errbacks(alone, exc, traceback)  # type: ignore[misc]  # the other base class has it
            except Exception as error:
                if may_pass(self.app, error):
                    if _hears.get():
                        raise _NotSent(error) from error
                    raise
                how = {"parent_id": request.id, "root_id": request.root_id or request.id}
                UnsentStep.of(self.app, step, (request.id,), **how).refuse(error)
