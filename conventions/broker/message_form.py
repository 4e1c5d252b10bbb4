"""The form that a message needs to be run. Another program may have written it, and our code uses each part."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, NotRequired

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    with_config,
)
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions.broker.header_names import ON_REQUEST
from conventions.core.error_text import clean
from conventions.core.value_bounds import LARGEST_COUNT, LONGEST, MOST_CHARACTERS, moment_of
from conventions.library_internals.celery import REQUEST_METHODS, signature_of

_STRICT = ConfigDict(extra="ignore", strict=True)


def _moment(value: str) -> str:
    moment_of(value)
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("a name has no NUL")
    return value


def _limits(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_is_limit, value)):
        raise ValueError(f"it is not [hard limit, soft limit], each null or 0 to {LONGEST} seconds")
    return value


def _is_limit(value: Any) -> bool:
    return value is None or (
        type(value) in {int, float} and 0 <= value <= LONGEST
    )  # AMQP has decimals, and no timer takes one


Moment = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_moment)]
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]
Limits = Annotated[Any, PlainValidator(_limits)]
Urgency = Annotated[int, Field(ge=0, le=255)]
# With a maximum length, pydantic also refuses half a character.
ShortText = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Text = Annotated[str, Field(max_length=2**31)]
Name = Annotated[ShortText, AfterValidator(_without_nul)]
TaskName = Annotated[Name, Field(min_length=1)]


@with_config(_STRICT)
class StepOptions(TypedDict, total=False):
    """The options of a following step that Celery reads before it sends the step."""

    task_id: Name | None
    group_id: Name | None
    root_id: Name | None
    parent_id: Name | None
    reply_to: Name | None
    headers: dict[Text, Any] | None


@with_config(_STRICT)
class Signature(TypedDict):
    """A following step, as far as sending it needs."""

    task: TaskName
    args: list[Any] | tuple[Any, ...]
    kwargs: dict[str, Any]
    options: StepOptions
    subtask_type: NotRequired[Name | None]
    immutable: NotRequired[bool]


def _readable(value: Any, check: Callable[[Any], Any], info: ValidationInfo) -> Any:
    """A group, a chain or a chord is read whole: a worker would meet its fault when the job before it has ended."""
    checked = check(value)
    if taken := sorted(NOT_OPTIONS.intersection(value["options"])):
        raise ValueError(f"a step has no option {taken[0]!r}")
    if value.get("subtask_type") is not None:
        for step in _within(value["subtask_type"], value["kwargs"]):
            _STEP.validate_python(step, context=_NESTED)
        if info.context is not _NESTED:  # which reads the nested ones, too
            try:
                signature_of(deepcopy(value))
            except Exception as error:
                raise ValueError(f"Celery cannot read a step of this type ({type(error).__name__})") from error
    return checked


def _within(kind: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The steps within a group, a chain or a chord. Raises: ValueError when it lacks one."""
    for name in STEPS_WITHIN.get(kind, ()):
        found = kwargs.get(name)
        if name == "body" and not found:
            raise ValueError("a chord has a body")
        yield from [] if found is None else found if isinstance(found, (list, tuple)) else [found]


STEPS_WITHIN = {"group": ("tasks",), "chain": ("tasks",), "chord": ("header", "body")}  # of the types that Celery has
CANVASES = frozenset(f"celery.{kind}" for kind in STEPS_WITHIN)  # the names of their tasks
_NESTED: dict[str, Any] = {}  # marks a step within another one
NOT_OPTIONS = frozenset(["self", "args", "kwargs", "name"])  # what sending a step passes otherwise
Step = Annotated[Signature, WrapValidator(_readable)]
Steps = list[Step] | None
_STEP = TypeAdapter(Step)


@with_config(_STRICT)
class Headers(TypedDict, total=False):
    """The headers that Celery or this platform reads."""

    id: Name
    task: TaskName
    shadow: Name | None
    retries: Count | None
    timelimit: Limits | None
    ignore_result: bool | None
    root_id: Name | None
    parent_id: Name | None
    group: Name | None
    group_index: Count | None
    eta: Moment | None
    origin: Name | None
    argsrepr: Text | None
    kwargsrepr: Text | None
    replaced_task_nesting: Count | None
    stamps: dict[Text, Any] | None
    stamped_headers: list[Text] | None
    headers: dict[Text, Any] | None  # headers of tracing
    x_actor: Name
    x_key: Name
    x_fingerprint: Name
    x_enqueued_at: Moment
    x_planned_at: Moment
    x_conventions_ready_at: Moment
    x_counts: dict[Name, Count]
    x_parked: Count
    x_generation: Count
    x_copy: Name
    x_schedule: Name
    x_conventions_edited_by: Name
    x_conventions_redriven_by: Name
    x_conventions_sealed: Name
    x_conventions_found_by: dict[Name, Name]
    x_conventions_other_names: Annotated[list[Name], Field(min_length=2, max_length=2)]


@with_config(_STRICT)
class Properties(TypedDict, total=False):
    """The properties of a message that its follow-ups inherit."""

    priority: Urgency | None
    correlation_id: Name | None
    reply_to: Name | None


@with_config(ConfigDict(extra="forbid", strict=True))
class Options(TypedDict, total=False):
    """The third part of a body. Celery copies each entry to the request, so any other name could replace a header."""

    callbacks: Steps
    errbacks: Steps
    chain: Steps
    chord: Step | None


@with_config(ConfigDict(strict=True))
class Parts(TypedDict):
    """A message, as far as it is checked before its task is known."""

    headers: Headers
    properties: Properties
    args: list[Any]
    kwargs: dict[str, Any]
    options: Options | None


_PARTS, _HEADERS = TypeAdapter(Parts), TypeAdapter(Headers)
MOST_FAULTS = 10  # that an error text lists

# Attributes that a request already has. A header of such a name would replace the attribute.
_TAKEN = frozenset(
    [
        *REQUEST_METHODS,
        "_late",
        "called_directly",
        "conventions_run_by",
        "conventions_sealed_body",
        "conventions_unopened",
        "is_eager",
        *ON_REQUEST,
        *Options.__annotations__,  # they belong to the body and are checked there
    ]
)


def fault_of(headers: Any, properties: Any, args: Any, kwargs: Any, options: Any) -> str | None:
    """What is wrong with a message. Names the part, never its value. `None` when nothing is wrong."""
    parts = {
        "headers": headers,
        "properties": properties or {},
        "args": list(args) if isinstance(args, tuple) else args,
        "kwargs": kwargs,
        "options": options,
    }
    try:
        _PARTS.validate_python(parts)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
        return "; ".join(f"{clean('.'.join(map(str, fault['loc'])))}: {fault['msg']}" for fault in faults)
    return None


def has_form(headers: Mapping[str, Any]) -> bool:
    """Whether each of these headers, some of a message, has the form of one that a worker takes."""
    try:
        _HEADERS.validate_python(headers)
    except ValidationError:
        return False
    return True


def fault_of_headers(headers: Mapping[str, Any], properties: Any) -> str | None:
    """What is wrong with the headers of a message whose task is unknown here, so nobody can check its body."""
    if headers.get("task") is None:
        return "headers.task: it names no task"
    return fault_of(headers, properties, [], {}, None)


def drop_taken(request: dict[str, Any]) -> None:
    """Remove headers that would replace other attributes of a request. No program of ours writes such headers."""
    if not _TAKEN.isdisjoint(request):
        for name in _TAKEN & request.keys():
            del request[name]
