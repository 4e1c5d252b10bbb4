"""A message that a process can have as it is: it was never tried, is due, and nothing follows it.

What such a message looks like is declared here; pydantic reads and checks it in one step, in less time than it takes to read
all of it. Any other message goes the long way, by Celery's own request.
"""

from binascii import a2b_base64
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

from pydantic import ConfigDict, Field, NonNegativeInt, TypeAdapter, with_config
from pydantic_core import from_json

from conventions.job import ACTOR, BATCH, COUNTS, ENQUEUED_AT, FINGERPRINT, KEY, PARKED, PLANNED_AT
from conventions.raw_message import OF_ITS_OWN
from conventions.well_formed import Moment

_STRICT = ConfigDict(extra="ignore", strict=True)
_Zero = Annotated[int, Field(ge=0, le=0)]  # `Literal[0]` would take False
_Name = Annotated[str, Field(min_length=1)]
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@with_config(_STRICT)
class _Headers(TypedDict):
    id: _Name
    task: str
    shadow: None
    eta: None
    expires: None
    retries: _Zero
    timelimit: tuple[float | None, float | None]
    root_id: str | None
    parent_id: str | None
    argsrepr: str
    kwargsrepr: str
    ignore_result: bool
    stamped_headers: None
    compression: NotRequired[None]
    x_actor: str
    x_key: _Name
    x_fingerprint: str
    x_enqueued_at: Moment
    x_planned_at: NotRequired[Moment]
    x_generation: NotRequired[_Zero]
    x_parked: NotRequired[_Zero]
    x_counts: NotRequired[dict[str, NonNegativeInt]]
    x_batch: NotRequired[Any]
    x_form: NotRequired[Literal[1]]  # see `raw_message`


@with_config(_STRICT)
class _Properties(TypedDict):
    body_encoding: Literal["base64"]
    delivery_info: dict[str, Any]


@with_config(_STRICT)
class _Message(TypedDict):
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: _Headers
    properties: _Properties
    body: str


TOLD = ("id", ACTOR, BATCH, COUNTS, ENQUEUED_AT, FINGERPRINT, KEY, PARKED, PLANNED_AT)
"""Headers that a job needs before it runs."""

_read = TypeAdapter(_Message).validator.validate_json


class PlainMessage(NamedTuple):
    """What is known of such a message without reading all of it.

    Attributes:
        time_limits: seconds of its own: hard, soft; see Celery's `time_limits`.
        shown_args, shown_kwargs: as logs show them.
        kwargs: its arguments.
        told: the values of `TOLD`; `None` where it has no such header.
    """

    id: str
    task: str
    key: str
    time_limits: tuple[float | None, float | None]
    shown_args: str
    shown_kwargs: str
    kwargs: dict[str, Any]
    told: tuple[Any, ...]


def plain(payload: bytes) -> PlainMessage | None:
    """Read a message as kombu wrote it; `None` for one that is not plain, whatever it is."""
    try:
        message = _read(payload)
        body = a2b_base64(message["body"])
        args, kwargs, following = from_json(body)
    except (ValueError, TypeError, RecursionError):  # pydantic's and binascii's are ValueErrors
        return None
    if args != [] or type(kwargs) is not dict or following != _NOTHING or not message["headers"]["ignore_result"]:
        return None
    if OF_ITS_OWN in payload or OF_ITS_OWN in body:  # kombu may refuse to read it
        return None
    headers: Any = message["headers"]
    return PlainMessage(
        headers["id"],
        headers["task"],
        headers["x_key"],
        headers["timelimit"],
        headers["argsrepr"],
        headers["kwargsrepr"],
        kwargs,
        tuple(map(headers.get, TOLD)),
    )
