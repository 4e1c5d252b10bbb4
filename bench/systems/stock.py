"""Bare Celery with its stock settings."""

from bench.program import Program
from bench.systems.bare_celery import bare_celery


def program(url: str) -> Program:
    """The program of this system."""
    return bare_celery(url)
