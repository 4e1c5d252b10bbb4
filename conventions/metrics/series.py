"""`Series`: what counts are kept of: one task in one queue. These two are the labels of each metric of jobs."""

from typing import NamedTuple


class Series(NamedTuple):
    """A task in a queue. Both are empty where nobody knows them."""

    task: str
    queue: str
