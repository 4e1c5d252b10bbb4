"""`ChordParts`: how the result backend tells chords, chains and errbacks how a job has ended.

Celery takes each error that it meets there for a failure of the chord. It gives the right to send the body to a call, not to a
part, so a lost answer or a killed process loses the body. An errback that cannot be sent keeps the others from being sent.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from copy import copy
from typing import Any

from celery import maybe_signature, states
from celery.exceptions import ChordError, TaskRevokedError
from redis.exceptions import RedisError

from conventions.broker.message_form import STEPS_WITHIN
from conventions.core.deadline import Deadline
from conventions.core.errors import BrokerUnavailable
from conventions.core.redis_address import shown
from conventions.core.sealed_mark import is_sealed_text
from conventions.execution.application import Application, may_pass
from conventions.execution.chord_editors import ChordEditors
from conventions.execution.follow_ups import NEXT_WITHIN, StepsNotSent, is_function
from conventions.execution.sealed_parts import opened_part, sealed_part
from conventions.execution.step_ids import identified
from conventions.execution.steps_within import last_tasks
from conventions.execution.unsent_step import UnsentStep
from conventions.library_internals.celery import listed, new_request
from conventions.sealing.sealed_text import note_opened, noting_opened

logger = logging.getLogger(__name__)

DONE_FOR = 300  # seconds in which a chord that has ended ignores parts that come again, as with Celery
FOR_EVER = 10**9  # seconds

# Why a chord that fails in this thread could not tell all who wait for it; `None`: no chord does.
_untold: ContextVar[list[Exception] | None] = ContextVar("conventions_untold", default=None)
# Whether each state must be stored that is told now: whoever tells it tries again.
must_be_stored: ContextVar[bool] = ContextVar("conventions_must_be_stored", default=False)


def _request_of(step: Mapping[str, Any]) -> Any:
    """The request that a step would have been."""
    request = new_request(dict(step))
    request.update(step["options"])
    request.id, request.group = step["options"].get("task_id"), step["options"].get("group_id")
    return request


class ChordParts:
    """A base of our result backends, before Celery's."""

    app: Application
    client: Any
    chord_expires: Any
    get_key_for_group: Any
    store_result: Any
    encode: Any
    decode: Any
    encode_result: Any
    chord_error_from_stack: Any
    _chord_zset: Any
    _chord_result_expires: Any
    _chord_part_return_script: Any
    _chord_cleanup_script: Any

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
        """Tell a chord how one of its parts has ended; the last one sends its body, or fails it.

        Raises:
            StepsNotSent: a server does not answer. The part comes again, and sends the same messages.
        """
        result = sealed_part(self.app, request, str(request.id), state, result)
        with noting_opened():
            if not request.group or is_function(self.app, request.task):  # a function would run again
                super().on_chord_part_return(request, state, result, **options)  # type: ignore[misc]  # the other base class has it
                return
            try:
                self._return_part(request, state, result)
            except Exception as error:
                if may_pass(self.app, error):
                    raise StepsNotSent.of(error, f"the chord {request.group}") from error
                raise

    def _return_part(self, request: Any, state: str, result: Any) -> None:
        keys = {end: self.get_key_for_group(request.group, end) for end in (".j", ".t", ".s", ".d", "", ".c")}
        editors = ChordEditors(
            self.client, self.get_key_for_group(request.group, ".editors"), int(self.chord_expires or FOR_EVER)
        )
        editors.note()
        part = f"{request.id}:{request.group_index}"
        if not self._sends_body(request, keys, part, state, result):
            return
        body = maybe_signature(request.chord, app=self.app)
        try:
            self._send_body(body, keys, editors)
        except ChordError as error:
            logger.exception("chord %s has failed", request.group)
            self._fail_body(body, error)
        editors.forget()
        self._chord_cleanup_script(keys=[keys[end] for end in (".c", ".j", ".t", ".s", ".d")], args=[part, DONE_FOR])

    def _sends_body(self, request: Any, keys: dict[str, str], part: str, state: str, result: Any) -> bool:
        """Count a part, once. Whether it is the one that ends the chord; it stays that when it comes again."""
        index = "+inf" if request.group_index is None else request.group_index
        expires = int(self.chord_expires or 0)
        entry = self.encode([1, request.id, state, self.encode_result(result, state)])
        ordered, group_expires = int(self._chord_zset), self._chord_result_expires
        count, more, size, first = self._chord_part_return_script(
            keys=list(keys.values()),
            args=[request.id, entry, ordered, index, expires, group_expires, expires or FOR_EVER, part],
        )
        if not size and count >= 0:
            logger.warning(
                "id=%s: its chord %s is not known: it has ended, or was forgotten", request.id, request.group
            )
        if not size or count != int(size) + int(more or 0):
            return False
        if first:
            return True
        owner = self.client.get(keys[".c"]) or b""
        owner = owner.decode() if isinstance(owner, bytes) else owner
        if owner != "done" and ":" not in owner:  # one of Celery's: a function sends the body, or an older release
            raise StepsNotSent("another process sends its body, or has died with it", requeue=True)
        return bool(owner == part)

    def _send_body(self, body: Any, keys: dict[str, str], editors: ChordEditors) -> None:
        """Send what follows the parts. Raises: ChordError: one of them failed, or it can never be sent."""
        results = self._results_of(keys)
        try:
            editors.send(self.app, body, results, lambda: body.delay(results))
        except Exception as error:
            if may_pass(self.app, error):
                raise
            raise ChordError(f"Callback error: {error!r}") from error

    def _results_of(self, keys: dict[str, str]) -> list[Any]:
        """What the parts have returned, in the form of the header. Raises: ChordError: one of them failed."""
        key = keys[".j"]
        found = self.client.zrange(key, 0, -1) if self._chord_zset else self.client.lrange(key, 0, -1)
        entries = [self.decode(entry) for entry in found]
        header = self.client.get(keys[""])  # Celery stores the form where there are groups within it
        if header is None:
            return [self._result_in(entry) for entry in entries]
        # Celery waits for each result there, without end for one that is not kept.
        return self._results_within(self.decode(header)["result"], {entry[1]: entry for entry in entries})

    def _results_within(self, group: Any, entries: dict[str, Any]) -> list[Any]:
        """Args: group: as `GroupResult.as_tuple` writes it."""
        found: list[Any] = []
        for one in group[1]:
            (message_id, _), members = one
            if members is not None:
                found.append(self._results_within(one, entries))
            elif message_id in entries:
                found.append(self._result_in(entries[message_id]))
            else:
                raise ChordError(f"Join error: {message_id} has not told how it ended")
        return found

    def _result_in(self, entry: Any) -> Any:
        """Raises: ChordError: it is that of a part that failed."""
        return self._unpack_chord_result(entry, lambda decoded: decoded)

    def _unpack_chord_result(self, tup: Any, decode: Any, *states: Any) -> Any:
        found = super()._unpack_chord_result(tup, decode, *states)  # type: ignore[misc]  # the other base class has it
        if is_sealed_text(found):
            if self.app.payload_keys is None:
                raise StepsNotSent("what a part has returned is sealed, and its key is not here", requeue=True)
            note_opened()  # what was sealed stays so, in the message of the body
            found = opened_part(self.app, str(decode(tup)[1]), found)
            if is_sealed_text(found):
                raise StepsNotSent("what a part has returned is sealed with a key that is not here", requeue=True)
        return found

    def _fail_body(self, body: Any, error: ChordError) -> None:
        """Tell all who wait for the body, also an outer chord. Raises: Exception: a server does not answer."""
        while body.get("subtask_type") == "chord" and body.kwargs.get("body"):  # its result is that of its body
            inner = maybe_signature(body.kwargs["body"], app=self.app).clone()
            errbacks = [*listed(inner.options.get("link_error") or ()), *listed(body.options.get("link_error") or ())]
            kept = {
                name: body.options[name]
                for name in ("chord", "group_id", "group_index", "chain")
                if name in body.options
            }
            inner["options"] = kept | inner.options | {"link_error": errbacks}
            body = inner
        untold: list[Exception] = []
        token = _untold.set(untold)
        try:
            self.chord_error_from_stack(body, error)
        finally:
            _untold.reset(token)
        if untold:
            raise untold[0]
        for step in last_tasks(body):
            if step["options"].get("chord"):
                self.on_chord_part_return(_request_of(step), states.FAILURE, error)

    def _fail_chain(
        self, chain: Any, exc: Any, traceback: Any = None, store_result: bool = True, state: str = states.FAILURE
    ) -> None:
        """Tell of the steps of a chain that will never run, with all that waits for them.

        Celery tells no chord of a step whose failure it has stored, also where it was stopped between the two; and it does not
        look into a group.
        """
        left = list(chain or ())
        while left:
            step = left.pop(0)
            ended = _request_of(step)
            if store_result and state in states.PROPAGATE_STATES and ended.id:
                self.store_result(ended.id, exc, state, traceback=traceback, request=ended)
            if step.get("subtask_type") in STEPS_WITHIN:
                left += [one for one in last_tasks(step) if one is not step]
            elif ended.chord:
                self.on_chord_part_return(ended, state, exc)

    def _is_untold(self, error: Exception) -> bool:
        """Whether a chord that fails will tell this one when its part comes again. Celery goes on with the others after any error."""
        untold = _untold.get()
        if untold is None or not may_pass(self.app, error):
            return False
        untold.append(error)
        return True

    def fail_from_current_stack(self, task_id: str, exc: Any = None) -> Any:
        """Store the failure of what will never be sent. A chord that could not tell one of those who wait tells all of them later."""
        if _untold.get():
            return None
        try:
            return super().fail_from_current_stack(task_id, exc)  # type: ignore[misc]  # the other base class has it
        except Exception as error:
            if not self._is_untold(error):
                raise
            return None

    def tell_of_end(self, request: Any, reason: str, *, store_result: bool) -> None:
        """Tell those who wait for a message that ends without having run, as `mark_as_revoked`.

        Args:
            request: its request.
            reason: how it ended, as `cancelled`.
            store_result: whether its own result is stored, too.

        Raises:
            Exception: a server does not answer, or does not take a state. Whoever calls this tries again.
        """
        token = must_be_stored.set(True)
        try:
            self.mark_as_revoked(request.id, reason, request, store_result=store_result)
        finally:
            must_be_stored.reset(token)

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
            self._fail_chain(request.chain, TaskRevokedError(reason), state=state)

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        """Call or send each errback. One that can never be sent becomes a dead letter; Celery would send none of the others.

        Raises:
            Exception: a server does not answer.
        """
        steps = [  # Celery takes a single one for a list of its keys
            step if step["options"].get("task_id") else identified(step, request.id, "link_error", number)
            for number, step in enumerate(listed(request.errbacks))
        ]
        steps.sort(key=lambda step: is_function(self.app, step["task"]))  # as in `send_follow_ups`
        failed: Exception | None = None
        for step in steps:
            if _untold.get() or (failed and is_function(self.app, step["task"])):
                break
            try:
                with Deadline(NEXT_WITHIN) if failed else nullcontext():
                    self._call_errback(step, request, exc, traceback)
            except Exception as error:
                if not may_pass(self.app, error):
                    raise
                failed = failed or error
        if failed and not self._is_untold(failed):
            raise failed

    def _call_errback(self, step: Any, request: Any, exc: Any, traceback: Any) -> None:
        alone = copy(request)
        alone.errbacks = [step]
        try:
            super()._call_task_errbacks(alone, exc, traceback)  # type: ignore[misc]  # the other base class has it
        except Exception as error:
            if may_pass(self.app, error):
                raise
            how = {"parent_id": request.id, "root_id": request.root_id or request.id}
            UnsentStep.of(self.app, step, (request.id,), **how).refuse(error)
