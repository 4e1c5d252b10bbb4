"""The base classes. Subclass one and define `run`; then send the class itself.

A class that defines `run` is registered in its application (`tasks/owners.py`) by Celery's public `app.task`. Celery makes a subclass of it,
whose `__name__` is `run`, and runs that one; logs use `self.name`. Before you move a class with messages in flight, set
`name`, or list its old name in `aliases`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import celery
from celery import uuid

from conventions.broker.redis_broker import CancelAnswer
from conventions.core.actor import current_actor
from conventions.core.errors import DeclarationError
from conventions.declare.arguments_as_json import Arguments, Returned, check_size
from conventions.declare.class_rules import (
    IdempotentOn,
    check_attributes,
    check_task,
    decide_idempotency,
    refuse_second,
)
from conventions.declare.faults import Faults
from conventions.declare.required_permission import OPTION as REQUIRES
from conventions.declare.required_permission import Requires
from conventions.declare.retry_policy import RetryPolicy
from conventions.execution.cancel import cancel
from conventions.outbox.sends_on_commit import (
    delay_many_on_commit,
    delay_on_commit,
    enqueue_in,
    enqueue_many_in,
    with_options,
)
from conventions.security.payload_guard import refuse_credentials
from conventions.sending.canvas import in_chunks, mapped, signed, starmapped
from conventions.sending.enqueue_many import enqueue_chunks, enqueue_many
from conventions.sending.send import send
from conventions.tasks.owners import ApplicationOfClass, add_class, check_registered
from conventions.tasks.running_task import RunningTask
from conventions.tasks.sending_method import sending_method

if TYPE_CHECKING:
    from conventions.sending.steps import Sent
    from conventions.tasks.send_types import Delay, EnqueueIn, Options, S, Si


FROM_CELERY = tuple(
    (name, f"task_default_{name}" if name == "priority" else f"task_{name}")
    for name in ("priority", "track_started", "store_eager_result", "store_errors_even_if_ignored")
)


class ConventionTask(RunningTask):
    """Root of all tasks. Subclass one of the classes below; each stands for one class of job.

    Attributes:
        queue_name: the queue of its messages.
        idempotent_on: names of `run`'s arguments that make two messages the same job, or `EVERY_ARGUMENT`.
        not_idempotent: in place of `idempotent_on`: the reason why running twice does no harm.
        retry_policy: which failures are retried, and when.
        allowed_credentials: paths in the arguments, such as `rows[].token`, that look like credentials, each with the reason why they may be there.
        requires: the permission that the actor needs when the job runs, such as `report:read`, or a method that returns it. It takes those arguments of
            `run` that it names: `def requires(self, report_id: int) -> str`.
        encrypt: whether its messages, and what its jobs leave, are sealed: open only where they are sent, and in the process that runs them.
        sensitive: the arguments for which that is so; the whole message is sealed, as with `encrypt`.
        searchable: arguments by which sealed jobs and dead letters can still be found, by a code of each. Equal values are seen to be equal.
        aliases: old names under which messages may still arrive.
        fast_lane: whether short jobs may go to a process in groups. It only changes their speed.
    """

    queue_name: ClassVar[str] = "immediate"
    idempotent_on: ClassVar[IdempotentOn] = None
    not_idempotent: ClassVar[str | None] = None
    retry_policy: ClassVar[RetryPolicy] = RetryPolicy()
    allowed_credentials: ClassVar[Mapping[str, str]] = MappingProxyType({})
    requires: ClassVar[Requires] = None
    encrypt: ClassVar[bool] = False
    sensitive: ClassVar[Sequence[str]] = ()
    searchable: ClassVar[Sequence[str]] = ()
    aliases: ClassVar[tuple[str, ...]] = ()
    fast_lane: ClassVar[bool] = True

    # What Celery takes from its configuration, where a task does not say it. The rest is of functions; ours have settings of their own.
    from_config = FROM_CELERY
    serializer = "json"
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True  # a result that nobody reads is work and memory for nothing
    max_retries = None  # the policy decides

    app: Any = ApplicationOfClass()  # in place of Celery's, which would bind the class to the current one

    Request = "conventions.worker.request:Request"
    Strategy = "conventions.worker.strategy:strategy"

    limit_settings: ClassVar[tuple[str, str]] = ("soft_time_limit", "time_limit")
    payload_limit_setting: ClassVar[str] = "payload_limit"
    untyped: ClassVar[tuple[str, ...]] = ()
    no_arguments: ClassVar[tuple[str, ...]] = ()
    registered: ClassVar[Any] = None  # Celery's proxy of its task; `None`: the class defines no run
    arguments: ClassVar[Arguments]

    def __init_subclass__(cls, *, abstract: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_decorated" in cls.__dict__:  # Celery's subclass, made while registering
            check_registered(cls)
            return
        faults = Faults()
        if not cls.__module__.startswith("conventions."):  # our own base classes define the options
            check_attributes(cls, faults)
        cls.registered = None
        if abstract or cls.run is celery.Task.run:
            faults.refuse()
            return
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__qualname__}"
        cls.aliases = cls.__dict__.get("aliases", ())  # a subclass does not inherit old names
        faults.check(decide_idempotency, cls)
        arguments = faults.check(
            Arguments, cls.__qualname__, cls.declared_arguments(), untyped=cls.untyped, without=cls.no_arguments
        )
        check_task(cls, arguments, cls.limit_settings, faults)
        returned = faults.check(Returned, cls.__qualname__, cls.declared_result())
        faults.refuse()
        if arguments is not None and returned is not None:  # which `refuse` has seen to
            cls.arguments, cls.returned = arguments, returned
        if cls.sensitive:
            cls.encrypt = True
        refuse_second(cls)
        add_class(cls)

    @classmethod
    def annotate(cls) -> None:
        """Take from Celery's `task_annotations` what is said of this task by name. What is said of all (`*`) is of functions."""
        for annotation in cls.app.annotations:
            for name, value in (annotation.annotate(cls) or {}).items():
                if name == REQUIRES:
                    raise DeclarationError(
                        f"{cls.name}: task_annotations cannot say what it requires; the class says it"
                    )
                setattr(cls, name, value)

    @classmethod
    def _get_app(cls) -> Any:
        return cls.app

    @property
    def may_be_short(self) -> bool:
        """Whether its jobs may go to a process in a group."""
        return self.fast_lane

    @classmethod
    def declared_arguments(cls) -> Callable[..., Any]:
        """The function whose parameters are the task's arguments."""
        return cls.run

    @classmethod
    def declared_result(cls) -> Callable[..., Any] | None:
        """The function whose return annotation declares the result."""
        return cls.run

    @classmethod
    def on_bound(cls, app: Any) -> None:  # of Celery: it may be a bare one
        """Take time limits from the settings, unless the class has its own."""
        for option, setting in zip(("soft_time_limit", "time_limit"), cls.limit_settings, strict=True):
            if getattr(cls, option) is None and hasattr(type(app), "settings"):
                setattr(cls, option, getattr(app.settings, setting))

    # Sending.

    if TYPE_CHECKING:  # the arguments of `run`, see `send_types.py`
        delay: ClassVar[Delay]
        delay_on_commit: ClassVar[Delay]
        enqueue_in: ClassVar[EnqueueIn]
        s: ClassVar[S]
        si: ClassVar[Si]
        options: ClassVar[Options]
    else:
        delay = sending_method(celery.Task.delay)
        s = sending_method(celery.Task.s)
        si = sending_method(celery.Task.si)
        options = sending_method(with_options)
        enqueue_in = sending_method(enqueue_in)
        delay_on_commit = sending_method(delay_on_commit)

    apply: ClassVar[sending_method[..., Any]] = sending_method(celery.Task.apply)
    signature: ClassVar[sending_method[..., Any]] = sending_method(signed)
    AsyncResult: ClassVar[sending_method[..., Any]] = sending_method(celery.Task.AsyncResult)
    map: ClassVar[sending_method[..., Any]] = sending_method(mapped)
    starmap: ClassVar[sending_method[..., Any]] = sending_method(starmapped)
    chunks: ClassVar[sending_method[..., Any]] = sending_method(in_chunks)

    @sending_method
    def apply_async(
        self,
        /,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        planned_at: datetime | str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> "Sent[Any]":
        """Send one message.

        Args:
            args: positional arguments of `run`.
            kwargs: arguments of `run` by name.
            actor: who causes it; default: the actor of the running code.
            idempotency_key: in place of the key from the declared arguments.
            planned_at: the slot of a schedule, aware.
            task_id: the message's id; default: a new one.
            options: Celery's, such as `countdown` (seconds), `eta`, `expires`, `priority` (a `Priority`), `link`.

        Raises:
            TypeError: an argument is missing, or there is one too many; `priority` is not a `Priority`; an option has
                the wrong type; or a header is the platform's own.
            PayloadError: an argument has the wrong type, JSON cannot hold it, or the payload or the headers are too
                large.
            ValueError: the delay is beyond `max_delay`; the time limit is below the soft one; or an id, a key or a name
                has more than 255 characters, or is a text that cannot be stored.
            BrokerUnavailable: the broker did not accept it within `broker_timeout`; `maybe_sent` says whether it may be
                there.
        """
        how = {"actor": actor, "key": idempotency_key, "planned_at": planned_at}
        sent: Sent[Any] = send(self, args or (), kwargs or {}, task_id or uuid(), options, **how)
        return sent

    enqueue_many = sending_method(enqueue_many)
    enqueue_chunks = sending_method(enqueue_chunks)
    enqueue_many_in = sending_method(enqueue_many_in)
    delay_many_on_commit = sending_method(delay_many_on_commit)

    @sending_method
    def cancel(self, /, task_id: str) -> CancelAnswer:
        """Keep a message from running.

        Returns `queued`: it will not run. `running`: its job learns it at its next report of progress. `too late`: the
        message is not there; it has ended, or was not sent yet and then will not run. The id of a batch cancels the
        whole batch and adds an entry to the audit.
        """
        return cancel(self._application(), task_id, current_actor())

    def checked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The payload of these arguments, with the checks of every send. Raises: TypeError, PayloadError."""
        payload, written = self.arguments.written(args, kwargs)
        refuse_credentials(self, payload, written)
        check_size(self.name, written, getattr(self._application().settings, self.payload_limit_setting))
        return payload
