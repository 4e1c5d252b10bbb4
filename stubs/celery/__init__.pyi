# What this project uses of Celery, which ships no types. For mypy alone: users of the package do not get it.

from typing import Any

from celery.app.base import Celery as Celery
from celery.app.task import Task as Task

def __getattr__(name: str) -> Any: ...  # all else has no types
