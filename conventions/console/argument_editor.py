"""The editor of a dead letter's arguments: one field for each argument of the task, as JSON or as plain text."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conventions.console.display import as_json
from conventions.dead_letters.edit import value_of
from conventions.declare.arguments_as_json import Arguments


@dataclass(frozen=True, slots=True)
class Field:
    """One argument.

    Attributes:
        type: its annotation.
        text: its value as JSON; empty if it is missing.
        optional: whether it may be left empty.
    """

    name: str
    type: str
    text: str
    optional: bool


def fields(arguments: Arguments, values: Mapping[str, Any], written: Mapping[str, str]) -> list[Field]:
    """The fields of a task's arguments.

    Args:
        arguments: of the task.
        values: the letter's values.
        written: what was typed into the form, by name.
    """
    found = []
    for name, parameter in arguments.signature.parameters.items():
        text = as_json(values[name]) if name in values else ""
        kind = "" if parameter.annotation is parameter.empty else inspect.formatannotation(parameter.annotation)
        found.append(Field(name, kind, written.get(name, text), parameter.default is not parameter.empty))
    return found


def read(arguments: Arguments, written: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that were typed, and what is wrong with each argument that is refused."""
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name in arguments.names:
        text = written.get(name, "").strip()
        if not text:
            continue
        try:
            values[name] = value_of(arguments, name, text)
        except ValueError as error:
            faults[name] = str(error)
    return values, {name: text for name, text in arguments.faults(values).items() if name not in faults} | faults
