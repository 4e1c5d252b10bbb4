"""A message that a process can have as it is: it was never tried, is due, and nothing follows it.

What such a message looks like is declared here; pydantic reads and checks it in one step, in less time than it takes to read
all of it. Any other message goes the long way, by Celery's own request.
"""

from binascii import a2b_base64
from typing import Annotated, Literal, NamedTuple, NotRequired, TypedDict

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from pydantic_core import from_json

from conventions.well_formed import Moment

_STRICT = ConfigDict(extra="ignore", strict=True)
_Name = Annotated[str, Field(min_length=1)]
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@with_config(_STRICT)
class _Headers(TypedDict):
    id: _Name
    task: str
    shadow: None
    eta: None
    expires: None
    retries: Literal[0]
    timelimit: tuple[float | None, float | None]
    root_id: str | None
    parent_id: str | None
    argsrepr: str
    kwargsrepr: str
    ignore_result: Literal[True]
    stamped_headers: None
    compression: NotRequired[None]
    x_actor: str
    x_key: _Name
    x_fingerprint: str
    x_enqueued_at: Moment
    x_planned_at: NotRequired[Moment]
    x_generation: NotRequired[Literal[0]]


@with_config(_STRICT)
class _Properties(TypedDict):
    body_encoding: Literal["base64"]


@with_config(_STRICT)
class _Message(TypedDict):
    content_type: Annotated[Literal["application/json"], Field(alias="content-type")]
    content_encoding: Annotated[Literal["utf-8"], Field(alias="content-encoding")]
    headers: _Headers
    properties: _Properties
    body: str


_read = TypeAdapter(_Message).validator.validate_json


class PlainMessage(NamedTuple):
    """What the main process needs to know of such a message.

    Attributes:
        time_limits: seconds of its own: hard, soft; see Celery's `time_limits`.
        shown_args, shown_kwargs: as logs show them.
    """

    id: str
    task: str
    key: str
    time_limits: tuple[float | None, float | None]
    shown_args: str
    shown_kwargs: str


def plain(payload: bytes) -> PlainMessage | None:
    """Read a message as kombu wrote it; `None` for one that is not plain, whatever it is."""
    try:
        message = _read(payload)
        args, kwargs, following = from_json(a2b_base64(message["body"]))
    except (ValueError, TypeError, RecursionError):  # pydantic's and binascii's are ValueErrors
        return None
    if args != [] or type(kwargs) is not dict or following != _NOTHING:
        return None
    headers = message["headers"]
    return PlainMessage(
        headers["id"],
        headers["task"],
        headers["x_key"],
        headers["timelimit"],
        headers["argsrepr"],
        headers["kwargsrepr"],
    )
