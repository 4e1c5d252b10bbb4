"""Refuse a send whose data looks like a credential: the arguments, the steps after it, its headers, its key and its actor (R20)."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from conventions.core.errors import CredentialInPayload
from conventions.security.credentials import SHORTEST, Credential, credentials_in, first_in, may_hold_one, shape_of

OPTION = "allowed_credentials"
_NO_TEXT = frozenset([int, float, bool, type(None)])
_ID = re.compile(r"[0-9a-f-]{1,64}")
INSTEAD = "it would lie in Redis, SQL and dead letters for months: pass an id, and look it up in run"


class Guarded(Protocol):
    """A task."""

    @property
    def name(self) -> str:
        """Of the task."""

    @property
    def allowed_credentials(self) -> Mapping[str, str]:
        """Paths that look like credentials and are none, or may be there, each with the reason."""


def refuse_credentials(task: Guarded, payload: Mapping[str, Any], written: bytes) -> None:
    """Refuse arguments that hold one.

    Args:
        task: the task.
        payload: its arguments as JSON values.
        written: the same as JSON text.

    Raises:
        CredentialInPayload: it names the path, never the value.
    """
    if is_clear(payload):
        return
    if found := first_in(payload, written, task.allowed_credentials):
        raise CredentialInPayload(
            f"{task.name}: the argument {found.path} looks like {found.what}; {INSTEAD}. Where it is none, the class says why: "
            f'{OPTION} = {{"{found.path}": "..."}}'
        )


def is_clear(payload: Mapping[str, Any]) -> bool:
    """Whether arguments of a task of ours hold none for sure, at the first look: those that are numbers and texts, as most are.

    Their own names were looked at when the class was declared, so only the texts are looked at here.
    """
    texts = []
    for value in payload.values():
        kind = type(value)
        if kind is str:
            if len(value) >= SHORTEST:
                texts.append(value)
        elif kind not in _NO_TEXT:
            return False
    return not texts or not may_hold_one("\n".join(texts))


def refuse_in_options(where: str, values: Mapping[str, Any], allowed: Collection[str] = ()) -> None:
    """Refuse what a send carries beside its arguments: headers, or the arguments of a step after it.

    Args:
        where: for the error, such as `mine.Report: link mine.Mail`.
        values: JSON values by name; others hold nothing.
        allowed: paths that may be there.

    Raises:
        CredentialInPayload.
    """
    if found := next((one for one in credentials_in(values) if one.path not in allowed), None):
        raise CredentialInPayload(f"{where}: {found.path} looks like {found.what}; {INSTEAD}")


def refuse_in_text(task: str, option: str, text: str) -> None:
    """Refuse a key or an actor that has the shape of one. Raises: CredentialInPayload."""
    # Most are ids that a program has made, which take a third of the time here.
    if not _ID.fullmatch(text) and may_hold_one(text) and (what := shape_of(text)):
        raise CredentialInPayload(
            f"{task}: {option} looks like {what}; it would lie in Redis and SQL: write another one"
        )


def fault_of_allowed(allowed: Any) -> str:
    """What is wrong with a class's `allowed_credentials`; empty: nothing."""
    if not isinstance(allowed, Mapping) or not all(isinstance(one, str) and one for one in allowed):
        return f'{OPTION} is paths with reasons; write {OPTION} = {{"page_token": "says where a listing goes on"}}'
    if nameless := next((path for path, why in allowed.items() if not isinstance(why, str) or not why.strip()), None):
        return f'{OPTION} says why of each path; write {OPTION} = {{"{nameless}": "why it may be there"}}'
    return ""


def named_so(names: tuple[str, ...], allowed: Mapping[str, str]) -> Credential | None:
    """The first argument that is named like a credential, and not allowed."""
    found = credentials_in({name: "-" for name in names if name not in allowed})
    return next((one for one in found if one.by_name), None)
