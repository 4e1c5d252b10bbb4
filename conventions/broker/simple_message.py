"""A simple message: never tried before, due, without following steps. A process can run it as it is.

Its form is declared here. pydantic reads and checks it in one step, faster than a full parse of the message. Any other
message
takes the slower path through Celery's own request.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions.broker.codec import SEALED_ENCODING, SEALED_TYPE, bytes_of, headers_in
from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    COUNTS,
    ENQUEUED_AT,
    FINGERPRINT,
    FOUND_BY,
    KEY,
    PARKED,
    PLANNED_AT,
    SEALED,
    SIGNED,
    TOGETHER,
    TRACING,
)
from conventions.broker.message_form import Count, Moment, Seconds, ShortText, Text, Urgency
from conventions.core.value_bounds import MESSAGE_LIMIT, MOST_CHARACTERS
from conventions.library_internals.kombu import KOMBU_TYPE

_STRICT = ConfigDict(extra="ignore", strict=True)
_Zero = Annotated[int, Field(ge=0, le=0)]  # `Literal[0]` would take False
_Absent = Annotated[str, Field(max_length=0), Field(min_length=1)]  # no value: a message that has it goes the long way
_Name = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
_NUL = b"\\u0000"  # the body is base64, so this finds it in the other parts
_DECLARED = (None, [SEALED], [FOUND_BY, SEALED])  # what a message says is signed beyond the rest, and is declared here
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@with_config(_STRICT)
class _Headers(TypedDict):
    id: _Name
    task: ShortText
    shadow: None
    eta: None
    expires: None
    retries: _Zero
    timelimit: tuple[Seconds | None, Seconds | None]
    root_id: ShortText | None
    parent_id: ShortText | None
    argsrepr: str
    kwargsrepr: str
    group: NotRequired[ShortText | None]
    group_index: NotRequired[Count | None]
    origin: NotRequired[ShortText | None]
    replaced_task_nesting: NotRequired[Count | None]
    stamps: NotRequired[dict[Text, Any] | None]
    headers: NotRequired[dict[Text, Any] | None]
    ignore_result: bool
    stamped_headers: None
    compression: NotRequired[None]
    x_actor: ShortText
    x_key: _Name
    x_fingerprint: ShortText
    x_enqueued_at: Moment
    x_planned_at: NotRequired[Moment]
    x_conventions_ready_at: NotRequired[_Absent]
    x_generation: NotRequired[_Zero]
    x_parked: NotRequired[_Zero]
    x_counts: NotRequired[dict[ShortText, Count]]
    x_batch: NotRequired[Any]
    x_form: NotRequired[Literal[1, 2]]  # see `codec.check_form`
    x_copy: NotRequired[ShortText]
    x_schedule: NotRequired[ShortText]
    x_conventions_together: NotRequired[Any]
    x_conventions_edited_by: NotRequired[_Absent]
    x_conventions_redriven_by: NotRequired[_Absent]
    x_conventions_sealed: NotRequired[Literal["-"]]
    x_conventions_other_names: NotRequired[_Absent]
    x_conventions_found_by: NotRequired[dict[ShortText, ShortText]]
    x_conventions_signature: NotRequired[Any]
    x_conventions_signed: NotRequired[Any]
    traceparent: NotRequired[Any]  # these three: of any program, see `TraceContext`
    tracestate: NotRequired[Any]
    baggage: NotRequired[Any]


@with_config(_STRICT)
class _Properties(TypedDict):
    body_encoding: Literal["base64"]
    delivery_info: dict[str, Any]
    priority: NotRequired[Urgency | None]
    correlation_id: NotRequired[ShortText | None]
    reply_to: NotRequired[ShortText | None]


@with_config(_STRICT)
class _Message(TypedDict):
    content_type: Annotated[
        Literal["application/json", "application/x-conventions-sealed"], Field(alias="content-type")
    ]
    content_encoding: Annotated[Literal["utf-8", "binary"], Field(alias="content-encoding")]
    headers: _Headers
    properties: _Properties
    body: str


SHOWN = ("argsrepr", "kwargsrepr")
TOLD = ("id", ACTOR, BATCH, COUNTS, ENQUEUED_AT, FINGERPRINT, KEY, PARKED, PLANNED_AT, *TRACING, TOGETHER, *SHOWN)
"""Headers that a job needs before it runs, or that its log lines show. A full parse for the log would cost a tenth of a short job."""

_read = TypeAdapter(_Message).validator.validate_json


class PlainMessage(NamedTuple):
    """The parts of a simple message that we read without a full parse.

    Attributes:
        time_limits: its own hard and soft limits, in seconds; see Celery's `time_limits`.
        shown_args, shown_kwargs: the arguments as logs show them.
        kwargs: its arguments; of a sealed one none are known here.
        told: the values of the headers `TOLD`; `None` for a missing header.
        sealed: its body, where that is sealed; else empty.
        bound_to: of a sealed one what its body is bound to, see `SealedBody`.
        headers: those that this file declares.
    """

    id: str
    task: str
    key: str
    time_limits: tuple[float | None, float | None]
    shown_args: str
    shown_kwargs: str
    kwargs: dict[str, Any]
    told: tuple[Any, ...]
    sealed: bytes
    bound_to: bytes


Believes: TypeAlias = Callable[[dict[str, Any], dict[str, Any], bytes, bytes], bytes | None]
"""Whether the sender of a message is to be believed, by those headers that this file declares, its arguments, its body, and all of it.

`None`: it is not; else what the body of a sealed one is bound to."""


def plain(payload: bytes, limit: int = MESSAGE_LIMIT, believes: Believes | None = None) -> PlainMessage | None:
    """Read a message as kombu wrote it. `None` if it is not simple, is not to be believed, or has more than `limit` bytes."""
    if len(payload) > limit:
        return None
    try:
        message = _read(payload)
        body = bytes_of(message["body"])
        is_sealed = message["content_type"] == SEALED_TYPE
        args, kwargs, following = ([], {}, _NOTHING) if is_sealed else from_json(body)
    except (ValueError, TypeError, RecursionError):  # pydantic's and binascii's are ValueErrors
        return None
    headers: Any = message["headers"]
    if args != [] or type(kwargs) is not dict or following != _NOTHING or not headers["ignore_result"]:
        return None
    if (
        (is_sealed and not body)
        or is_sealed != (SEALED in headers)
        or is_sealed != (message["content_encoding"] == SEALED_ENCODING)
    ):
        return None
    # Kombu's own types need kombu; SQL refuses NUL in a name.
    is_odd = KOMBU_TYPE in payload or KOMBU_TYPE in body or _NUL in payload
    bound_to = None if is_odd else b"" if believes is None else believes(headers, kwargs, body, payload)
    if bound_to is None:
        return None
    return PlainMessage(
        headers["id"],
        headers["task"],
        headers["x_key"],
        headers["timelimit"],
        headers["argsrepr"],
        headers["kwargsrepr"],
        kwargs,
        tuple(map(headers.get, TOLD)),
        body if is_sealed else b"",
        bound_to,
    )


def all_signed(headers: dict[str, Any], payload: bytes) -> dict[str, Any]:
    """The headers of a simple message with all that are signed. Of those of a caller nobody else needs more than the names."""
    return headers_in(payload) if headers.get(SIGNED) not in _DECLARED else headers
