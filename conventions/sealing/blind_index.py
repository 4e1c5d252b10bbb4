"""By which arguments a sealed job is found, though nobody reads them: a blind index (R21).

A class names them: `searchable = ("order_id",)`. Its messages carry a code of each, an HMAC under the key of names, and so do its dead letters. Whoever
looks for a value makes the same code of it. Equal values have equal codes, so a class names no argument that has few values.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from conventions.broker.header_names import FOUND_BY
from conventions.core.errors import NotSearchable
from conventions.core.near_names import did_you_mean
from conventions.sealing.argument_names import ArgumentNames
from conventions.sealing.name_keys import NameKeys

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Arguments that somebody looks for: names, each with its value as text or as JSON."""
Codes: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Of each name the codes of which a sealed job has one."""

CODE = "code:"
CODES = re.compile(rf"{CODE}([0-9a-f]{{32}}(?:,[0-9a-f]{{32}})*)")  # as an address has them


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


def in_address(keys: NameKeys | None, names: ArgumentNames, wanted: tuple[str, str]) -> str:
    """`NAME=VALUE` for an address, which logs and browsers keep: with codes in the place of a value that is not in clear.

    Raises:
        NotSearchable: no code of it finds anything, or no task takes an argument of this name: it may be a mistyped one.
    """
    name, value = wanted
    if names.is_clear(name):
        return f"{name}={value}"
    _require_known(names, name)
    return f"{name}={CODE}{','.join(_codes_alone(keys, names, name, value))}"


def sought(keys: NameKeys | None, names: ArgumentNames, wanted: Pairs, *, by_address: bool = False) -> Sought:
    """How arguments are looked for. The value of one that any class calls sensitive is looked for by its code alone, so that no filter that is kept has it.

    Args:
        keys: of this process; `None`: it makes no codes.
        names: what the tasks that are known here say.
        wanted: the arguments.
        by_address: an address has them: a value that is in clear nowhere is refused, but as codes, and so is a name that no task takes, see
            `in_address`.

    Raises:
        NotSearchable: nothing can be found so.
    """
    asked = [name for name, _ in wanted]
    plain: list[tuple[str, str]] = []
    codes: list[tuple[str, tuple[str, ...]]] = []
    for name, text in wanted:
        if name in names.searchable and asked.count(name) > 1:
            raise NotSearchable(f"{name} is asked for twice")
        if by_address and not names.is_clear(name):
            _require_known(names, name)
        hidden = name in names.sensitive or (by_address and name in names.taken and not names.is_clear(name))
        if hidden:
            codes.append((name, _codes_alone(keys, names, name, text)))
            if by_address and not CODES.fullmatch(text):
                kept = "logs and browsers keep an address: type it into the search of the page"
                raise NotSearchable(f"{name} is {_why_hidden(names, name)}, and {kept}")
            continue
        plain.append((name, text))
        if keys is not None and name in names.searchable:
            codes.append((name, _codes(keys, name, text)))
    return Sought(tuple(plain), tuple(codes))


def is_found(headers: Mapping[str, Any], name: str, codes: Sequence[str]) -> bool:
    """Whether a message with these headers is found by one of these codes."""
    found = headers.get(FOUND_BY)
    return isinstance(found, dict) and found.get(name) in codes


def _require_known(names: ArgumentNames, name: str) -> None:
    if not names.knows(name):
        raise NotSearchable(f"no task here takes an argument {name}{did_you_mean(name, names.taken)}")
    if near := names.near_hidden(name):
        raise NotSearchable(
            f"{name} may be a mistyped {near[0]}, which is in clear nowhere; if not, look for it on the command line"
        )


def _why_hidden(names: ArgumentNames, name: str) -> str:
    return "sensitive" if name in names.sensitive else "sealed"


def _codes_alone(keys: NameKeys | None, names: ArgumentNames, name: str, text: str) -> tuple[str, ...]:
    why = _why_hidden(names, name)
    if name not in names.searchable:
        raise NotSearchable(f"{name} is {why}, and no class says that it is searchable; use an id or a group")
    if keys is None:
        raise NotSearchable(f"{name} is {why}, and this process has no CONVENTIONS_NAME_KEYS to look for it")
    return _codes(keys, name, text)


def _codes(keys: NameKeys, name: str, text: str) -> tuple[str, ...]:
    """Of a value that was typed, perhaps with blanks around it: it may be a text, JSON, or the codes themselves."""
    if given := CODES.fullmatch(text):
        return tuple(given[1].split(","))
    if text.startswith(CODE):
        raise NotSearchable(f"{name} has a code that is not whole; a value that begins so is written in quotes")
    values = [_written(text), _written(text.strip())]
    with suppress(ValueError, RecursionError):  # it is no JSON
        values.append(_written(json.loads(text)))
    return tuple(dict.fromkeys(code for value in values for code in keys.codes(name, value)))


def _written(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
