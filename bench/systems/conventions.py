"""celery-conventions with every convention on; long jobs have a worker of their own, as in docker-compose.yml."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.optimisations import WITHOUT, leave_out
from bench.program import Program
from bench.records import record
from bench.systems.bare_celery import run_worker
from conventions import BatchTask, ImmediateTask, Progress, create_app

POLL = 0.02


class Noop(ImmediateTask):
    """Write one record, once per number."""

    idempotent_on = ("number",)

    def run(self, number: int, sent: float, sleep: float = 0) -> None:
        """Write the record."""
        record(number, sent, sleep)


class Numbers(BatchTask):
    """Do nothing with many integers, in chunks of 100; in the queue that every worker here consumes."""

    queue_name = "immediate"
    idempotent_on = ("many",)

    def items(self, many: int) -> Iterable[int]:
        """The integers."""
        return range(many)

    def process(self, chunk: list[int], many: int) -> None:
        """Nothing."""


def program(url: str, exclude: Sequence[str] = ("long",), broker: str = "") -> Program:
    """The program of this system; its database is a file in the current folder.

    Args:
        url: the server.
        exclude: queues that its worker does not consume.
        broker: the RabbitMQ in which its messages wait, if not in that server.
    """
    leave_out(os.environ.get(WITHOUT, ""))
    database = f"sqlite:///{Path.cwd() / 'bench.sqlite3'}"
    app = create_app(
        "bench",
        packages=(__name__,),
        schedule=None,
        broker_url=broker or url,
        redis_url=url if broker else None,
        database_url=database,
    )

    def send_many(first: int, count: int) -> None:
        numbers = range(first, first + count)
        Noop.enqueue_many({"number": number, "sent": time.monotonic()} for number in numbers)

    def batch(items: int) -> None:
        sent = Numbers.delay(many=items).id
        while not Progress.of(sent).ended:
            time.sleep(POLL)

    def work(concurrency: int, pool: str) -> None:
        run_worker(app, concurrency, pool, exclude_queues=list(exclude))

    def prepare() -> None:
        app.database.upgrade()  # looked up only here: it imports SQLAlchemy, which a worker does without

    return Program(send=Noop.delay, work=work, prepare=prepare, send_many=send_many, batch=batch)
