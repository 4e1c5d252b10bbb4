"""The methods of a running task, and what happens when it fails."""

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, overload
from zoneinfo import ZoneInfo

import celery
from celery.exceptions import Retry

from conventions.broker.batch_membership import Member
from conventions.core.canonical_json import encode
from conventions.core.error_text import without_values
from conventions.core.errors import (
    CannotOpen,
    LeaseLost,
    PayloadError,
    PermissionDenied,
    RetryRequested,
    TransactionRefused,
    TransactionRepeated,
)
from conventions.declare.arguments_as_json import Arguments, Returned, check_size
from conventions.declare.class_rules import IdempotentOn
from conventions.declare.required_permission import Requires, permission_of
from conventions.declare.retry_policy import RetryPolicy
from conventions.django.project_settings import is_configured
from conventions.execution.attempt import Attempt
from conventions.execution.claim_horizon import horizon_of
from conventions.execution.follow_ups import ACCUMULATE
from conventions.execution.run import RUN_BY, RetryAsked, execute
from conventions.execution.sealed_outcomes import kept_result
from conventions.execution.steps_within import every_task
from conventions.library_internals.celery import LocalStack, current_task, result_is_ignored
from conventions.permission.question import Question
from conventions.progress.reporter import Checkpoint, LeaseGuard, Progress, ProgressReporter
from conventions.sealing.sealed_body import SEALED_BODY
from conventions.sealing.sealed_text import CHECKPOINT, NOTE, note_opened, noting_opened, open_json, seal_text
from conventions.sending.application import SendingApplication
from conventions.tasks.plain_task import is_celerys

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from conventions.django.effect_record import EffectRecord


