"""`JobFilter`: which jobs a reader asks for, wherever they are; the same on the command line and on the page."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from conventions.broker.waiting_messages import Waiting
from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.records.journal import KINDS
from conventions.sealing.blind_index import Codes, Pairs

State: TypeAlias = str

WAITING = ("queued", "delayed", "retrying")
RUNNING = "running"
STATES: tuple[State, ...] = (RUNNING, *WAITING, *KINDS)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Selects jobs. Every given field must match.

    Attributes:
        state: `running`, one of `WAITING`, or how an attempt ended; empty: any.
        task: a task's name, or the last part of it.
        queue: name of the queue.
        worker: host name of the worker that runs it, or ran it.
        release: of the code that runs it, or ran it.
        actor: who sent it.
        arguments: pairs of an argument's name and its value, as text or as JSON: of jobs that wait, and of dead letters. Of jobs that ended
            otherwise nothing keeps them.
        codes: the same of sealed jobs, see `sealing/blind_index.py`.
        since: sent or ended not before.
        until: sent or ended before.
    """

    state: State = ""
    task: str = ""
    queue: str = ""
    worker: str = ""
    release: str = ""
    actor: str = ""
    arguments: Pairs = ()
    codes: Codes = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def by_arguments(self) -> bool:
        """Whether it asks for arguments."""
        return bool(self.arguments or self.codes)

    @property
    def has_waiting(self) -> bool:
        """Whether jobs that wait can match."""
        return self.state in ("", *WAITING) and not self.worker and not self.release

    @property
    def has_running(self) -> bool:
        """Whether jobs that run can match."""
        return self.state in ("", RUNNING)

    @property
    def has_ended(self) -> bool:
        """Whether attempts that have ended can match."""
        return self.state == "" or self.state in KINDS

    def names(self, task: str | None) -> bool:
        """Whether it is this task."""
        return not self.task or (task or "") == self.task or (task or "").endswith(f".{self.task}")

    def fits_running(self, task: str, queue: str, worker: str, release: str, began: datetime) -> bool:
        """Whether a job that runs can match; its sender is not known to its worker."""
        wanted = ((self.queue, queue), (self.worker, worker), (self.release, release))
        return all(one in ("", there) for one, there in wanted) and self.names(task) and self.within(began)

    def within(self, moment: datetime | None) -> bool:
        """Whether a time lies between its bounds; one that is not known does not, where there are any."""
        if moment is None:
            return self.since is None and self.until is None
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


def queues_of(app: Application, which: JobFilter) -> tuple[str, ...]:
    """The queue that it names, or all that are known. Raises: RedisError."""
    return (which.queue,) if which.queue else tuple(known_queues(app))


def state_of_waiting(one: Waiting, *, held_back: bool = False) -> State:
    """`retrying`: it has failed before; `delayed`: it is not due; else `queued`, also if only the pause of its task holds it back."""
    if one.attempt > 1:
        return "retrying"
    return "delayed" if one.place == "delayed" and not held_back else "queued"


class HeldBack:
    """Which waiting messages only the pause of their task holds back: they lie among those that are not due.

    Args:
        app: the application. Raises: RedisError.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self.tasks = app.broker.held_back_tasks("paused") if app.port.can.looks else set[str]()

    def holds(self, one: Waiting) -> bool:
        """Whether it is one of them. Only those of such a task are asked for."""
        if one.place != "delayed" or one.headers.get("task") not in self.tasks:
            return False
        found = self._app.port.find(one.message_id)
        return found is not None and found.why == "pause"
