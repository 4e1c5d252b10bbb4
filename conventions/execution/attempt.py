"""`Attempt`: one try to run a message, as the pipeline and the running task see it; the `job` of a task is its present one."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from conventions.attempt_log.run_log import RunLog
from conventions.broker.batch_membership import Member
from conventions.broker.codec import DELIVERY
from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    COUNTS,
    EDITED_BY,
    ENQUEUED_AT,
    FINGERPRINT,
    GENERATION,
    KEY,
    OTHER_NAMES,
    PARKED,
    PLANNED_AT,
    READY_AT,
    REDRIVEN_BY,
    TOKEN,
)
from conventions.broker.redis_broker import HeldMessage
from conventions.broker.trace_context import TraceContext
from conventions.core.actor import SYSTEM, UNSIGNED, current_actor, current_editor
from conventions.core.canonical_json import digest
from conventions.core.settings import DEFAULT_KEEP_RESULT_FOR
from conventions.execution.declared_task import DeclaredTask
from conventions.execution.job_names import name_headers
from conventions.idempotency.claims import ClaimRequest
from conventions.sealing.sealed_body import SEALED_BODY
from conventions.tracing.spans import JobSpan


def this_call() -> str:
    """Names a call that asks for claims. Beside a token it need only differ between processes and calls of one worker."""
    return f"{os.getpid()}-{time.monotonic_ns()}"


@dataclass(slots=True)
class Attempt:
    """What `run` can ask of its message.

    `attempt` counts from 1; `counts` are failed attempts by kind of error, `parked` how often its key was in use,
    `generation` how often it was redriven. `held` is the message, where it lies in the Redis of the claims; `member` its
    place in a batch; `edited_by`, `redriven_by`: who has changed it as a dead letter; `reports`: it has asked for its `progress`; `log`: what its code logs; `sealed`: what it writes is sealed, as its message was; `other_names`: its key and fingerprint under the other key of names; `trace`: in which trace it was sent; `span`: of this attempt. `ready_at`: since when it lacked nothing but a free worker.
    """

    id: str
    task: str
    payload: Mapping[str, Any]
    key: str
    fingerprint: str
    actor: str
    attempt: int
    planned_at: datetime | None
    counts: Mapping[str, int]
    parked: int = 0
    generation: int = 0
    queue: str | None = None
    worker: str | None = None
    enqueued_at: datetime | None = None
    ready_at: datetime | None = None
    started_at: datetime | None = None
    held: HeldMessage | None = None
    member: Member | None = None
    horizon: timedelta = DEFAULT_KEEP_RESULT_FOR
    edited_by: str | None = None
    redriven_by: str | None = None
    ended: bool = False
    reports: bool = False
    log: RunLog | None = None
    trace: TraceContext | None = None
    span: JobSpan | None = None
    sealed: bool = False
    other_names: tuple[str, str] | None = None
    token: str = field(default_factory=lambda: uuid4().hex)
    start: str = field(default_factory=this_call)
    claim: ClaimRequest = field(init=False)  # what this attempt asks for

    def __post_init__(self) -> None:
        self.claim = ClaimRequest(
            self.task,
            self.key,
            self.token,
            self.id,
            self.fingerprint,
            generation=self.generation,
            attempt=self.attempt,
            sent_at=self.enqueued_at,
            horizon=self.horizon,
            held=self.held,
            start=self.start,
            other=self.other_names,
        )

    @property
    def waited(self) -> float | None:
        """Seconds from the moment in which it was ready to its start, by the clocks of who sent it and of this machine. `None`: unknown."""
        if self.started_at is None or self.ready_at is None:
            return None
        return max(0.0, (self.started_at - self.ready_at).total_seconds())

    @property
    def ran(self) -> float | None:
        """Seconds from its start until now. `None`: it has not begun."""
        return None if self.started_at is None else (datetime.now(UTC) - self.started_at).total_seconds()

    @classmethod
    def of(cls, task: DeclaredTask, payload: Mapping[str, Any]) -> "Attempt":
        """Read a job from the task's current request; what a foreign message lacks is computed."""
        request = task.request
        # At the top level in a worker, where those below are of other programs; below when run by `apply`.
        headers = (request.headers or {}) if request.is_eager else {}

        def read(name: str) -> Any:
            return getattr(request, name, None) or headers.get(name)

        found = cls.read(task, payload, read)
        if request.is_eager:  # it runs here, in the name of whom this code runs for
            found.actor = read(ACTOR) or current_actor()
            found.edited_by = found.edited_by or current_editor()
        return found

    @classmethod
    def read(
        cls, task: DeclaredTask, payload: Mapping[str, Any], field: Callable[[str], Any], start: str | None = None
    ) -> "Attempt":
        """Read a job from the fields of a request; `start` names the call that asks for its claim."""
        message_id = field("id") or uuid4().hex
        planned, key, fingerprint = field(PLANNED_AT), field(KEY), field(FINGERPRINT)
        delivery = (field("properties") or {}).get(DELIVERY)
        if not key or not fingerprint:  # another program's, or of a sender that knew the name of the task alone
            names = name_headers(
                task, payload, message_id, key=key, planned=planned, fingerprint=fingerprint or digest(payload)
            )
            key, fingerprint = key or names[KEY], fingerprint or names[FINGERPRINT]
        return cls(
            id=message_id,
            task=task.name,
            payload=payload,
            key=key,
            fingerprint=fingerprint,
            actor=field(ACTOR) or SYSTEM,
            attempt=(field("retries") or 0) + 1,
            planned_at=_moment(planned),
            counts=field(COUNTS) or {},
            parked=field(PARKED) or 0,
            generation=field(GENERATION) or 0,
            queue=delivery["queue"] if delivery else (field("delivery_info") or {}).get("routing_key"),
            worker=field("hostname"),
            enqueued_at=(enqueued_at := _moment(field(ENQUEUED_AT))),
            ready_at=_moment(field(READY_AT)) or enqueued_at,
            held=task.app.port.in_place(HeldMessage.of(delivery)) if delivery else None,
            # What nobody has signed is in no batch, whatever its arguments say.
            member=Member.read(field(BATCH))
            or (None if field(ACTOR) == UNSIGNED else task.member_of(payload, message_id)),
            horizon=task.horizon,
            edited_by=field(EDITED_BY) or None,
            redriven_by=field(REDRIVEN_BY) or None,
            trace=TraceContext.read(field),
            sealed=field(SEALED_BODY) is not None,
            other_names=(other[0], other[1]) if (other := field(OTHER_NAMES)) else None,
            token=field(TOKEN) or uuid4().hex,
            start=start or this_call(),
        )


def _moment(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value).astimezone(UTC) if value else None
