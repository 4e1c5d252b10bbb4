"""Look at the arguments of a plain function, and of a task of which only the name is known: they have no class that says what may be there (R20)."""

import functools
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from conventions.core.errors import CredentialInPayload
from conventions.security.credentials import Credential, credentials_in, may_hold_one
from conventions.security.payload_guard import INSTEAD, OPTION

logger = logging.getLogger(__name__)

How: TypeAlias = Literal["refuse", "warn", "ignore"]
"""What becomes of a send: it is refused, it is sent and said once in the log, or nobody looks."""

SETTING = "CONVENTIONS_FUNCTION_CREDENTIALS"


def look_at(
    where: str, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], how: How, *, follows: bool = False
) -> None:
    """Look at the arguments of a send, or of a step after it.

    Args:
        where: for the error: the name of the task, or of the step.
        task: a function's; `None`: only its name is known. Its `allowed_credentials` are those of a class.
        args: its positional arguments.
        kwargs: its arguments by name.
        how: what becomes of it.
        follows: whether a result comes before its positional arguments.

    Raises:
        CredentialInPayload: it names the path, never the value.
    """
    if how == "ignore":
        return
    names = _names(task.run) if task is not None else ()
    if follows and len(args) < len(names):
        names = names[1:]
    rest = list(args[len(names) :])
    values = dict(zip(names, args, strict=False)) | dict(kwargs) | ({"args": rest} if rest else {})
    if not _may_hold_one(values):
        return
    allowed = getattr(task, OPTION, None) or {}
    found = next((one for one in credentials_in(values) if one.path not in allowed), None)
    if found is None:
        return
    if how == "refuse":
        raise CredentialInPayload(
            f"{where}: the argument {found.path} looks like {found.what}; {INSTEAD}. Where it is none: "
            f'@app.task({OPTION}={{"{found.path}": "why it may be there"}}); {SETTING}=warn sends it, and says so in the log'
        )
    _warn(where, found)


def _may_hold_one(values: Mapping[str, Any]) -> bool:
    try:
        return may_hold_one(json.dumps(values, default=str, ensure_ascii=False))
    except (
        TypeError,
        ValueError,
        RecursionError,
    ):  # it is refused elsewhere, or Celery's serializer knows more than JSON
        return True


@functools.lru_cache(maxsize=1000)
def _warn(where: str, found: Credential) -> None:
    """Once for each place, since the answer is kept."""
    logger.warning("%s: the argument %s looks like %s; %s", where, found.path, found.what, INSTEAD)


@functools.lru_cache(maxsize=1000)
def _names(run: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the positional arguments of a function."""
    try:
        parameters = inspect.signature(run).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD))
