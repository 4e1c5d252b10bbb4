"""`WorkerReports`: what each worker says of itself every two seconds: its release, its queues, and what it runs. Nobody has to ask and wait."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conventions.core.time_units import milliseconds
from conventions.storage.redis_store import Store

SAY_EVERY = 2.0  # seconds
SILENT_AFTER = (
    15.0  # seconds; a worker that is killed says nothing more, and one that ends in order takes its report away
)
KEEP = timedelta(hours=1)  # how long a silent worker is remembered
TIDY_EVERY = 300.0  # seconds
MOST_RUNNING = 100  # jobs in one report, the longest first
MOST = 1_000_000  # jobs of one worker: more is no number of ours


class RunningJob(BaseModel):
    """A job that a worker runs, as it says so.

    Attributes:
        id: of the message; empty if only the claim is known.
        claim: `<task>:<key>`; empty for a function, which has none.
        since: seconds since the epoch, by the worker's clock; 0 if only the claim says it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: str
    queue: str = ""
    id: str = ""
    claim: str = ""
    since: float = 0.0


class WorkerReport(BaseModel):
    """What a worker says of itself.

    Attributes:
        pool: the kind of its pool, such as `prefork`.
        processes: how many jobs it runs at once.
        queues: those that it consumes now; none while it has no connection.
        running: what it runs, at most `MOST_RUNNING`.
        busy: how many jobs of each task it runs, all of them.
        held: messages that it has read and not begun.
        stops: whether it was told to end.
        started: seconds since the epoch, by its clock.
        paused: queues that it does not consume for now, since people have paused them, or all of the worker.
        pauses: the revision of the pauses that it follows.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    release: str | None = None
    pool: str = ""
    processes: Annotated[int, Field(ge=0, le=MOST)] = 0
    queues: tuple[str, ...] = ()
    running: tuple[RunningJob, ...] = ()
    busy: dict[str, Annotated[int, Field(ge=0, le=MOST)]] = {}
    held: int = 0
    stops: bool = False
    started: float = 0.0
    paused: tuple[str, ...] = ()
    pauses: int = 0
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A worker, by its last report.

    Attributes:
        age: seconds since that, by the server's clock.
    """

    name: str
    report: WorkerReport
    age: float

    @property
    def is_whole(self) -> bool:
        """Whether its report names all that it runs."""
        return sum(self.report.busy.values()) <= len(self.report.running)

    @property
    def busy(self) -> Counter[str]:
        """How many jobs of each task it ran when it reported; nothing of one that is silent. A short job may have ended since."""
        return Counter() if self.silent else Counter(self.report.busy)

    @property
    def pauses(self) -> int:
        """The revision of the pauses that it follows."""
        return self.report.pauses

    @property
    def silent(self) -> bool:
        """Whether it has died, or stands still."""
        return self.age > SILENT_AFTER


class WorkerReports:
    """The reports of the workers of one application. Each method raises RedisError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def say(self, name: str, report: WorkerReport, *, tidy: bool = False) -> None:
        """Keep a report; `tidy`: forget the workers that have said nothing for an hour."""
        text = report.model_dump_json(exclude_defaults=True)
        self._store.run("worker_report", [name, text, milliseconds(KEEP), int(tidy)])

    def leave(self, name: str) -> None:
        """A worker ends in order."""
        self._store.redis.hdel(self._key, name)

    def listing(self) -> list[WorkerNow]:
        """The workers by name. A report that a later release wrote in another form is left out."""
        redis: Any = self._store.redis
        with redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._key)
            pipe.time()
            found, (seconds, micros) = pipe.execute()
        now = seconds + micros / 1e6
        workers = (_worker(name.decode(errors="replace"), raw, now) for name, raw in found.items())
        return sorted((one for one in workers if one is not None), key=lambda one: one.name)

    def releases(self) -> dict[str, set[str]]:
        """By which releases living workers consume each queue, as far as they name theirs."""
        found: dict[str, set[str]] = {}
        for one in self.listing():
            if one.report.release and not one.silent:
                for queue in one.report.queues:
                    found.setdefault(queue, set()).add(one.report.release)
        return found

    @property
    def _key(self) -> str:
        return self._store.key("workers")


def silent_holders(workers: Iterable[WorkerNow]) -> dict[str, WorkerNow]:
    """The silent ones, by the claims of the jobs that they ran when they reported last."""
    return {job.claim: one for one in workers if one.silent for job in one.report.running if job.claim}


def _worker(name: str, raw: bytes, now: float) -> WorkerNow | None:
    at, _, text = raw.partition(b" ")
    try:
        return WorkerNow(name, WorkerReport.model_validate(json.loads(text)), max(0.0, now - int(at) / 1000))
    except (ValueError, ValidationError, RecursionError):
        return None


def consumers(workers: Iterable[WorkerNow]) -> Counter[str]:
    """How many living workers consume each queue."""
    return Counter(queue for one in workers if not one.silent for queue in one.report.queues)
