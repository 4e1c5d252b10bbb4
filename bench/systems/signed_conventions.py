"""celery-conventions with a key: its senders sign their messages, and its workers verify them."""

import os

from bench.program import Program
from bench.systems import conventions

KEY = "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # the same in each process


def program(url: str) -> Program:
    """The program of this system."""
    os.environ["CONVENTIONS_MESSAGE_KEYS"] = KEY
    return conventions.program(url)
