"""The rules for a task class, checked when its module is imported. Every error says what to write instead."""

import difflib
import inspect
import math
from collections.abc import Sequence
from datetime import datetime
from types import CodeType
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from conventions.core.errors import DeclarationError
from conventions.core.settings import Settings
from conventions.core.value_bounds import fault_of_name
from conventions.declare.arguments_as_json import Arguments
from conventions.declare.faults import Faults
from conventions.declare.required_permission import check_requires
from conventions.declare.retry_policy import RetryPolicy
from conventions.library_internals.celery import per_second
from conventions.security.payload_guard import fault_of_allowed, named_so


class Sentinel:
    """A value of `idempotent_on` that stands for itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


EVERY_ARGUMENT: Final = Sentinel("EVERY_ARGUMENT")
PLANNED_TIME: Final = Sentinel("PLANNED_TIME")

IdempotentOn: TypeAlias = Sequence[str] | Sentinel | None
"""What makes two messages the same job: names of arguments, or one of the two values above; `None`: nothing does."""


class TaskClass(Protocol):
    """A class that declares a task. Its author may have written values of any type: they are checked here."""

    name: str
    aliases: ClassVar[Any]
    allowed_credentials: ClassVar[Any]
    encrypt: ClassVar[Any]
    expires: Any
    idempotent_on: ClassVar[Any]
    not_idempotent: ClassVar[Any]
    queue_name: ClassVar[Any]
    rate_limit: Any
    requires: ClassVar[Any]
    retry_policy: ClassVar[Any]
    searchable: ClassVar[Any]
    sensitive: ClassVar[Any]
    serializer: Any
    soft_time_limit: Any
    time_limit: Any

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The team's own code."""


_declared: dict[str, tuple[str, str, int]] = {}  # task name to the place of its declaration

OPTIONS = (
    "aliases",
    "allowed_credentials",
    "chunk_size",
    "encrypt",
    "expires",
    "fast_lane",
    "idempotent_on",
    "ignore_result",
    "not_idempotent",
    "queue_name",
    "requires",
    "retry_policy",
    "searchable",
    "sensitive",
    "should_retry",
    "soft_time_limit",
    "stall_after",
    "time_limit",
)

HOOK = "should_retry"

# How like an option a name must be, by `difflib`. Each of 9,702 slips of one letter is at least 0.85; `rate_limit` and `request`,
# which are names of a team's own, are 0.8 like `time_limit` and `requires`.
MISSPELT = 0.82

_REPLACED = {
    "queue": "write queue_name = ...",
    "routing_key": "write queue_name = ...",
    "exchange": "write queue_name = ...",
    "priority": "pass priority=Priority.HIGH to apply_async",
    "autoretry_for": "write retry_policy = RetryPolicy(on=(...,))",
    "dont_autoretry_for": "write retry_policy = RetryPolicy(never=(...,))",
    "retry_kwargs": "write retry_policy = RetryPolicy(...)",
    "retry_backoff": "write retry_policy = RetryPolicy(first_wait=..., factor=...)",
    "retry_backoff_max": "write retry_policy = RetryPolicy(max_wait=...)",
    "retry_jitter": "write retry_policy = RetryPolicy(jitter=...)",
    "max_retries": "write retry_policy = RetryPolicy(attempts=...)",
    "default_retry_delay": "write retry_policy = RetryPolicy(first_wait=...)",
    "before_start": "do it at the start of run, where a failure is tried again",
    "acks_late": "remove it: every message is acknowledged after its outcome is recorded",
    "reject_on_worker_lost": "remove it: a lost worker's message always runs again",
}

# What other task queues call an option. A team's own constant has another name.
_FOREIGN = {
    **dict.fromkeys(("attempts", "max_retry", "retries", "retry"), "write retry_policy = RetryPolicy(attempts=...)"),
    **dict.fromkeys(("timeout", "time_out"), "write time_limit = ... and soft_time_limit = ..., in seconds"),
    **dict.fromkeys(("countdown", "delay_seconds", "eta"), "pass countdown=... to apply_async, or to options"),
    "ttl": "write expires = ..., in seconds",
}

