"""The systems that are compared. Each is one row here and one program of its own, `bench/systems/<name>.py`.

Only the standard library is imported here: a program may run in an environment of its own, with nothing else in it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

PYTHON = (sys.executable, "-m", "bench.program")
NODE = "node"
JOURNAL = "{conventions}:journal"
DATABASE = "bench.sqlite3"
BASE, ON_RABBITMQ = "stock", "rabbitmq_stock"  # ratios are to these


@dataclass(frozen=True, slots=True)
class System:
    """One row of the comparison.

    Args:
        name: what `--only` takes.
        title: the head of its row.
        notes: what differs from the others, printed below the tables.
        command: starts the program; its name and a verb are appended. A peer in an environment of its own starts with
            `uv run --no-project --with ...`, one in another language with its interpreter; see `bench/program.py` for
            the verbs.
        program: the module in `bench.systems`, where it is not called like the row.
        pool: of its worker.
        pins: what its own environment has, printed with the versions.
        journal: the stream of what its worker's recorder has still to write down, where it has one.
        database: the file of its database, where it has one. Each round has a new one: the server is emptied before each, and
            beside a database that knows more than its server, ours would look first at what it had lost.
        without: the optimisation that it does without; see `bench/optimisations.py`.
        rabbitmq: whether its messages wait in RabbitMQ, and it runs with `--rabbitmq` only.
        base: the system that its ratios are to.
        root: the checkout that it is of; empty: this one.
    """

    name: str
    title: str
    notes: tuple[str, ...] = ()
    command: tuple[str, ...] = PYTHON
    program: str = ""
    pool: str = "prefork"
    pins: tuple[str, ...] = ()
    journal: str = ""
    database: str = ""
    without: str = ""
    rabbitmq: bool = False
    base: str = BASE
    root: Path | None = None


def _python_peer(name: str, title: str, note: str, *pins: str) -> System:
    pins = (*pins, "redis==8.1.0", "hiredis==3.5.0")  # those of this project
    packages = [word for pin in pins for word in ("--with", pin)]
    run = ("uv", "run", "--no-project", "--isolated", "--compile-bytecode", "--python", sys.executable, *packages)
    notes = (note, "its start includes that of `uv run`")
    return System(name, title, notes, (*run, *PYTHON[1:]), pins=pins)


def _node_peer(name: str, title: str, note: str, *pins: str) -> System:
    program = Path(__file__).with_name(f"{name}.mjs")
    return System(name, title, (note,), (NODE, str(program), ",".join(pins)), pins=pins)


THREADS = "as before, with the threads pool"
ABOUT_RABBITMQ = "its ratios are to Celery, RabbitMQ; server CPU is that of RabbitMQ and Redis; round trips, commands and memory are not counted"

SYSTEMS = (
    System(
        BASE,
        "Celery, stock",
        ("kombu's Redis transport, acknowledges before the job, no events, no results; a killed worker loses jobs",),
    ),
    System("stock_threads", "Celery, stock, threads", (THREADS,), program=BASE, pool="threads"),
    System(
        "safe",
        "Celery, made safe",
        (
            "as stock, with acks_late, reject_on_worker_lost, visibility_timeout 30 that is looked at every second, prefetch 4",
        ),
    ),
    System(
        "conventions",
        "celery-conventions",
        (
            "everything on: typed arguments, idempotent_on, claim and settle, late acknowledgement, journal into SQL",
            "long jobs have another worker, as in docker-compose.yml",
        ),
        journal=JOURNAL,
        database=DATABASE,
    ),
    System(
        "conventions_threads",
        "celery-conventions, threads",
        (THREADS,),
        program="conventions",
        pool="threads",
        journal=JOURNAL,
        database=DATABASE,
    ),
    System(
        "one_worker",
        "one worker for all queues",
        (
            "as celery-conventions, but its worker consumes long jobs, too, of which it takes no more than it has processes for",
        ),
        journal=JOURNAL,
        database=DATABASE,
    ),
    System(
        ON_RABBITMQ,
        "Celery, RabbitMQ",
        ("a quorum queue, confirms, acks_late, reject_on_worker_lost, prefetch 4 for each process", ABOUT_RABBITMQ),
        rabbitmq=True,
        base=ON_RABBITMQ,
    ),
    System(
        "rabbitmq_conventions",
        "celery-conventions, RabbitMQ",
        (
            "as celery-conventions, with messages in RabbitMQ, which sends it 16 ahead, and claims and the journal in Redis",
            ABOUT_RABBITMQ,
        ),
        journal=JOURNAL,
        database=DATABASE,
        rabbitmq=True,
        base=ON_RABBITMQ,
    ),
    _python_peer(
        "dramatiq",
        "Dramatiq",
        "4 threads in each process; acknowledges after the job; those of a killed worker come back after 60 s at the earliest",
        "dramatiq[redis]==2.2.1",
    ),
    _python_peer(
        "taskiq",
        "Taskiq, list",
        "the list broker, 20 async jobs at once in each process; acknowledges nothing: a killed worker loses jobs",
        "taskiq==0.13.0",
        "taskiq-redis==1.2.4",
    ),
    _python_peer(
        "huey",
        "Huey",
        "worker processes, no results; acknowledges nothing: a killed worker loses jobs",
        "huey==3.5.4",
    ),
    _node_peer(
        "bullmq",
        "BullMQ",
        "one process of Node with 10 jobs at once, removeOnComplete; bulk is addBulk by 500; acknowledges after the job",
        "bullmq@6.7.0",
        "ioredis@6.0.0",
    ),
)
