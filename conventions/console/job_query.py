"""Filters of jobs in a URL, with the names that `JobFilter` and the command line use; an argument is `arg=name=value`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from conventions.core.units import moment_or_age
from conventions.now.job_filter import STATES, JobFilter

TEXTS = ("state", "task", "queue", "worker", "release", "actor")
MOMENTS = ("since", "until")
FILTERS = (*TEXTS, *MOMENTS, "arg")


@dataclass(frozen=True, slots=True)
class JobQuery:
    """The parameters of the page as they were written, and the filter that they mean."""

    filter: JobFilter
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def empty(cls) -> Self:
        """No filter."""
        return cls(JobFilter())

    @classmethod
    def read(cls, values: Callable[[str], Sequence[str]], now: datetime, zone: str) -> Self:
        """Read the parameters of a request. Raises: ValueError: what is wrong, for people."""
        words = ((name, "".join(values(name)[-1:]).strip()) for name in FILTERS)
        written = tuple((name, text) for name, text in words if text)
        found: dict[str, Any] = {}
        for name, text in written:
            if name == "state" and text not in STATES:
                raise ValueError(f"there is no state {text[:40]!r}; it is one of {', '.join(STATES)}")
            if name == "arg":
                argument, equals, value = text.partition("=")
                if not argument or not equals:
                    raise ValueError(f"{text[:40]!r} is no argument: write NAME=VALUE")
                found["arguments"] = ((argument, value),)
                continue
            try:
                found[name] = moment_or_age(text, now, ZoneInfo(zone)) if name in MOMENTS else text
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(JobFilter(**found), written)

    def get(self, name: str) -> str:
        """The parameter of this name, or an empty text."""
        return dict(self.parameters).get(name, "")

    def url(self, **changes: str) -> str:
        """The query of a link, with some parameters changed. An empty value removes a parameter."""
        kept = [(name, text) for name, text in self.parameters if name not in changes]
        return urlencode(kept + [(name, text) for name, text in changes.items() if text])
