"""The payload of one message: `run`'s arguments, bound by name, validated, and turned into JSON by their annotations.

The same arguments always give the same payload: a mapping by name, in the order of the signature, with the defaults filled
in. A value may be the Python object of the annotation or its JSON form (`date(2026, 1, 1)` or `"2026-01-01"`). A value that
would need a conversion is refused (`"7"` for an `int`).
"""

import functools
import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Never, NoReturn, NotRequired, get_type_hints

import pydantic_core
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic wants this one on Python 3.11

from conventions.core.canonical_json import encode
from conventions.core.errors import DeclarationError, PayloadError
from conventions.core.value_bounds import half_character, refuse_half_characters
from conventions.declare.faults import Faults

_REFUSED_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "{0} is positional-only, but messages carry names; remove the /",
    inspect.Parameter.VAR_POSITIONAL: "*{0} is not allowed; name each argument, or take a list",
    inspect.Parameter.VAR_KEYWORD: "**{0} is not allowed; name each argument, or take a dict",
}


class Arguments:
    """The arguments of one `run` method.

    Args:
        task: the task's name, for error texts.
        function: `run`, whose first parameter is `self`.
        untyped: parameters that need no annotation.
        without: parameters that are not arguments of the task.

    Raises:
        DeclarationError: a parameter has no annotation or a wrong one, or is variadic.
    """

    def __init__(
        self, task: str, function: Callable[..., Any], *, untyped: Sequence[str] = (), without: Sequence[str] = ()
    ) -> None:
        self.task = task
        _, *parameters = inspect.signature(function).parameters.values()
        parameters = [one for one in parameters if one.name not in without]
        self.signature = inspect.Signature(parameters)
        self.names = tuple(parameter.name for parameter in parameters)
        self._defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        self.all_names = frozenset(self.names)
        self._required = self.all_names - self._defaults.keys()
        self._function = function
        self._untyped = frozenset(untyped)
        faults = Faults()
        for parameter in parameters:
            faults.check(self._check, parameter)
        faults.refuse()

    def _check(self, parameter: inspect.Parameter) -> None:
        if parameter.kind in _REFUSED_KINDS:
            raise DeclarationError(f"{self.task}: {_REFUSED_KINDS[parameter.kind].format(parameter.name)}")
        if parameter.annotation is inspect.Parameter.empty and parameter.name not in self._untyped:
            raise DeclarationError(
                f"{self.task}: argument {parameter.name!r} has no type; write, for example, {parameter.name}: int"
            )

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[dict[str, Any]]:
        try:
            hints = get_type_hints(self._function, include_extras=True)
        except NameError as error:
            raise DeclarationError(f"{self.task}: the type of an argument is not defined: {error}") from error
        fields: dict[str, Any] = {name: hints.get(name, Any) for name in self.names}
        for name in self._defaults:
            fields[name] = NotRequired[fields[name]]
        build: Any = TypedDict  # under another name: a type checker would ask for literal fields
        config: ConfigDict = ConfigDict(extra="forbid", hide_input_in_errors=True)
        try:
            return TypeAdapter(with_config(config)(build("Arguments", fields)))
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise DeclarationError(f"{self.task}: {error.message.splitlines()[0]}") from error

    @functools.cached_property
    def _validate(self) -> Callable[..., dict[str, Any]]:
        """The validator itself. `validate_python` of the adapter would do more work at each call."""
        return self._adapter.validator.validate_python

    def check_types(self) -> None:
        """Build the validator now. Raises: DeclarationError for an annotation or a default that cannot be checked."""
        if _holds_a_set(self._adapter.core_schema):
            raise DeclarationError(
                f"{self.task}: a set has no order, so equal sets are different payloads; take a list"
            )
        try:
            self._adapter.validate_python(self._defaults, strict=True)
        except ValidationError as error:
            faults = [
                fault for fault in error.errors(include_url=False, include_input=False) if fault["type"] != "missing"
            ]
            if faults:
                raise DeclarationError(
                    f"{self.task}: the default of {faults[0]['loc'][0]!r}: {faults[0]['msg']}"
                ) from None

    def bind(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Give each argument its name, check it, and make it JSON.

        Raises:
            TypeError: an argument is missing or there is one too many.
            PayloadError: an argument is of the wrong type, or JSON cannot hold it.
        """
        return self.written(args, kwargs)[0]

    def written(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """Like `bind`; returns the payload and its canonical JSON. Raises: TypeError, PayloadError."""
        return self._dump(self._validated(self._by_name(args, kwargs or {})))

    def named(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Give each argument its name; of whatever type they are, and without defaults. Raises: TypeError as `bind`."""
        return dict(self.signature.bind(*args, **(kwargs or {})).arguments)

    def check(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Like `bind`, but returns the Python objects that `run` declares. Raises: TypeError, PayloadError."""
        return self._validated(self._by_name(args, kwargs or {}))

    def load(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Turn a payload that arrived as JSON back into the Python objects that `run` declares.

        Raises:
            PayloadError: the payload does not fit the signature, for example after a deploy that changed it.
        """
        if not args and kwargs and self._is_plain and kwargs.keys() == self.all_names and _are_plain(kwargs.values()):
            try:
                return self._validate(kwargs, strict=True)
            except ValidationError:
                pass  # the slower way below finds what is wrong
        try:
            values = self._by_name(args, kwargs or {})
        except TypeError as error:
            raise PayloadError(str(error), misfit=self.misfit(args, kwargs)) from error
        try:
            return self._adapter.validate_json(pydantic_core.to_json(values), strict=True)
        except ValidationError as error:
            raise PayloadError(f"{self.task}: {_describe(error, values)}", misfit=_misfit_of(error)) from None
        except (
            ValueError,
            RecursionError,
        ) as error:  # bytes or half characters: another program may have sent the message
            raise PayloadError(f"{self.task}: the payload is no JSON ({_why(error, values)})") from None

    def misfit(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> str:
        """Why arguments cannot be bound, without their values: part of the cause by which failures are grouped. Empty when they can.

        The first argument at fault is named if it is declared, as in `missing user_id`. The name of an unknown one is left
        out, since a sender may make up any number of them, and each would be a cause of its own. So there are at most two
        causes for each declared argument, and two more.
        """
        given = kwargs or {}
        by_place = [one.name for one in self.signature.parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
        placed = by_place[: len(args)]
        for name in placed:
            if name in given:
                return f"twice {name}"
        if len(args) > len(by_place):
            return "too many"
        for name in self.names:
            if name in self._required and name not in given and name not in placed:
                return f"missing {name}"
        return "" if given.keys() <= self.all_names else "unknown"

    def faults(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The faults of JSON values, by argument. Empty when `bind` would accept their types.

        A fault that belongs to no single argument stands under the empty name.
        """
        try:
            self._adapter.validate_json(pydantic_core.to_json(dict(values)), strict=True)
        except ValidationError as error:
            found: dict[str, str] = {}
            for fault in error.errors(include_url=False, include_input=False):
                name, *within = _place(fault)
                text = f"{'.'.join(within)}: {fault['msg']}" if within else fault["msg"]
                found[name] = f"{found[name]}; {text}" if name in found else text
            return found
        except (ValueError, RecursionError) as error:  # half characters, or too deep
            return {"": f"this is no JSON that can be sent ({_why(error, values)})"}
        return {}

    def _by_name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        given = kwargs.keys()
        if not args and self._required <= given and given <= self.all_names:  # the usual case; `signature.bind` is slow
            return {name: kwargs[name] if name in given else self._defaults[name] for name in self.names}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.task}: {error}; its arguments are {self.signature}") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def _validated(self, values: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._validate(values, strict=True)
        except ValidationError as error:
            faults = error
        failed = {_place(fault)[0] for fault in faults.errors(include_url=False, include_input=False)}
        try:  # a chain or a redrive passes the JSON form of a value
            json.dumps([values.get(name) for name in failed], allow_nan=False)
            return self._adapter.validate_json(pydantic_core.to_json(values), strict=True)
        except (ValueError, TypeError, RecursionError):
            if why := _why(None, values):
                raise PayloadError(f"{self.task}: {why}") from None
            raise PayloadError(f"{self.task}: {_describe(faults, values)}", misfit=_misfit_of(faults)) from None

    @functools.cached_property
    def _is_plain(self) -> bool:
        """Whether every argument is declared as a number, text, truth value or `None`. These need no conversion to JSON."""
        schema: Any = self._adapter.core_schema
        return schema["type"] == "typed-dict" and all(_is_scalar(one["schema"]) for one in schema["fields"].values())

    def _dump(self, values: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            if self._is_plain and _SCALARS.issuperset(map(type, values.values())):
                return values, encode(values)  # refuses NaN and half characters
            refuse_unordered(values)
            dumped = self._adapter.dump_python(values, mode="json", warnings="none", by_alias=True)
            written = encode(dumped)
            if _REPLACED in written:  # pydantic writes this for half a character in a key, which would change the key
                refuse_half_characters(self._adapter.dump_python(values, warnings="none", by_alias=True))
            self._adapter.validate_json(written, strict=True)  # a payload that cannot be read back must not be sent
        except (ValueError, TypeError, RecursionError) as error:
            raise PayloadError(
                f"{self.task}: the arguments cannot be written as JSON ({_why(error, values)}); "
                "pass an id and look it up in run"
            ) from None
        return dict(dumped), written


class Returned:
    """The result of a task, turned into JSON by its annotation, like arguments: a `date` becomes `"2026-01-01"`.

    A result without an annotation, or annotated as JSON values, stays as it is.

    Args:
        task: the task's name, for error texts.
        function: the function that returns the result; `None` when the team has written none.

    Raises:
        DeclarationError: JSON cannot hold a value of the annotated type. Each job would do its work and then become a dead letter.
    """

    def __init__(self, task: str, function: Callable[..., Any] | None) -> None:
        self._adapter: TypeAdapter[Any] | None = None
        hint = Any if function is None else _return_hint(task, function)
        if hint in _SAYS_NOTHING:
            return
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hint)
            adapter.json_schema(mode="serialization")  # raises for a type without a JSON form, such as a function
        except (PydanticUserError, TypeError) as error:
            raise _refused(task, hint) from error
        if _types_within(adapter.core_schema).intersection(_NO_JSON):
            raise _refused(task, hint)
        if not _types_within(adapter.core_schema) <= _JSON:
            self._adapter = adapter

    def json(self, result: Any) -> Any:
        """A result as JSON values, even if it does not fit its annotation. Raises: ValueError, TypeError."""
        if self._adapter is None or type(result) in _SCALARS:
            return result
        try:
            return self._adapter.dump_python(result, mode="json", warnings="none", by_alias=True)
        except (ValueError, TypeError, RecursionError):
            raise
        except Exception as error:  # from the team's own code, such as a computed field
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _return_hint(task: str, function: Callable[..., Any]) -> Any:
    """The annotation of the result. Annotations of arguments are not evaluated. Raises: DeclarationError."""

    def result() -> Any: ...

    result.__annotations__ = {"return": inspect.get_annotations(function).get("return", Any)}
    try:
        return get_type_hints(result, getattr(inspect.unwrap(function), "__globals__", None), include_extras=True)[
            "return"
        ]
    except NameError as error:
        raise DeclarationError(f"{task}: the type that it returns is not defined: {error}") from error


_SAYS_NOTHING = (Any, None, type(None), object, Never, NoReturn)
_JSON = frozenset(["any", "bool", "default", "dict", "float", "int", "list", "none", "nullable", "str", "typed-dict",
                   "typed-dict-field", "union"])  # fmt: skip
_NO_JSON = frozenset(["bytes", "callable", "generator", "is-instance", "is-subclass"])


def _types_within(schema: Any) -> set[str]:
    """Every type in a pydantic schema. A custom serializer counts as the type `serialization`."""
    found: set[str] = set()
    if isinstance(schema, Mapping):
        if isinstance(schema.get("type"), str):
            found.add(schema["type"])
        if "serialization" in schema:
            found.add("serialization")
        for name, one in schema.items():
            if name not in ("serialization", "metadata"):
                found |= _types_within(one)
    elif isinstance(schema, (list, tuple)):
        for one in schema:
            found |= _types_within(one)
    return found


def _refused(task: str, hint: Any) -> DeclarationError:
    shown = getattr(hint, "__name__", None) or str(hint)
    return DeclarationError(
        f"{task}: it returns {shown}, which JSON cannot hold, so each job would be a dead letter after its effect; return an id, "
        "JSON values, a dataclass or a pydantic model, or write -> None"
    )


def _why(error: Exception | None, values: Mapping[str, Any]) -> str:
    """Why JSON cannot hold these values, and where, as far as we know."""
    where = half_character(values)
    if where is None:
        return "" if error is None else str(error)
    return f"argument '{where}' holds half a character (a lone surrogate), which no text may hold"


_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()


def refuse_unordered(value: Any) -> None:
    """Refuse a set, whose order differs, and NaN or infinity, which would become null. For arguments of any type.

    Raises:
        ValueError: there is such a value.
    """
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is no number in JSON")
        case set() | frozenset():
            raise ValueError("a set has no order; pass a list")
        case dict():
            for one in value.values():
                refuse_unordered(one)
        case list() | tuple():
            for one in value:
                refuse_unordered(one)


def _are_plain(values: Collection[Any]) -> bool:
    """Whether these values need no conversion to JSON: numbers, truth values, `None` and ASCII text."""
    return _SCALARS.issuperset(map(type, values)) and all(one.isascii() for one in values if type(one) is str)


_SCALARS = frozenset([int, float, str, bool, type(None)])


def _is_scalar(schema: Any) -> bool:
    if schema["type"] == "nullable":
        return _is_scalar(schema["schema"])
    return schema["type"] in ("int", "float", "str", "bool") and "serialization" not in schema


def _holds_a_set(schema: Any) -> bool:
    if isinstance(schema, Mapping):
        return schema.get("type") in ("set", "frozenset") or any(map(_holds_a_set, schema.values()))
    return isinstance(schema, (list, tuple)) and any(map(_holds_a_set, schema))


def check_size(task: str, written: bytes, limit: int) -> None:
    """Refuse a payload of more than `limit` bytes of JSON. Raises: PayloadError."""
    if len(written) > limit:
        raise PayloadError(
            f"{task}: the payload has {len(written):,} bytes, the limit is {limit:,}; "
            "store the data, pass its id, and look it up in run"
        )


def encode_result(task: str, result: Any, limit: int) -> bytes:
    """Write the result of a job as JSON, once. A result that is clearly too large is refused before it is written.

    Raises:
        PayloadError: the result takes more than `limit` bytes.
        TypeError, ValueError: JSON cannot hold the result.
    """
    written = b"" if _is_larger(result, limit) else encode(result)
    if not written or len(written) > limit:
        size = f"{len(written):,}" if written else f"more than {limit:,}"
        raise PayloadError(
            f"{task}: the result has {size} bytes, the limit is {limit:,}; the job has done its work: store the data, return "
            "its id, or raise CONVENTIONS_RESULT_LIMIT"
        )
    return written


def _is_larger(value: Any, limit: int) -> bool:
    """Whether a value certainly takes more than `limit` bytes of JSON. It only estimates: it does not write the value."""
    if isinstance(value, str):
        return len(value) > limit
    if not isinstance(value, (list, tuple, dict)):
        return False
    size, seen = 0, {id(value)}  # visit each part once: the JSON encoder refuses a value that contains itself
    left: list[Any] = [value]
    while left and size <= limit:
        one = left.pop()
        size += len(one)  # a comma follows each value
        for part in (part for pair in one.items() for part in pair) if isinstance(one, dict) else one:
            if isinstance(part, str):
                size += len(part)  # at least one byte for each character
            elif isinstance(part, (list, tuple, dict)) and id(part) not in seen:
                seen.add(id(part))
                left.append(part)
    return size > limit


def _place(fault: ErrorDetails) -> list[str]:
    """The argument of a fault, and where in it; an empty name when the whole payload is at fault, such as one that is too deep."""
    return [str(part) for part in fault["loc"]] or [""]


def _describe(error: ValidationError, values: Mapping[str, Any]) -> str:
    faults = [(_place(fault), fault["msg"]) for fault in error.errors(include_url=False, include_input=False)]
    return "; ".join(
        f"argument {'.'.join(place)!r}: {text} (got {type(values.get(place[0])).__name__})" if place[0] else text
        for place, text in faults
    )


_MISFITS = {"missing": "incomplete", "extra_forbidden": "too much in", "unexpected_keyword_argument": "too much in"}


def _misfit_of(error: ValidationError) -> str:
    """The first argument whose value does not fit, and how. Only its own name is declared: a place within it may be a key of the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{_MISFITS.get(first['type'], 'wrong')} {_place(first)[0]}"