_SENDS = ("apply", "apply_async", "cancel", "chunks", "delay", "enqueue_chunks", "enqueue_many", "map", "s", "si",
          "signature", "starmap")  # fmt: skip

_REFUSED = {
    **{name: f"is not used here: {instead}" for name, instead in _REPLACED.items()},
    **dict.fromkeys(
        _SENDS,
        "is how messages are sent, by the class as by the task, and cannot be replaced; write a method of another name "
        "that calls it",
    ),
}


def check_attributes(cls: type, faults: Faults) -> None:
    """Find options that are misspelt, replaced by ours, or not built. Looks only at the class's own attributes."""
    for name in cls.__dict__:
        faults.check(_check_attribute, cls, name)


def _check_attribute(cls: type, name: str) -> None:
    """Raises: DeclarationError, with the line to write instead."""
    if name in _REFUSED:
        raise DeclarationError(f"{cls.__qualname__}: {name} {_REFUSED[name]}")
    # `hasattr` would bind Celery's base to the current application.
    if name.startswith("_") or any(name in vars(one) for base in cls.__bases__ for one in base.__mro__[:-1]):
        return
    if inspect.isroutine(cls.__dict__[name]):
        if name != HOOK and _meant(name, (HOOK,)):
            raise DeclarationError(f"{cls.__qualname__}: nothing calls {name}; write {HOOK}")
        return
    if name in OPTIONS:
        raise DeclarationError(f"{cls.__qualname__}: {name} has no effect on this kind of task; remove it")
    if foreign := name if name in _FOREIGN else _meant(name, tuple(_FOREIGN)):
        raise DeclarationError(f"{cls.__qualname__}: {name} is no option: {_FOREIGN[foreign]}")
    if option := _meant(name, OPTIONS):
        raise DeclarationError(f"{cls.__qualname__}: there is no option {name}; write {option} = ...")


def _meant(name: str, options: Sequence[str]) -> str | None:
    """The option that `name` is a typing error for; `None` if there is none."""
    close = difflib.get_close_matches(name, options, n=1, cutoff=MISSPELT)
    return close[0] if close else None


def decide_idempotency(cls: type[TaskClass]) -> None:
    """A class's own choice replaces the choice of its base. Raises: DeclarationError when it makes both."""
    own = [name for name in ("idempotent_on", "not_idempotent") if cls.__dict__.get(name) is not None]
    if len(own) > 1:
        raise DeclarationError(f"{cls.__qualname__}: idempotent_on and not_idempotent contradict each other; write one")
    if own == ["not_idempotent"]:
        cls.idempotent_on = None
    elif own:
        cls.not_idempotent = None


def check_task(cls: type[TaskClass], arguments: Arguments | None, defaults: tuple[str, str], faults: Faults) -> None:
    """Check a concrete task class. Each fault says the line to write.

    Args:
        cls: the class.
        arguments: the arguments of its `run` (of `items`, for a batch); `None`: they have faults of their own.
        defaults: the names of the settings with its default soft and hard time limits.
        faults: where they are noted.
    """
    name = cls.__qualname__
    faults.check(_check_docstring, cls)
    faults.check(refuse_no_plain_function, name, cls.run)
    if arguments is not None:
        faults.check(arguments.check_types)
        faults.check(_check_idempotency, name, cls.idempotent_on, cls.not_idempotent, arguments.names)
        faults.check(_check_credentials, name, cls.allowed_credentials, arguments.names)
        faults.check(check_requires, cls, arguments.names)
        faults.check(_check_sealed, name, cls, arguments.names)
    for check in (_check_call, _check_retry_policy, _check_names, _check_form, _check_values):
        faults.check(check, cls)
    faults.check(_check_limits, cls, defaults)


def _check_docstring(cls: type[TaskClass]) -> None:
    if not (cls.__dict__.get("__doc__") or "").strip():
        raise DeclarationError(
            f'{cls.__qualname__}: a task says its effect in a docstring; write """Send one e-mail to one user."""'
        )


