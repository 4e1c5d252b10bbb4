"""Short, long, failing and killing jobs of two tasks in one queue: the fast lane ends each as the slow one does."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from tests.crash import mix_tasks
from tests.crash.mix_tasks import HOWS, RUNS, Brisk, Mixed
from tests.integration.lane_fixtures import kinds
from tests.support import wait_until
from tests.workers import Installation, letters

QUEUE = "immediate"
FEW = {"slow": 6, "kills": 3, "kills once": 6, "ends": 6}  # of each, which take their time
SEVERAL = 30


@dataclass(frozen=True)
class Ending:
    """What became of a message: how its attempts ended, why it is a dead letter, how often its job ran."""

    kinds: tuple[str, ...]
    error: str | None
    runs: int


Messages: TypeAlias = list[tuple[str, str, dict[str, Any]]]
"""Of each its name, its task, and the arguments."""


def mixed(seed: int) -> tuple[Messages, Messages]:
    """What is sent first, in a random order, and then, with keys of what has ended."""
    hows = [how for how in HOWS for _ in range(FEW.get(how, SEVERAL))]
    chance = random.Random(seed)
    chance.shuffle(hows)
    first = [
        (f"{how} {number}", chance.choice(["Mixed", "Brisk"]), {"name": f"{how} {number}", "how": how})
        for number, how in enumerate(hows)
    ]
    calm = [one for one in first if one[2]["how"] in ("quick", "slow", "reports")]
    then = [(f"again {name}", task, arguments) for name, task, arguments in chance.sample(calm, 20)]
    then += [
        (f"other {name}", task, arguments | {"how": "object"}) for name, task, arguments in chance.sample(calm, 20)
    ]
    then += [(f"kills once {number}", "Mixed", {"name": f"late {number}", "how": "kills once"}) for number in range(2)]
    chance.shuffle(then)
    return first, then


def ended(installation: Installation, sent: tuple[Messages, Messages], **settings: str) -> tuple[Any, int]:
    """Let a worker do it all; returns the ending of each message, and how many ran with others."""
    tasks, ids = {"Mixed": Mixed, "Brisk": Brisk}, dict[str, str]()
    with installation.application() as app:
        for task in (Mixed, Brisk):  # so that both are known to be short before anything else comes
            task.enqueue_many([{"name": f"warm-up {number}", "how": "quick"} for number in range(50)])
        with installation.worker("-Q", QUEUE, "-c", "2", **settings):
            wait_until(lambda: is_empty(app), 60, "both are warm")
            for part in sent:
                ids |= {name: tasks[task].apply_async(kwargs=arguments).id for name, task, arguments in part}
                wait_until(lambda: is_empty(app), 100, "all have ended")
            wait_until(lambda: app.journal.length() == 0, 20, "all are recorded")
        found = kinds(app)
        errors = {letter.id: letter.error for letter in letters(app, state=None)}
    runs = [line.split(":") for line in (installation.folder / RUNS).read_text().splitlines()]
    often = Counter(name for name, _ in runs)
    endings = {name: Ending(tuple(found[id_]), errors.get(id_), often[name]) for name, id_ in ids.items()}
    return endings, sum(beside == "True" for _, beside in runs)


def is_empty(app: ConventionsApp) -> bool:
    """Whether no message is left."""
    return app.broker.sizes(QUEUE) == Sizes(0, 0, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_job_ends_as_in_the_slow_lane(
    seed: int, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> None:
    """However often a process is killed beside it."""
    sent, found = mixed(seed), {}
    for lane in ("true", "false"):
        folder = tmp_path / lane
        folder.mkdir()
        settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(folder)}
        installation = Installation(folder, [mix_tasks.__name__], **settings)
        found[lane], together = ended(installation, sent, CONVENTIONS_FAST_LANE=lane)
        assert (together > 0) == (lane == "true")
    differ = {name: (one, found["false"][name]) for name, one in found["true"].items() if one != found["false"][name]}
    assert differ == {}
    assert {one.kinds for one in found["true"].values()} == {
        ("succeeded",), ("retried", "succeeded"), ("retried", "dead"), ("dead",), ("duplicate",),
    }  # fmt: skip
    kills = [one for name, one in found["true"].items() if name.startswith("kills ") and "once" not in name]
    assert {(one.error, one.runs) for one in kills} == {("TooManyStarts", 3)}
