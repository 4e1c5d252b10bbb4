"""Types of options: a length of time, and a name with its value."""

from datetime import timedelta
from typing import Any

import click

from conventions.core.name_and_value import name_and_value
from conventions.core.time_units import age


class Age(click.ParamType[timedelta]):
    """A length of time such as `90s`, `15m`, `2h` or `7d`."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse it, or fail with the reason."""
        if isinstance(value, timedelta):
            return value
        try:
            return age(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """An argument's name and value, written `NAME=VALUE`."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Parse it, or fail with the reason."""
        try:
            return name_and_value(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
