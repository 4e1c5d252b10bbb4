"""celery-conventions with keys, and tasks whose messages are sealed: they are signed, sealed, verified and opened."""

import os

from bench.program import Program
from bench.systems import conventions
from bench.systems.signed_conventions import KEY


def program(url: str) -> Program:
    """The program of this system."""
    os.environ |= {f"CONVENTIONS_{name}_KEYS": KEY for name in ("MESSAGE", "PAYLOAD", "NAME")}
    for task in (conventions.Noop, conventions.Numbers):
        task.encrypt = True
    return conventions.program(url)
