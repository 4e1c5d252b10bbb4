"""celery-conventions with messages in RabbitMQ, and the rest in the server that others have for all."""

import os

from bench.program import RABBITMQ, Program
from bench.systems import conventions


def program(url: str) -> Program:
    """The program of this system."""
    return conventions.program(url, broker=os.environ[RABBITMQ])
