"""What a message must look like to be run: another program may have written it, and each part is used by somebody."""

from datetime import datetime
from typing import Annotated, Any, TypedDict

from pydantic import AfterValidator, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError


def _moment(value: str) -> str:
    datetime.fromisoformat(value)
    return value


Moment = Annotated[str, AfterValidator(_moment)]
Steps = list[dict[str, Any]] | None


class Headers(TypedDict, total=False):
    """The headers that Celery and we read."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # type: ignore[misc]  # pydantic's way

    id: str
    task: str
    retries: NonNegativeInt | None
    timelimit: list[float | None] | tuple[float | None, float | None] | None
    ignore_result: bool | None
    root_id: str | None
    parent_id: str | None
    x_actor: str
    x_key: str
    x_fingerprint: str
    x_enqueued_at: Moment
    x_planned_at: Moment
    x_counts: dict[str, NonNegativeInt]
    x_parked: NonNegativeInt
    x_generation: NonNegativeInt


class Options(TypedDict, total=False):
    """The third part of a body."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # type: ignore[misc]  # pydantic's way

    callbacks: Steps
    errbacks: Steps
    chain: Steps
    chord: dict[str, Any] | None


class Parts(TypedDict):
    """A message, as far as it is looked at before its task is."""

    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]  # pydantic's way

    headers: Headers
    args: list[Any]
    kwargs: dict[str, Any]
    options: Options | None


_PARTS = TypeAdapter(Parts)


def fault_of(headers: Any, args: Any, kwargs: Any, options: Any) -> str | None:
    """What is wrong with a message, naming the part and never its value; `None` when nothing is."""
    try:
        _PARTS.validate_python({"headers": headers, "args": list(args) if isinstance(args, tuple) else args,
                                "kwargs": kwargs, "options": options})  # fmt: skip
    except ValidationError as error:
        return "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    return None
