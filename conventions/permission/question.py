"""`Question`: what is asked of an actor before a job runs."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Question(NamedTuple):
    """What is asked of an actor.

    Attributes:
        permission: what the task requires.
        task: its name; for each message of a batch, that of the batch.
        arguments: of `run`, as JSON values; for each message of a batch, those of the batch.
    """

    permission: str
    task: str
    arguments: Mapping[str, Any]
