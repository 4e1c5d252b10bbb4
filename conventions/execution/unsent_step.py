"""`UnsentStep`: a message that was to follow a job and cannot be sent. It becomes a dead letter, as if it had failed itself."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from conventions.broker.codec import message_of, written_body
from conventions.broker.header_names import ACTOR, FINGERPRINT, KEY, PLANNED_AT, SEALED
from conventions.core import error_text
from conventions.core.errors import ConventionError, CredentialInPayload, PayloadError
from conventions.core.priority import Priority
from conventions.core.value_bounds import fault_of_name
from conventions.execution.application import Application, may_pass
from conventions.execution.current_job import current_job, inherited_actor, inherited_edit
from conventions.execution.failure_log import log_unsendable
from conventions.execution.step_ids import derived_id
from conventions.library_internals.celery import listed, new_request
from conventions.records.journal import Event
from conventions.sealing.kept_message import sealed_anew
from conventions.security.credentials import without

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnsentStep:
    """What would have become a message.

    Attributes:
        app: the application.
        task: the name of its task.
        id: of the message.
        args: positional arguments of `run`.
        kwargs: arguments of `run` by name.
        options: of its send, as `apply_async` takes them.
        headers: those of ours that it has for sure; a redrive sends them, too.
    """

    app: Application
    task: str
    id: str
    args: Any
    kwargs: Any
    options: Mapping[str, Any]
    headers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, app: Application, signature: Mapping[str, Any], args: tuple[Any, ...], **options: Any) -> Self:
        """The step of this signature, with what Celery puts before its arguments, and further options of its send."""
        own = () if signature.get("immutable") else args
        every = {**signature["options"], **{name: one for name, one in options.items() if one is not None}}
        # One that has no id gets the same one each time.
        message_id = every.get("task_id") or derived_id(every.get("parent_id"), signature)
        headers = cls.headers_of(every.get("actor"), every.get("idempotency_key"))
        return cls(app, signature["task"], message_id, (*own, *signature["args"]), signature["kwargs"], every, headers)

    @staticmethod
    def headers_of(actor: Any = None, key: Any = None, planned_at: Any = None) -> dict[str, str]:  # noqa: ARG004  # as a send names them
        """The headers for these options of a send, where they are no fault."""
        given = {ACTOR: actor, KEY: key}
        return {name: one for name, one in given.items() if isinstance(one, str) and one and not fault_of_name(one)}

    def refuse(self, error: Exception) -> None:
        """Record its dead letter, and tell those who wait for it. After a job that ends twice, both happen once more, and change nothing.

        Raises:
            Exception: a server did not answer.
        """
        log_unsendable(self.id, self.task, error, sealed=self._is_sealed())
        refused = error if isinstance(error, ConventionError) else PayloadError(str(error), misfit=self._misfit(error))
        self.app.journal.append([self._as_dead(refused)])
        self._tell(refused)

    def _as_dead(self, refused: Exception) -> Event:
        """What the journal says of it; without a credential, and so without its message, where it was refused for one."""
        bound, may_be_kept = self._bound(), not isinstance(refused, CredentialInPayload)
        shown = _readable(self._shown() if bound is None else bound)
        job, sealed = current_job(), self._is_sealed()
        return Event(
            message_id=self.id,
            kind="dead",
            task=self.task,
            queue=self._queue(),
            actor=self.headers.get(ACTOR) or inherited_actor(),
            generation=0 if job is None else job.generation,
            failure=error_text.describe(self.task, refused, sealed=sealed),
            arguments=None if sealed else shown if may_be_kept else without(shown),
            headers=self._own_headers() if may_be_kept else without(self._own_headers()),
            message=self._kept(bound, sealed=sealed) if may_be_kept else None,
        )

    def _is_sealed(self) -> bool:
        """Whether its message was to be sealed: its task says so, or it follows a sealed job."""
        task, job = self.app.tasks.get(self.task), current_job()
        told = SEALED in self.headers or (job is not None and job.sealed)
        return told or getattr(task, "encrypt", False) or self.app.settings.seal_payloads == "all"

    def _kept(self, bound: dict[str, Any] | None, *, sealed: bool) -> dict[str, Any] | None:
        """The message as its letter keeps it. Sealed, or not at all, where it was to be sealed."""
        message = self._message(bound)
        if not sealed or message is None:
            return message
        keys = self.app.payload_keys
        return None if keys is None else sealed_anew(keys, message, self.id)

    def _bound(self) -> dict[str, Any] | None:
        """Its arguments by name, where the task is ours and has such names; of whatever type, since another release may take them."""
        arguments = getattr(self.app.tasks.get(self.task), "arguments", None)
        if arguments is None:
            return None
        for bind in (arguments.bind, arguments.named):
            with suppress(Exception):  # whatever it is, they are shown as they are
                return dict(bind(self.args or (), self.kwargs or {}))
        return None

    def _misfit(self, error: Exception) -> str:
        """Which argument does not fit, where that is what failed; empty for a fault of an option."""
        arguments = getattr(self.app.tasks.get(self.task), "arguments", None)
        if arguments is None or not isinstance(error, TypeError):
            return ""
        with suppress(Exception):  # another program may have written a signature of any form
            return str(arguments.misfit(self.args or (), self.kwargs or {}))
        return ""

    def _own_headers(self) -> dict[str, Any]:
        own = {name: self.headers[name] for name in (KEY, FINGERPRINT, PLANNED_AT) if name in self.headers}
        return own | inherited_edit()

    def _shown(self) -> dict[str, Any]:
        named = (
            dict(self.kwargs) if isinstance(self.kwargs, Mapping) else {"kwargs": self.kwargs} if self.kwargs else {}
        )
        return named | ({"args": list(self.args)} if self.args else {})

    def _queue(self) -> str:
        """Where a redrive sends it: the queue of its class, which is right where that of the send may be its fault."""
        task, named = self.app.tasks.get(self.task), self.options.get("queue")
        of_class = getattr(task, "queue_name", None)
        return str(of_class or (named if isinstance(named, str) and named else self.app.conf.task_default_queue))

    def _priority(self) -> int:
        """Its own one, where that is one; else that of its class, or the usual one."""
        named = self.options.get("priority")
        of_class = getattr(self.app.tasks.get(self.task), "priority", None)
        found = named if named in list(Priority) else of_class
        return int(self.app.conf.task_default_priority if found is None else found)

    def _message(self, bound: dict[str, Any] | None) -> dict[str, Any] | None:
        """The message as a redrive sends it, with all that follows it; without headers and options of the send, which may be its fault."""
        options = self.options
        embed = {
            "callbacks": listed(options.get("link")) or None,
            "errbacks": listed(options.get("link_error")) or None,
            "chain": options.get("chain") or None,
            "chord": options.get("chord"),
        }
        args, kwargs = ([*(self.args or ())], self.kwargs or {}) if bound is None else ([], bound)
        names = ("root_id", "parent_id", "ignore_result")
        headers = {"lang": "py", "task": self.task, "id": self.id, "retries": 0, "eta": None, "expires": None}
        headers |= {name: options.get(name) for name in names}
        headers |= {
            "group": options.get("group_id"),
            "group_index": options.get("group_index"),
            ACTOR: self.headers.get(ACTOR) or inherited_actor(),
            **self._own_headers(),
        }
        properties: dict[str, Any] = {"correlation_id": self.id, "reply_to": options.get("reply_to")}
        properties |= {"priority": self._priority(), "delivery_info": {}}
        try:
            message = message_of(written_body(args, kwargs, embed, default=repr), headers, properties)
            found: dict[str, Any] = json.loads(json.dumps(message, default=repr))
        except (TypeError, ValueError, RecursionError):  # then a redrive makes it anew from the arguments
            return None
        return found

    def _tell(self, error: Exception) -> None:
        """Tell those who wait for it: its result, its chord, the rest of its chain, its errbacks."""
        options, backend = self.options, self.app.backend
        try:
            backend.mark_as_failure(
                self.id, error, request=self._request(options), store_result=not self._is_ignored(options)
            )
            for name, step in _awaited(self.task, self.kwargs):
                backend.mark_as_failure(
                    step.get("task_id"),
                    error,
                    request=self._request({"link_error": step.get("link_error")}) if name == "body" else None,
                    store_result=bool(step.get("task_id")),
                )
        except Exception as fault:
            if may_pass(self.app, fault):
                raise
            logger.exception("those who wait for id=%s task=%s are not told of its dead letter", self.id, self.task)

    def _is_ignored(self, options: Mapping[str, Any]) -> bool:
        ignored, task = options.get("ignore_result"), self.app.tasks.get(self.task)
        if ignored is None:
            ignored = task is None or task.ignore_result
        return bool(ignored)

    def _request(self, options: Mapping[str, Any]) -> Any:
        """The request that it would have been."""
        return new_request(
            {
                "id": self.id,
                "task": self.task,
                "args": self.args,
                "kwargs": self.kwargs,
                "root_id": options.get("root_id"),
                "group": options.get("group_id"),
                "group_index": options.get("group_index"),
                "chord": options.get("chord"),
                "chain": options.get("chain"),
                "errbacks": listed(options.get("link_error")),
                "delivery_info": {},
            }
        )


def _awaited(task: str, kwargs: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Whose results stand for that of a chord, a chain or a group: what they are of it, and their options."""
    if task == "celery.chord":
        step = kwargs.get("body") or {}
        yield "body", step.get("options") or {}
        yield from _awaited(step.get("task", ""), step.get("kwargs") or {})
    elif task == "celery.chain":
        for step in (kwargs.get("tasks") or [])[-1:]:
            yield "body", step.get("options") or {}
            yield from _awaited(step.get("task", ""), step.get("kwargs") or {})
    elif task == "celery.group":
        for step in kwargs.get("tasks") or []:
            yield "member", step.get("options") or {}
            yield from _awaited(step.get("task", ""), step.get("kwargs") or {})


def _readable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a letter shows them, whatever they are."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(arguments), default=repr))
    except (TypeError, ValueError, RecursionError):
        return {"arguments": repr(arguments)}
    return found