def _check_call(cls: type[TaskClass]) -> None:
    """A `__call__` of a team's own goes around that of ours, which claims the job and records its end."""
    for one in cls.__mro__:
        own = vars(one).get("__call__")
        if one.__module__.startswith(("conventions.", "celery.")):
            return
        code = getattr(inspect.unwrap(own) if callable(own) else None, "__code__", None)
        if code is not None and "__call__" not in _names_in(code):
            raise DeclarationError(
                f"{cls.__qualname__}: {one.__qualname__}.__call__ does not seem to call ours, which claims the job and records its end; write "
                "return super().__call__(*args, **kwargs) in it, not in a function that it calls"
            )


def _names_in(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return {*code.co_names, *(name for one in inner for name in _names_in(one))}


def _check_retry_policy(cls: type[TaskClass]) -> None:
    if not isinstance(cls.retry_policy, RetryPolicy):
        raise DeclarationError(
            f"{cls.__qualname__}: retry_policy must be a RetryPolicy; write retry_policy = RetryPolicy(attempts=5)"
        )


def _check_names(cls: type[TaskClass]) -> None:
    name = cls.__qualname__
    if not isinstance(cls.queue_name, str) or not cls.queue_name:
        raise DeclarationError(f'{name}: queue_name must be a name; write queue_name = "mail"')
    for option in ("name", "queue_name"):
        if fault := fault_of_name(getattr(cls, option)):
            raise DeclarationError(f"{name}: {option} {fault}")
    if isinstance(cls.aliases, str):
        raise DeclarationError(f'{name}: aliases is a tuple; write aliases = ("{cls.aliases}",)')


def _check_form(cls: type[TaskClass]) -> None:
    name = cls.__qualname__
    if cls.serializer not in (None, "json"):
        raise DeclarationError(f"{name}: only JSON is accepted; remove serializer = {cls.serializer!r}")
    if compression := getattr(cls, "compression", None):
        raise DeclarationError(f"{name}: workers refuse compressed messages; remove compression = {compression!r}")


def refuse_no_plain_function(name: str, function: Any) -> None:
    """Refuse one that returns before its work is done. Raises: DeclarationError."""
    if any(
        kind(function)
        for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    ):
        raise DeclarationError(
            f"{name}: {function.__name__} must be a plain function; write def {function.__name__}, and asyncio.run(...) within it"
        )


def _check_idempotency(name: str, declared: Any, reason: Any, arguments: Sequence[str]) -> None:
    sample = ", ".join(f'"{argument}"' for argument in arguments[:2])
    if declared is None and reason is None:
        raise DeclarationError(
            f"{name}: say what makes two messages the same job; write "
            + (f"idempotent_on = ({sample},) or idempotent_on = EVERY_ARGUMENT, or " if arguments else "")
            + 'not_idempotent = "why running twice does no harm"'
        )
    if reason is not None and (not isinstance(reason, str) or not reason.strip()):
        raise DeclarationError(f'{name}: not_idempotent is the reason; write not_idempotent = "why"')
    if isinstance(declared, str):
        raise DeclarationError(f'{name}: idempotent_on is a tuple; write idempotent_on = ("{declared}",)')
    if declared is None or isinstance(declared, Sentinel):
        return
    if not isinstance(declared, (tuple, list)) or not all(isinstance(one, str) for one in declared):
        raise DeclarationError(f"{name}: idempotent_on names arguments; write idempotent_on = ({sample or '...'},)")
    if not declared:
        raise DeclarationError(f"{name}: idempotent_on is empty; name an argument, or write EVERY_ARGUMENT")
    for argument in declared:
        if argument not in arguments:
            close = difflib.get_close_matches(argument, arguments, n=1)
            advice = f"write {close[0]!r}" if close else f"its arguments are {', '.join(arguments) or 'none'}"
            raise DeclarationError(f"{name}: idempotent_on names {argument!r}, which run does not take; {advice}")


def _check_credentials(name: str, allowed: Any, arguments: tuple[str, ...]) -> None:
    """An argument that is named like a credential would hold one."""
    if fault := fault_of_allowed(allowed):
        raise DeclarationError(f"{name}: {fault}")
    if found := named_so(arguments, allowed):
        raise DeclarationError(
            f"{name}: the argument {found.path} is named like a credential, which job data must not hold; take an id, and look it up in run. Where it is "
            f'none, say why: allowed_credentials = {{"{found.path}": "..."}}'
        )


def _check_sealed(name: str, cls: type[TaskClass], arguments: tuple[str, ...]) -> None:
    """Whether its messages are sealed, for which arguments, and by which they are found."""
    if type(cls.encrypt) is not bool:
        raise DeclarationError(f"{name}: encrypt is True or False, not {cls.encrypt!r}")
    for option, names, sample in (("sensitive", cls.sensitive, "ssn"), ("searchable", cls.searchable, "order_id")):
        if not isinstance(names, (list, tuple)) or not all(isinstance(one, str) for one in names):
            raise DeclarationError(f'{name}: {option} names arguments, not {names!r}; write {option} = ("{sample}",)')
        if unknown := [one for one in names if one not in arguments]:
            there = ", ".join(arguments) or "none"
            raise DeclarationError(
                f"{name}: {option} names {unknown[0]!r}, which is no argument of the job; there are: {there}"
            )


def _check_limits(cls: type[TaskClass], defaults: tuple[str, str]) -> None:
    soft_default, hard_default = (Settings.model_fields[name].default for name in defaults)
    soft = cls.soft_time_limit if cls.soft_time_limit is not None else soft_default
    hard = cls.time_limit if cls.time_limit is not None else hard_default
    for option, value in (("soft_time_limit", soft), ("time_limit", hard)):
        if not _is_number(value) or value <= 0:
            raise DeclarationError(f"{cls.__qualname__}: {option} is a number of seconds above 0, not {value!r}")
    if hard < soft:
        raise DeclarationError(
            f"{cls.__qualname__}: time_limit ({hard:g} s) is below soft_time_limit ({soft:g} s); "
            f"write time_limit = {soft + 30:g}, or soft_time_limit = {max(hard - 5, hard / 2):g}"
        )


def _check_values(cls: type[TaskClass]) -> None:
    name = cls.__qualname__
    for option in ("fast_lane", "ignore_result"):
        if not isinstance(value := getattr(cls, option), bool | property):
            raise DeclarationError(f"{name}: {option} is True or False, not {value!r}")
    expires = cls.expires
    if not (expires is None or _is_number(expires) or isinstance(expires, (datetime, property))):
        raise DeclarationError(f"{name}: expires is a number of seconds, not {expires!r}; write expires = 3600")
    if not _is_rate(cls.rate_limit):
        raise DeclarationError(
            f'{name}: rate_limit is how many a second, minute or hour, not {cls.rate_limit!r}; write rate_limit = "10/m"'
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_rate(value: Any) -> bool:
    """Whether a worker can read this rate. Every worker would stop at its start on a rate that it cannot read."""
    if value is None or isinstance(value, property) or _is_number(value):
        return True
    if not isinstance(value, str):
        return False
    try:
        per_second(value)
    except (ValueError, KeyError):
        return False
    return True


def refuse_second(cls: type[TaskClass]) -> None:
    """Refuse a second task of the same name. A second import of the same lines is allowed."""
    line = (
        cls.__dict__.get("__firstlineno__") or inspect.unwrap(cls.run).__code__.co_firstlineno
    )  # the first since Python 3.13
    place = (cls.__module__, cls.__qualname__, int(line))
    before = _declared.setdefault(cls.name, place)
    is_program = "__main__" in {before[0], place[0]} and before[1:] == place[1:]  # the same file, run and imported
    if before != place and not is_program:
        raise DeclarationError(
            f"{cls.__module__}.{cls.__qualname__}: the task {cls.name!r} is declared by {before[0]}.{before[1]} already "
            f'(line {before[2]}); write another name = "..."'
        )
