"""By which arguments a sealed job is found, though nobody reads them: a blind index (R21).

A class names them: `searchable = ("order_id",)`. Its messages carry a code of each, an HMAC under the key of names, and so do its dead letters. Whoever
looks for a value makes the same code of it. Equal values have equal codes, so a class names no argument that has few values.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeAlias

from conventions.broker.header_names import FOUND_BY
from conventions.core.errors import NotSearchable
from conventions.sealing.name_keys import NameKeys

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Arguments that somebody looks for: names, each with its value as text or as JSON."""
Codes: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Of each name the codes of which a sealed job has one."""

CODES = re.compile(r"code:([0-9a-f]{32}(?:,[0-9a-f]{32})*)")  # as an address has them


class Searchable(Protocol):
    """What is used of a task here."""

    @property
    def sensitive(self) -> Sequence[str]:
        """Arguments that are sealed."""

    @property
    def searchable(self) -> Sequence[str]:
        """Arguments by which its sealed jobs are found."""


class Sought(NamedTuple):
    """Arguments that somebody looks for.

    Attributes:
        arguments: in jobs that are not sealed.
        codes: in sealed ones.
    """

    arguments: Pairs
    codes: Codes


def found_by(keys: NameKeys, searchable: Iterable[str], payload: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The header that says by what a message is found; none where its class names nothing."""
    found = {name: keys.codes(name, _written(payload[name]))[0] for name in searchable if name in payload}
    return {FOUND_BY: found} if searchable else {}


def with_codes(keys: NameKeys | None, tasks: Iterable[Searchable], text: str) -> str:
    """`NAME=VALUE` for an address: with codes in the place of the value of a sensitive argument, or with nothing there if there are none, which no search takes."""
    name, equals, value = text.partition("=")
    searchable, sensitive = _names(tasks)
    if not equals or name.strip() not in sensitive or CODES.fullmatch(value):
        return text
    found = _codes(keys, name.strip(), value) if keys is not None and name.strip() in searchable else ()
    return f"{name}=code:{','.join(found)}" if found else f"{name}="


def sought(keys: NameKeys | None, tasks: Iterable[Searchable], wanted: Pairs, *, by_address: bool = False) -> Sought:
    """How arguments are looked for. The value of one that any class calls sensitive is looked for by its code alone, so that no filter that is kept has it.

    Args:
        keys: of this process; `None`: it makes no codes.
        tasks: the classes that are known here.
        wanted: the arguments.
        by_address: an address has them, which logs and browsers keep: such a value is refused, but as codes, see `with_codes`.

    Raises:
        NotSearchable: nothing can be found so.
    """
    searchable, sensitive = _names(tasks)
    names = [name for name, _ in wanted]
    for name in names:
        if name in sensitive and name not in searchable:
            raise NotSearchable(f"{name} is sensitive, and no class says that it is searchable; use an id or a group")
        if name in sensitive and keys is None:
            raise NotSearchable(f"{name} is sensitive, and this process has no CONVENTIONS_NAME_KEYS to look for it")
        if name in searchable and names.count(name) > 1:
            raise NotSearchable(f"{name} is asked for twice")
    for name, text in wanted:
        if by_address and name in sensitive and not CODES.fullmatch(text):
            raise NotSearchable(
                f"{name} is sensitive, and logs and browsers keep an address: type it into the search of the page"
            )
    codes = tuple((name, _codes(keys, name, text)) for name, text in wanted if keys is not None and name in searchable)
    return Sought(tuple(pair for pair in wanted if pair[0] not in sensitive), codes)


def is_found(headers: Mapping[str, Any], name: str, codes: Sequence[str]) -> bool:
    """Whether a message with these headers is found by one of these codes."""
    found = headers.get(FOUND_BY)
    return isinstance(found, dict) and found.get(name) in codes


def _names(tasks: Iterable[Searchable]) -> tuple[set[str], set[str]]:
    """The arguments that are searchable by any of these classes, and those that are sensitive."""
    of_ours = [task for task in tasks if getattr(task, "searchable", ()) or getattr(task, "sensitive", ())]
    searchable = {name for task in of_ours for name in task.searchable}
    return searchable, {name for task in of_ours for name in task.sensitive}


def _codes(keys: NameKeys, name: str, text: str) -> tuple[str, ...]:
    """Of a value that was typed: it may be a text, JSON, or the codes themselves."""
    if given := CODES.fullmatch(text):
        return tuple(given[1].split(","))
    values = [_written(text)]
    with suppress(ValueError, RecursionError):  # it is no JSON
        values.append(_written(json.loads(text)))
    return tuple(dict.fromkeys(code for value in values for code in keys.codes(name, value)))


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