class RunningTask(celery.Task):
    """The part of every task that concerns its run.

    Attributes:
        counts_itself: whether the counts of `progress` are the job's own. The counts of a batch come from its chunks.
    """

    if TYPE_CHECKING:
        # Where Celery's source or other stubs say more or less of these, code that works for any task would be partly unknown.
        __name__: str
        request: Any  # of the job that this thread runs

        def run(self, *args: Any, **kwargs: Any) -> Any:
            """What it does: a subclass says it."""

        def replace(self, sig: Any) -> Any:
            """As Celery."""

        def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
            """As Celery."""

        def update_state(self, task_id: Any = None, state: Any = None, meta: Any = None, **kwargs: Any) -> None:
            """As Celery."""

    # Until Celery gives a registered task its own: a unit test may call `Charge().run(...)`.
    request_stack: Any = LocalStack()
    counts_itself: ClassVar[bool] = True
    queue_name: ClassVar[str]
    idempotent_on: ClassVar[IdempotentOn]
    payload_limit_setting: ClassVar[str]
    retry_policy: ClassVar[RetryPolicy] = RetryPolicy()
    arguments: ClassVar[Arguments]
    allowed_credentials: ClassVar[Mapping[str, str]]
    requires: ClassVar[Requires]
    encrypt: ClassVar[bool]
    searchable: ClassVar[Sequence[str]]
    returned: ClassVar[Returned]

    def _application(self) -> SendingApplication:
        if not hasattr(type(self.app), "settings"):
            raise RuntimeError(
                f'{self.name}: there is no application: write app = create_app("...") in your package\'s __init__.py'
            )
        found: SendingApplication = self.app
        return found

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # a message may have an argument of any name
        """In a worker, run through the pipeline. Called directly, as in a test, check the arguments and run."""
        request = self.request
        if request.called_directly or getattr(request, "job", None) is not None:  # `self(...)` within run
            self._refuse_celerys()
            return super().__call__(**self.arguments.check(args, kwargs))
        run = getattr(request, RUN_BY, None) or execute
        return run(self, request, args, kwargs)

    def _refuse_celerys(self) -> None:
        """Refuse to run within a task of Celery, such as `celery.starmap`: its message names any task, and it asks nobody. Raises: PermissionDenied."""
        if self.requires is not None and (around := current_task()) is not None and is_celerys(around):
            raise PermissionDenied(
                f"{self.name}: it requires a permission, and {around.name} would run it without asking; use starmap of the task, or a BatchTask"
            )

    @functools.cached_property
    def horizon(self) -> timedelta:
        """How long a claim of this task is kept."""
        return horizon_of(self)

    def member_of(self, payload: Mapping[str, Any], message_id: str) -> Member | None:  # noqa: ARG002
        """The part in a batch that a message with this payload has."""
        return None

    def question(self, payload: Mapping[str, Any]) -> Question | None:
        """What to ask before a message with this payload runs; `None`: nothing. Raises: PermissionDenied; PayloadError: the payload does not fit."""
        if self.requires is None:
            return None
        values = self.arguments.load((), payload) if callable(self.requires) else {}
        return Question(permission_of(self.name, self.requires, values), self.name, payload)

    def shown(self, payload: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The text of a large payload for logs and Flower; `None` for Celery's own text."""
        return None

    @property
    def job(self) -> Attempt:
        """The attempt that runs now. Raises: RuntimeError outside of `run`."""
        if self.request_stack.top is None:
            raise RuntimeError(f"{self.name} does not run now: what belongs to a message can only be read within run")
        request = self.request
        job: Attempt | None = getattr(request, "job", None) or getattr(request, "early_job", None)
        # Before it begins, or outside of a worker: under another name, since `job` says that it has begun.
        if job is None:
            job = request.early_job = Attempt.of(self, self.arguments.bind(request.args or (), request.kwargs or {}))
        return job

    @property
    def actor(self) -> str:
        """Who caused the message: a user id, `beat`, or `system`."""
        return self.job.actor

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.job.attempt

    @property
    def idempotency_key(self) -> str:
        """The key of the message; pass it to services that take one."""
        return self.job.key

    @property
    def planned_at(self) -> datetime | None:
        """The slot of the schedule, aware, in the app's time zone. `None` if the message was sent by hand."""
        planned = self.job.planned_at
        return planned and planned.astimezone(ZoneInfo(self._application().settings.timezone))

    @property
    def progress(self) -> ProgressReporter:
        """Reports progress: `advance(n, note=...)`, `total = n`."""
        reporter: ProgressReporter | None = getattr(self.request, "reporter", None)
        if reporter is None:
            app, job = self._application(), self.job
            job.reports = True
            batch_id = job.member.batch_id if job.member else ""
            reporter = self.request.reporter = ProgressReporter(
                app.store,
                job.id,
                keep=self.horizon,
                guard=None if self.request.is_eager else LeaseGuard(job.claim, app.claims.lease, batch_id),
                stall_after=self.stalls_after,
                counts=self.counts_itself,
                ignored=result_is_ignored(self, self.request),
                on_report=self.report_alive,
                start=self._checkpoint or Checkpoint(),
                note_as=functools.partial(self._sealed, NOTE) if job.sealed else str,
            )
        return reporter

    @property
    def _checkpoint(self) -> Checkpoint | None:
        if not hasattr(self.request, "checkpoint"):
            job = self.job
            kept = Progress.checkpoint_of(job.id, job.fingerprint, self._application().store)
            self.request.checkpoint = kept and replace(kept, value=self._opened(CHECKPOINT, kept.value))
        found: Checkpoint | None = self.request.checkpoint
        return found

    @property
    def resumed_from(self) -> Any:
        """The value of this message's last `checkpoint`, if it runs again; `None` in a fresh start.

        A checkpoint of other arguments, as before an edit of a dead letter, does not count.
        """
        found = self._checkpoint
        return found.value if found else None

    def checkpoint(self, value: Any) -> None:
        """Store where the job resumes if it has to run again; `resumed_from` then returns this value.

        It is written at once. The counts of `progress` go on from the checkpoint.

        Args:
            value: JSON, small: a cursor, not the data.

        Raises:
            PayloadError: the value is not JSON, or larger than a payload may be.
            JobCancelled, LeaseLost: do not catch them, as with `progress.advance`.
        """
        try:
            written = encode(value)
        except (TypeError, ValueError) as error:
            raise PayloadError(f"{self.name}: a checkpoint must be JSON ({error})") from error
        check_size(f"{self.name}: the checkpoint", written, self._application().settings.payload_limit)
        sealed = self._sealed(CHECKPOINT, written.decode()) if self.job.sealed else value
        self.progress.checkpoint(sealed, self.job.fingerprint)

    def _sealed(self, what: str, text: str) -> str:
        keys = self._application().payload_keys
        return text if keys is None else seal_text(keys, text, what, self.job.id)

    def _opened(self, what: str, value: Any) -> Any:
        try:
            return open_json(self._application().payload_keys, value, what, self.job.id)
        except CannotOpen:
            if self.job.sealed:
                raise
            return value  # a text of a job that is not sealed may begin like a sealed one

    def report_alive(self) -> None:
        """Report that the job goes on, so that its lease is renewed. It takes a microsecond."""
        request = self.request
        request.last_progress = time.monotonic()
        if not request.is_eager and (page := self._application().pages.mine) is not None:
            page.note_progress()

    @property
    def stalls_after(self) -> float:
        """Seconds without a report after which readers call a job stalled."""
        limit: float = getattr(self, "stall_after", None) or self._application().settings.stall_after
        return limit

    @property
    def split_after(self) -> float | None:
        """Seconds; a longer job should be split. `None`: the task may take long."""
        return None

    @property
    def hangs_after(self) -> float:
        """Seconds without a report until the lease is no longer renewed. 0: the hard time limit ends the job."""
        return 0.0 if self.time_limit else self.stalls_after

    def stall_check(self) -> Callable[[], bool]:
        """A function, safe in any thread, that tells whether the job hangs, so that its lease must expire."""
        request, limit = self.request, self.hangs_after  # the attribute depends on the thread, the object does not
        if not limit:
            return lambda: False
        request.last_progress = time.monotonic()
        return lambda: time.monotonic() - request.last_progress > limit

    def extend_lease(self, seconds: float) -> None:
        """Keep the job's claim for at least this many seconds from now (R12).

        Raises:
            LeaseLost: another worker has taken the job over, or it was ended from outside; the outcome of this attempt is not recorded.
        """
        self.report_alive()
        claims, claim = self._application().claims, self.job.claim
        if not self.request.is_eager and not claims.renew([claim], seconds)[0] and claims.is_lost(claim):
            raise without_values(
                LeaseLost(
                    f"{self.name}: another worker has taken this job over, or it was ended from outside; end here, and do nothing more"
                )
            )

    @overload
    def transaction(self) -> AbstractContextManager["Session"]: ...

    @overload
    def transaction(self, *, using: str) -> AbstractContextManager["EffectRecord"]: ...

    @contextmanager
    def transaction(self, *, using: str | None = None) -> Iterator[Any]:
        """Commit the effect and the record of it together, so that the effect happens once.

        Use it once in an attempt, as the last effect of `run`. If the record already exists, the job ends as done. What `run` returns is not in
        the record. So a job whose process is killed just after the commit ends with the result `None`, unless the block has
        set `session.info["result"]`, or `record.result`, to what it will return.

        Args:
            using: an alias of Django's `DATABASES`, where our tables are, too: the block writes by Django's ORM, and gets a record with
                `result`. Without it the block gets a session of SQLAlchemy to write by.

        Raises:
            TransactionRepeated: this attempt has already committed one.
            TransactionRefused: the record and the writes would not be committed together; it says what to change.
            TransactionRolledBack: the block has ended, and its transaction of Django was rolled back.
        """
        if getattr(self.request, "committed", False):
            raise TransactionRepeated(
                f"{self.name}: self.transaction() was used before in this attempt, and its record says that all is done; "
                "put every write into one block"
            )
        if getattr(self.request, "in_transaction", False):
            raise TransactionRefused(f"{self.name}: self.transaction() is open already; put every write into one block")
        self.request.in_transaction = True
        try:
            with self._block(using) as given:
                yield given
        finally:
            self.request.in_transaction = False
        self.request.committed = True

    @contextmanager
    def _block(self, using: str | None) -> Iterator[Any]:
        database, claim = self._application().database, self.job.claim
        if using is not None:
            from conventions.django.effect_record import transaction as with_django  # noqa: PLC0415  # only where there is Django

            limit = self._application().settings.result_limit
            with with_django(using, database, claim, limit, self._kept_result) as record:
                yield record
            return
        from conventions.idempotency.transactions import transaction  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        with ExitStack() as stack:
            if "django.db" in sys.modules and is_configured():  # a library may have imported it
                from conventions.django.write_guard import refusing_writes  # noqa: PLC0415  # only where there is Django

                stack.enter_context(refusing_writes())
            yield stack.enter_context(transaction(database, claim, self._kept_result))

    def _kept_result(self, result: Any, key: str) -> Any:
        """A result as the record of an effect keeps it, under a key: sealed, if its message was. Raises: TypeError, ValueError: it is no JSON."""
        return kept_result(self, self.job, result, key) if self.job.sealed else result

    if not TYPE_CHECKING:

        def replace(self, sig: Any) -> Any:
            """As Celery. What follows a sealed job is sent with what takes its place, and stays sealed."""
            with noting_opened():
                self._note_sealed()
                return super().replace(sig)

        def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
            """As Celery. The same: its message has the body of the chord."""
            with noting_opened():
                self._note_sealed()
                return super().add_to_chord(sig, lazy)

    def _note_sealed(self) -> None:
        if getattr(self.request, SEALED_BODY, None) is not None:
            note_opened()

    # Failing.

    def should_retry(self, error: Exception, attempts_made: int) -> bool:
        """Override it to decide in place of the policy whether to retry. The policy still sets the wait."""
        return attempts_made < self.retry_policy.limit_for(self.retry_policy.kind_of(error))

    @property
    def overrules_retry(self) -> bool:
        """Whether the task overrides `should_retry`."""
        return type(self).should_retry is not RunningTask.should_retry

    def retry(self, *, exc: Exception | None = None, countdown: float | None = None, throw: bool = True) -> Retry:
        """`raise self.retry(exc=error)`: ask for another attempt, by the task's policy.

        Args:
            exc: why; default: the exception being handled.
            countdown: seconds to wait, within the policy's `first_wait` and `max_wait`. The policy decides how often.
            throw: raise here, or return the exception to raise.
        """
        current = sys.exception()
        error = exc or (current if isinstance(current, Exception) else RetryRequested(f"{self.name} asked for a retry"))
        asked = RetryAsked(error, countdown)
        if throw:
            raise asked from error
        return asked

    def on_replace(self, sig: Any) -> Any:
        """As Celery. A group in its place keeps its results where the job would have kept its own.

        Celery asks the task that collects them, `celery.accumulate`, which keeps none here.
        """
        for step in every_task(sig):
            if step["task"] == ACCUMULATE:
                step["options"].setdefault("ignore_result", result_is_ignored(self, self.request))
        return super().on_replace(sig)  # type: ignore[misc]  # Celery has it, its types do not

    @property
    def hears_of_death(self) -> bool:
        """Whether the task overrides `on_dead`."""
        return type(self).on_dead is not RunningTask.on_dead

    def on_dead(self, job: Attempt, error: Exception) -> None:
        """Called after the message became a dead letter."""
