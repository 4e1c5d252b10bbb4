"""What the journal says of one attempt, and the message of a dead one as it can be sent again."""

from typing import Any

from conventions.broker.codec import as_kombu_writes, in_base64, json_of_kombu, message_of
from conventions.broker.header_names import LATER, ON_REQUEST, OURS, SIGNATURE, SIGNED, TOKEN
from conventions.core import error_text
from conventions.core.errors import PermissionDenied
from conventions.execution.attempt import Attempt
from conventions.execution.declared_task import DeclaredTask
from conventions.library_internals.celery import RABBITMQ_HEADERS
from conventions.records.journal import Event
from conventions.sealing.kept_message import sealed_message
from conventions.sealing.sealed_body import SEALED_BODY, SealedBody

_OF_ONE = (TOKEN, SIGNATURE, SIGNED)  # of one message alone: what goes on in its place is signed anew
_STAY = frozenset(
    [*OURS, *ON_REQUEST, *RABBITMQ_HEADERS]
)  # RabbitMQ would take its own for a message that goes in a circle


def event_of(task: DeclaredTask, job: Attempt, kind: str, error: BaseException | None = None) -> Event:
    """What the journal says of the current attempt."""
    dead = kind == "dead"
    denied = error.lacked_by if dead and isinstance(error, PermissionDenied) else None
    return Event(
        message_id=job.id,
        kind=kind,
        task=job.task,
        queue=job.queue,
        actor=job.actor,
        key=job.key,
        generation=job.generation,
        attempt=job.attempt,
        token=job.token,
        worker=job.worker,
        enqueued_at=job.enqueued_at,
        started_at=job.started_at,
        wait=job.waited,
        release=task.app.release,
        runtime=job.ran,
        failure=error_text.describe(job.task, error, sealed=job.sealed) if error is not None else None,
        denied=denied,
        arguments=dict(job.payload) if dead and sealed_body(task.request) is None else None,
        headers=own_headers(task.request) if dead else None,
        # Without keys the settle script adds the message itself, where it has it.
        message=envelope_of(task.request) if dead and (job.held is None or task.app.signatures is not None) else None,
    )


def sealed_body(request: Any) -> SealedBody | None:
    """The body of the message of a request as it came, where it was sealed."""
    found = getattr(request, SEALED_BODY, None)
    return found if isinstance(found, SealedBody) else None


def own_headers(request: Any) -> dict[str, Any]:
    """The headers that this platform put into the message."""
    # In a worker they are attributes. What `headers` is there may be those that tracing has put under this very name.
    below = (request.headers or {}) if request.is_eager else {}
    found = {name: getattr(request, name, below.get(name)) for name in OURS if name not in _OF_ONE}
    return {name: value for name, value in found.items() if value is not None}


def headers_to_go_on(request: Any) -> dict[str, Any]:
    """The headers of a message that goes on as another one: those of callers, and ours."""
    others = {name: value for name, value in (request.headers or {}).items() if not _stays(name)}
    return others | own_headers(request)


def _stays(name: str) -> bool:
    return name in _STAY or name.startswith(LATER)


def envelope_of(request: Any) -> dict[str, Any]:
    """The message of a request, as kombu writes it."""
    names = ("id", "root_id", "parent_id", "group", "group_index", "retries", "timelimit", "expires", "origin",
             "shadow", "ignore_result", "replaced_task_nesting", "stamps", "stamped_headers", "argsrepr", "kwargsrepr")  # fmt: skip
    headers = {"lang": "py", "task": request.task} | {name: getattr(request, name, None) for name in names}
    route = dict(request.delivery_info or {})
    properties = {
        "correlation_id": request.id,
        "reply_to": request.reply_to,
        "priority": route.get("priority"),
        "delivery_info": route,
    }
    written = as_kombu_writes(headers | headers_to_go_on(request))
    if (sealed := sealed_body(request)) is not None:
        return sealed_message(sealed, written, properties)
    embed = {name: getattr(request, name) for name in ("callbacks", "errbacks", "chain", "chord")}
    return message_of(in_base64(json_of_kombu([request.args, request.kwargs, embed]).encode()), written, properties)
