"""The systems that are compared. Each is one row here and one program of its own, `bench/systems/<name>.py`.

Only the standard library is imported here: a program may run in an environment of its own, with nothing else in it.
"""

import sys
from dataclasses import dataclass, field

PYTHON = (sys.executable, "-m", "bench.program")


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison.

    Args:
        name: what `--only` takes, and the module in `bench.systems`.
        title: the head of its column.
        notes: what differs from the others, printed below the table.
        command: starts the program; the name and a verb are appended. A peer in an environment of its own starts with
            `uv run --no-project --with ...`, one in another language with its interpreter; see `bench/program.py` for
            the verbs.
    """

    name: str
    title: str
    notes: tuple[str, ...] = field(default=())
    command: tuple[str, ...] = PYTHON


BASE = "stock"  # ratios are to this one

SYSTEMS = (
    System(
        BASE,
        "Celery, stock",
        ("kombu's Redis transport, acknowledges before the job, no events, no results; a killed worker loses jobs",),
    ),
    System(
        "safe",
        "Celery, made safe",
        (
            "as stock, with acks_late, reject_on_worker_lost, visibility_timeout 30 and prefetch 4; no events, no results",
        ),
    ),
    System(
        "conventions",
        "celery-conventions",
        (
            "everything on: typed arguments, idempotent_on, claim and settle, late acknowledgement, journal into SQL",
            "long jobs have another worker, as in docker-compose.yml",
        ),
    ),
    System(
        "one_worker",
        "one worker for all queues",
        ("as before, but its worker consumes long jobs, too, and so takes no message ahead of a free process",),
    ),
)
