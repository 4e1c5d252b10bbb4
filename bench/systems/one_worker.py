"""celery-conventions with one worker for all queues, those of long jobs, too."""

from bench.program import Program
from bench.systems import conventions


def program(url: str) -> Program:
    """The program of this system."""
    return conventions.program(url, exclude=())
