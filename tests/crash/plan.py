"""What a chaos run sends and breaks, and when: all of it follows from the seed."""

import random
from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from tests.crash import crash_tasks

FAULTS = (
    "kill worker",  # the main process, its pool and its recorder at once
    "kill main process",  # that one only: the processes of its pool find out
    "kill child",  # one process of the pool, while it runs a job
    "kill server",  # and start it again
    "stop server",  # freeze it: connections stay, nothing answers
    "cut connections",
    "freeze worker",  # past its lease, so that another takes over; then it wakes
    "restart worker",  # in good order: SIGTERM
    "restart worker hurriedly",  # two signals
)
DUPLICATES = 0.1  # share of the jobs that are sent twice
KINDS = {
    crash_tasks.Commit: 0.4,
    crash_tasks.Append: 0.4,
    crash_tasks.AppendAtSecond: 0.2,
}
DELAYED = 0.15  # share of the jobs that are sent with a countdown


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks.

    Attributes:
        after: seconds from the begin of the sends before it.
        lasts: seconds until the server is started again or goes on.
        victim: which of the workers.
    """

    kind: str
    after: float
    lasts: float
    victim: int


@dataclass(frozen=True, slots=True)
class Sending:
    """One call of `apply_async`; two with the same number have the same key."""

    number: int
    task: type[crash_tasks.Job]
    id: str
    seconds: float
    countdown: float | None


def faults(seed: int, count: int, workers: int, without: Collection[str] = ()) -> list[Fault]:
    """At least one of each kind, in any order; of a pool without processes `without` says which there are not."""
    chance = random.Random(f"faults {seed}")
    each = [kind for kind in FAULTS if kind not in without]
    kinds = [*each, *chance.choices(each, k=max(0, count - len(each)))]
    chance.shuffle(kinds)
    return [
        Fault(kind, chance.uniform(0.1, 0.7), chance.uniform(0.1, 1.5), chance.randrange(workers)) for kind in kinds
    ]


def sendings(seed: int, jobs: int) -> list[Sending]:
    """Jobs in the order in which they are sent, and among them the duplicates: the same id, or another one."""
    chance = random.Random(f"sendings {seed}")
    found: list[Sending] = []
    for number in range(jobs):
        (task,) = chance.choices([*KINDS], [*KINDS.values()])
        countdown = chance.uniform(0.2, 4) if chance.random() < DELAYED else None
        found.append(Sending(number, task, _id(chance), chance.uniform(0.01, 0.05), countdown))
    for one in chance.sample(found, round(jobs * DUPLICATES)):
        second = one if chance.random() < 0.5 else replace(one, id=_id(chance), countdown=None)
        # Soon after the first, while that may run, or much later.
        place = found.index(one) + 1 + (0 if chance.random() < 0.5 else chance.randrange(200))
        found.insert(place, second)
    return found


def _id(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))
