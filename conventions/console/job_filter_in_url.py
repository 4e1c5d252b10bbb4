"""Filters of jobs in a URL, with the names that `JobFilter` and the command line use; an argument is `arg=name=value`."""

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import Any, Self

from conventions.console.filter_in_url import MOMENTS, ListingQuery
from conventions.core.name_and_value import name_and_value
from conventions.now.job_filter import STATES, JobFilter

ARGUMENT = "arg"
FILTERS = ("state", "task", "queue", "worker", "release", "actor", *MOMENTS, ARGUMENT)
CHOICES = {"state": STATES}


class JobQuery(ListingQuery[JobFilter]):
    """That of `/jobs`."""

    NAMES = FILTERS
    CHOICES = CHOICES

    @classmethod
    def read(cls, values: Callable[[str], Sequence[str]], now: datetime, zone: tzinfo) -> Self:
        """As of any listing. Raises: ValueError, also of two arguments."""
        if len([text for text in values(ARGUMENT) if text.strip()]) > 1:
            raise ValueError("jobs are looked for by one argument; name one")
        return super().read(values, now, zone)

    @classmethod
    def meant(cls, found: dict[str, Any]) -> JobFilter:
        """The filter. Raises: ValueError: the argument is none."""
        fields = {name: value for name, value in found.items() if name != ARGUMENT}
        if ARGUMENT not in found:
            return JobFilter(**fields)
        return JobFilter(arguments=(name_and_value(found[ARGUMENT]),), **fields)
