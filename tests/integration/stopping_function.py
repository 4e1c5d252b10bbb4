"""A function of plain Celery, which has no claim; its message is acknowledged when it has ended."""

from pathlib import Path

from celery import shared_task

from tests.support import wait_until


@shared_task(name="note_of_a_function", acks_late=True)
def note(folder: str) -> None:
    """Write a line when it starts, and end when it may."""
    with (Path(folder) / "started").open("a") as lines:
        lines.write("function\n")
    wait_until((Path(folder) / "function may end").exists, timeout=100)
