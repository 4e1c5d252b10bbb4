"""Beats that are killed, stopped and left without their servers: each slot runs exactly once (R10)."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from conventions.schedules.schedule_state import Run
from tests.crash.chaos import pause
from tests.crash.server import Server
from tests.integration.beat_project import BeatProject
from tests.prepared_python import Process
from tests.support import patient, wait_until

TOKYO = ZoneInfo("Asia/Tokyo")

WORKER = ("worker", "-c", "2", "-Q", "scheduled,immediate")
ALL = 'Schedule("often", every({0}), Bare, {{"into": "often"}}, catch_up="all")'
LATEST = 'Schedule("latest", every({0}), Bare, {{"into": "latest"}})'
TAKE_OVER = 35  # seconds, promised with the platform's own settings
FAULTS = ("kill", "stop", "delete the lock", "restart")

# A beat that is told so gets a signal at one step of one schedule, once.
INTERRUPTED = """
import os
import signal

from conventions.schedules.dispatch import Dispatch
from conventions.schedules.schedule_store import Schedules


def interrupt(when, step, schedule, number):
    owner = Dispatch if step == "_send" else Schedules
    original = getattr(owner, step)

    def strike(is_time, named):
        if is_time and getattr(named, "name", named) == schedule and os.environ.pop("AT", None):
            os.kill(os.getpid(), signal.Signals[number])

    def interrupted(self, named, *arguments, **options):
        strike(when == "before", named)
        answer = original(self, named, *arguments, **options)
        strike(when == "after", named)
        return answer

    setattr(owner, step, interrupted)


if "AT" in os.environ:
    interrupt(*os.environ["AT"].split())
"""

# The function of one schedule's argument waits in a process that is told so, once.
STUCK = """
import os
from datetime import UTC, datetime


def when_released(planned):
    if planned <= datetime.now(UTC) and os.environ.pop("STUCK", None):
        app.store.new_client(socket_timeout=None).blpop("released", 100)
    return "stuck"
"""

# A server that stands still is noticed sooner than usual.
IMPATIENT = """
from conventions.core import redis_address

redis_address.SOCKET_TIMEOUT = 1
"""

# Runs that say when they begin and end; one waits as long as it is told, and one fails at first.
LONG_RUNS = '''
import time

from conventions import RetryPolicy


class Hold(ScheduledTask):
    """Run until it may end."""

    def run(self, into: str) -> None:
        redis = self.app.store.redis
        redis.rpush(into, f"{self.planned_at.isoformat()} begins")
        time.sleep(float(redis.get("seconds") or 0.2))
        while redis.exists("hold"):
            time.sleep(0.02)
        redis.rpush(into, f"{self.planned_at.isoformat()} ends")


class FailAtFirst(Hold):
    """The same, but its first attempt fails, and the second one follows after 3 s."""

    retry_policy = RetryPolicy(first_wait=3, jitter=0)

    def run(self, into: str) -> None:
        super().run(into)
        if self.attempt == 1:
            raise RuntimeError("the first attempt fails")
'''


def every_slot(first: datetime, last: datetime, seconds: int = 1) -> list[datetime]:
    """The slots from the first to the last."""
    return [first + timedelta(seconds=n) for n in range(0, int((last - first).total_seconds()) + 1, seconds)]


def told_of(lines: Iterable[Run], seconds: int = 1) -> list[datetime]:
    """The slots that lines of a history speak of, in their order."""
    found: list[datetime] = []
    for line in lines:
        assert line.planned_at
        slots = every_slot(line.first_at or line.planned_at, line.planned_at, seconds)
        assert len(slots) == line.count, line
        found += slots
    return found


def check_all(project: BeatProject, name: str = "often", seconds: int = 1) -> list[datetime]:
    """Every slot from the first to the last was sent in its order and ran, each once; returns them."""
    slots = project.slots(name)
    assert slots == every_slot(slots[0], slots[-1], seconds)
    wait_for_runs(project, name)
    return slots


def check_latest(project: BeatProject, name: str = "latest", seconds: int = 1) -> list[datetime]:
    """The history tells of every slot once, as sent or as missed, and those that were sent ran, each once."""
    lines = project.history(name)
    assert {line.what for line in lines} <= {"sent", "missed"}
    slots = told_of(lines, seconds)
    assert slots == every_slot(slots[0], slots[-1], seconds)
    wait_for_runs(project, name)
    return project.slots(name)


def wait_for_runs(project: BeatProject, name: str) -> None:
    """Wait until the slots that were sent ran, each once, and nothing else did; no beat runs any more."""
    slots = {*project.slots(name)}
    wait_until(lambda: {*project.ran(name)} >= slots, 40, f"every slot of {name} ran")
    wait_until(lambda: not messages(project), 40, "nothing waits any more")
    ran = project.ran(name)
    assert len(ran) == len({*ran})
    assert {*ran} - slots <= may_have_run(project, name)


def may_have_run(project: BeatProject, name: str) -> set[datetime]:
    """Slots of which beat has not said that they were sent, since it ended meanwhile; it says so, or the next one would."""
    begun: Any = project.redis.hget(project.schedules.key(name), "begun")
    under_way = {datetime.fromtimestamp(int(begun.partition(":")[0]), UTC)} if begun else set()
    return under_way | project.begun_but_missed(name)


def messages(project: BeatProject) -> list[Any]:
    """The messages that have not ended."""
    return list(project.broker.scan_iter(match="{conventions}:message:*"))


@pytest.fixture
def make(tmp_path: Path, server: Server) -> Iterator[Callable[..., BeatProject]]:
    """Make the test's project on that server."""
    made: list[BeatProject] = []

    def make(*entries: str, store: Server | None = None, **more: Any) -> BeatProject:
        project = BeatProject(tmp_path, server._socket, store._socket if store else None, **more)
        made.append(project)
        project.list_schedules(*entries)
        return project

    yield make
    for project in made:
        project.close()


def lock(project: BeatProject) -> str:
    """The key of the lock that makes a beat the leader."""
    return f"{project.schedules.prefix}:lock"


def free_lock(project: BeatProject) -> None:
    """Let the lock lapse now."""
    project.redis.delete(lock(project))


def wait_until_led_by(project: BeatProject, process: Process, timeout: float = 30) -> None:
    """Wait until a beat leads."""
    wait_until(lambda: project.leader() == process.pid, timeout, f"{process.pid} leads: {project.log('beat')[-2000:]}")


def wait_for_stop(process: Process) -> None:
    """Wait until a process stands still."""
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 30, "it stands still")


# Anything, at any time.


class Disorder:
    """Three beats to which something happens all the time, by a seed."""

    def __init__(self, project: BeatProject, stack: ExitStack, seed: int) -> None:
        self._project, self._stack, self._chance = project, stack, random.Random(seed)
        self._beats = [self._start() for _ in range(3)]
        self.happened: Counter[str] = Counter()

    def _start(self) -> Process:
        return self._stack.enter_context(self._project.process("beat"))

    def strike(self) -> None:
        """Let something happen to one of them, mostly to the one that leads, and put it right again."""
        fault = self._chance.choice(FAULTS)
        leader = self._project.leader()
        led_by = [beat for beat in self._beats if beat.pid == leader]
        victim = led_by[0] if led_by and self._chance.random() < 0.8 else self._chance.choice(self._beats)
        self.happened[fault] += 1
        assert victim.poll() is None, f"a beat ended by itself after {self.happened}"
        if fault == "delete the lock":
            free_lock(self._project)
        elif fault == "stop":
            os.kill(victim.pid, signal.SIGSTOP)
            pause(self._chance.uniform(3.5, 6))
            os.kill(victim.pid, signal.SIGCONT)
        else:
            victim.send_signal(signal.SIGKILL if fault == "kill" else signal.SIGTERM)
            victim.wait(patient(20))
            self._beats.remove(victim)
            pause(self._chance.uniform(0, 3))
            self._beats.append(self._start())
        pause(self._chance.uniform(0, 2.5))


@pytest.mark.parametrize(
    ("seed", "seconds"),
    [
        (10, 25),
        *(pytest.param(n, 300, marks=pytest.mark.soak) for n in (11, 12, 13)),
    ],
)
def test_whatever_happens_to_the_beats(
    make: Callable[..., BeatProject], show: Callable[[str], None], seed: int, seconds: float
) -> None:
    """Beats are killed, stopped, restarted and lose their lock: no slot runs twice, and each one is accounted for."""
    project = make(ALL.format(1), LATEST.format(1))
    with project.process(*WORKER), ExitStack() as stack:
        disorder = Disorder(project, stack, seed)
        project.wait_for_slots(1, 30, "latest")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            disorder.strike()
        project.wait_for_slots(2, 30, "latest")
        stack.close()
        sent, latest = check_all(project), check_latest(project)
        show(f"seed {seed}, {dict(disorder.happened)}: {len(sent)} slots, and {len(latest)} where the latest is enough")
        assert len(sent) >= seconds - 10
    assert "Traceback" not in project.log("beat")


STEPS = ("before begin", "after begin", "after _send", "after advance")


def test_a_beat_that_dies_at_a_step(make: Callable[..., BeatProject]) -> None:
    """Killed before, within and after each step of a slot: the slot is sent by the next beat, and runs once."""
    project = make(ALL.format(1), LATEST.format(1), more=INTERRUPTED)
    with project.process(*WORKER):
        for name in ("often", "latest"):
            for step in STEPS:
                with project.process("beat", AT=f"{step} {name} SIGKILL") as beat:
                    assert beat.wait(patient(30)) == -signal.SIGKILL
                free_lock(project)
                pause(1)  # another slot is due then
        with project.process("beat"):
            project.wait_for_slots(2, name="latest")
        check_all(project)
        check_latest(project)
    assert "Traceback" not in project.log("beat")


def test_a_beat_that_is_stopped_at_a_step(make: Callable[..., BeatProject]) -> None:
    """It goes on in the middle of a slot that another beat has sent meanwhile: the slot runs once, and it stands by."""
    project = make(ALL.format(1), LATEST.format(1), more=INTERRUPTED)
    with project.process(*WORKER):
        for count, step in enumerate(STEPS[:-1], 1):
            with project.process("beat", AT=f"{step} often SIGSTOP") as stopped:
                wait_for_stop(stopped)
                free_lock(project)
                with project.process("beat"):
                    project.wait_for_slots(2)
                    os.kill(stopped.pid, signal.SIGCONT)
                    project.wait_for_log("another beat may lead now", count)
                    project.wait_for_slots(1)
        check_all(project)
        check_latest(project)
    assert "Traceback" not in project.log("beat")


# The promise, with the platform's own settings.


def test_a_standby_takes_over_in_time(make: Callable[..., BeatProject], show: Callable[[str], None]) -> None:
    """With nothing set, a slot is sent within 35 s after the beat that led was killed."""
    project = make(ALL.format(1), lease=None)
    with project.process(*WORKER):
        with project.process("beat") as first:
            wait_until_led_by(project, first)
            with project.process("beat"):
                wait_until(lambda: len(project.beats.listing()) == 2, 20, "both look at the schedule")
                project.wait_for_slots(2)
                first.kill()
                killed = time.monotonic()
                first.wait()
                project.wait_for_slots(1, TAKE_OVER)
                show(f"a standby beat sent the first slot {time.monotonic() - killed:.1f} s after the kill")
                project.wait_for_slots(1)
        check_all(project)


# Without Redis.


@contextmanager
def down(server: Server) -> Iterator[None]:
    """Killed, and started again with its data."""
    server.kill()
    yield
    server.start()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stopped where it is."""
    server.freeze()
    yield
    server.thaw()


@pytest.mark.parametrize(
    "seconds",
    [
        15,
        pytest.param(120, marks=pytest.mark.soak),
    ],
)
def test_redis_is_away(make: Callable[..., BeatProject], server: Server, seconds: float) -> None:
    """It is down for a while, and then does not answer: a pair of beats lives, no slot is lost, and none runs twice."""
    project = make(ALL.format(1), LATEST.format(1))
    with project.process(*WORKER):
        with project.process("beat") as one, project.process("beat") as other:
            wait_until(lambda: len(project.beats.listing()) == 2, 30, "both look at the schedule")
            project.wait_for_slots(2)
            for away in (down, frozen):
                with away(server):
                    pause(seconds)
                project.wait_for_slots(3, 40, "latest")
            assert (one.poll(), other.poll()) == (None, None)
        check_all(project)
        check_latest(project)
    assert "Traceback" not in project.log("beat")


# Without the broker, which is another server.


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second server, for all but the messages."""
    with Server(tmp_path_factory.mktemp("v")) as server:
        yield server


@pytest.mark.parametrize("away", [down, pytest.param(frozen, marks=pytest.mark.soak)])
def test_the_broker_is_away(
    make: Callable[..., BeatProject], server: Server, store: Server, away: Callable[[Server], Any]
) -> None:
    """For 20 s: afterwards every slot is sent where all are wanted; else one slot is late, and none runs twice."""
    slow = 'Schedule("slow", every(12), Bare, {"into": "slow"})'
    project = make(ALL.format(2), LATEST.format(2), slow, store=store)
    with project.process(*WORKER):
        with project.process("beat"):
            project.wait_for_slots(1, 30, "slow")
            with away(server):
                pause(20)
            project.wait_for_slots(1, 40, "slow")
            project.wait_for_slots(2, 30)
            project.wait_for_slots(2, 30, "latest")
        check_all(project, seconds=2)
        check_latest(project, seconds=2)
        slots = check_all(project, "slow", 12)
    assert [run.planned_at for run in project.runs("slow") if (run.lateness or 0) > 7] == slots[1:2]
    assert "Traceback" not in project.log("beat")


# A restart around a slot.


def wait_for_phase(seconds: float) -> None:
    """Wait until so many seconds after a slot of every 2 s."""
    pause((seconds - time.time()) % 2)


def test_a_restart_around_a_slot(make: Callable[..., BeatProject]) -> None:
    """Beat is stopped and started right before, at, and right after a slot: each slot is sent once."""
    project = make(ALL.format(2), LATEST.format(2))
    with project.process(*WORKER):
        for phase in (1.9, 1.98, 0, 0.01, 0.03, 0.1):
            with project.process("beat") as beat:
                wait_until_led_by(project, beat)
                wait_for_phase(phase)
        with project.process("beat"):
            project.wait_for_slots(1, name="latest")
        check_all(project, seconds=2)
        check_latest(project, seconds=2)
    assert "Traceback" not in project.log("beat")


# A deploy.

GONE = 'Schedule("gone", every(1), Bare, {"into": "gone"})'
CHANGED = 'Schedule("changed", every({0}), Bare, {{"into": "changed"}}, catch_up="all")'
PAUSED = 'Schedule("paused", every(1), Bare, {"into": "paused"}, catch_up="all")'
OLD = (ALL.format(1), GONE, CHANGED.format(86400), PAUSED)
NEW = (ALL.format(1), CHANGED.format(1), PAUSED)


def check_gone(project: BeatProject) -> None:
    """What was known of the entry is forgotten in a while, and it is due no more."""
    assert project.schedules.names() == {"often", "changed", "paused"}
    assert project.redis.ttl(project.schedules.key("gone")) > 0
    assert project.redis.zscore(f"{project.schedules.prefix}:schedule", project.schedules.key("gone")) is None


def test_a_deploy(make: Callable[..., BeatProject]) -> None:
    """Of a pair of beats, one after the other: removed entries go, changed times count from then on, a pause stays."""
    project = make(*OLD)
    with project.process(*WORKER), ExitStack() as second, ExitStack() as first:
        leader = first.enter_context(project.process("beat"))
        wait_until_led_by(project, leader)
        second.enter_context(project.process("beat"))
        project.wait_for_log("beat: Starting", 2)
        project.wait_for_slots(2, name="gone")
        assert project.run("schedule", "pause", "paused", "--reason", "it moves").returncode == 0
        held = project.slots("paused")
        project.list_schedules(*NEW)
        second.close()
        other = second.enter_context(project.process("beat"))
        project.wait_for_log("beat: Starting", 3)
        looked_at = project.schedules.looked_at()
        first.close()
        wait_until_led_by(project, other)
        first.enter_context(project.process("beat"))
        project.wait_for_slots(3, name="changed")
        check_gone(project)
        assert max(project.slots("gone")) < project.slots("changed")[0]
        assert looked_at
        assert looked_at < project.slots("changed")[0]
        assert {run.what for run in project.history("changed")} == {"sent"}
        assert project.slots("paused") == held
        before = datetime.now(UTC)
        assert project.run("schedule", "resume", "paused").returncode == 0
        project.wait_for_slots(2, name="paused")
        passed = [run for run in project.history("paused") if run.what == "paused"]
        assert told_of(passed) == every_slot(held[-1] + timedelta(seconds=1), passed[-1].planned_at or held[-1])
        assert project.slots("paused")[len(held)] > before
        first.close()
        second.close()
        check_all(project)
        check_all(project, "changed")
    assert "Traceback" not in project.log("beat")


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_beat_that_missed_a_deploy(make: Callable[..., BeatProject], step: str) -> None:
    """Stopped at a step of an entry that is removed meanwhile, it begins nothing of it, and does not bring it back."""
    project = make(*OLD, more=INTERRUPTED)
    with project.process("beat", AT=f"{step} gone SIGSTOP") as stopped:
        wait_for_stop(stopped)
        project.list_schedules(*NEW)
        free_lock(project)
        with project.process("beat") as other:
            wait_until_led_by(project, other)
            project.wait_for_slots(1)
            os.kill(stopped.pid, signal.SIGCONT)
            project.wait_for_log("another beat may lead now")
            project.wait_for_slots(1)
            assert len(project.slots("gone")) == (0 if step == "before begin" else 1)
            check_gone(project)


# Alive, but stuck.


def test_a_beat_that_is_stuck(make: Callable[..., BeatProject]) -> None:
    """In a function of a team's: it is seen, another one takes over, and what it sends afterwards runs no second time."""
    stuck = 'Schedule("stuck", every(1), Bare, {"into": when_released}, catch_up="all")'
    project = make(stuck, ALL.format(1), more=STUCK)
    with project.process(*WORKER), ExitStack() as stack:
        first = stack.enter_context(project.process("beat", STUCK="1"))
        wait_until_led_by(project, first)

        def age() -> float:
            return next(one.tick_age for one in project.beats.listing() if one.name.endswith(f":{first.pid}"))

        wait_until(lambda: age() > 4, 30, "the first one has not looked for a while")
        assert project.redis.exists(lock(project)) == 0
        second = stack.enter_context(project.process("beat"))
        wait_until_led_by(project, second)
        project.wait_for_slots(3, name="stuck")
        assert age() > 4
        (slot,) = {run.planned_at for run in project.runs("stuck")[:1]}
        assert slot
        text = f"sent stuck of {slot.astimezone(TOKYO).isoformat()} as {project.runs('stuck')[0].id}"
        project.wait_for_log(text)
        project.redis.rpush("released", "now")
        project.wait_for_log(text, 2)  # the same message
        project.wait_for_log("another beat may lead now")
        wait_until(lambda: age() < 4, 20, "it looks again")
        project.wait_for_slots(3, name="stuck")
        stack.close()
        check_all(project, "stuck")
        check_all(project)
    assert "Traceback" not in project.log("beat")


# No two at a time.

HELD = 'Schedule("held", every(1), Hold, {{"into": "held"}}, overlap="skip", catch_up="{0}")'
FLAKY = 'Schedule("flaky", every(1), FailAtFirst, {"into": "flaky"}, overlap="skip")'


def check_no_overlap(project: BeatProject, name: str) -> None:
    """Between the first word of a run and its last one no other run says anything, and what was sent ran."""
    words: Any = project.redis.lrange(name, 0, -1)
    assert words[-1].endswith("ends")
    runs = [datetime.fromisoformat(planned) for planned, _ in groupby(words, lambda word: word.partition(" ")[0])]
    assert len(runs) == len({*runs})
    assert [run for run in runs if run not in may_have_run(project, name)] == project.slots(name)
    lines = project.history(name)
    assert {line.what for line in lines} <= {"sent", "skipped", "missed"}
    slots = told_of(lines)
    assert slots == every_slot(slots[0], slots[-1])
    last, uncertain = "", may_have_run(project, name)
    for line in lines:
        last = line.id if line.what == "sent" else last
        assert line.what != "skipped" or line.note == last or uncertain, line


@pytest.mark.parametrize("servers", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_no_two_runs_at_a_time(make: Callable[..., BeatProject], store: Server, servers: int) -> None:
    """A run whose worker is killed, and one that waits for its next attempt, have not ended: slots are skipped."""
    project = make(HELD.format("latest"), FLAKY, store=store if servers == 2 else None, more=LONG_RUNS)
    project.redis.set("hold", "yes")
    with project.process("beat") as beat:
        with project.process(*WORKER) as worker:
            wait_until(lambda: project.redis.llen("held") == 1, 40, "a run has begun")
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        with project.process(*WORKER):
            wait_until(lambda: project.redis.llen("held") == 2, 60, "it has begun again")
            (first,) = project.runs("held")
            skipped = len(told_of(project.history("held")))
            wait_until(lambda: len(told_of(project.history("held"))) >= skipped + 2, 20, "more slots are skipped")
            assert project.runs("held") == [first]
            project.redis.delete("hold")
            project.wait_for_slots(3, 30, "held")
            project.wait_for_slots(1, 30, "flaky")
            beat.terminate()
            beat.wait(patient(20))
            wait_until(lambda: not messages(project), 40, "the last runs have ended")
    flaky = project.history("flaky")
    begin, end = [at for at, line in enumerate(flaky) if line.what == "sent"][:2]
    between = flaky[begin + 1 : end]  # while it waited for 3 s
    assert {line.what for line in between} <= {"skipped", "missed"}  # a late beat writes `missed` among them
    assert sum(line.count for line in between) >= 2
    for name in ("held", "flaky"):
        check_no_overlap(project, name)
    assert "Traceback" not in project.log("beat")


def test_no_two_runs_after_a_broker_that_did_not_answer(
    make: Callable[..., BeatProject], server: Server, store: Server
) -> None:
    """A message that was on its way when the broker stood still arrives later: no other one runs beside it."""
    project = make(HELD.format("latest"), store=store, more=IMPATIENT + LONG_RUNS)
    project.redis.set("seconds", 3)
    with project.process(*WORKER):
        with project.process("beat"):
            # The message of that run has left the broker. So it ends while the broker stands still, and the next slot is due.
            wait_until(lambda: project.redis.llen("held") >= 3, 40, "the second run has begun")
            with frozen(server):
                project.wait_for_log("held is not sent yet", timeout=60)
                pause(2)
            project.wait_for_slots(2, 40, "held")
        wait_until(lambda: not messages(project), 40, "the last run has ended")
    check_no_overlap(project, "held")


@pytest.mark.parametrize("servers", [1, 2])
def test_a_slot_that_was_sent_twice_has_ended(make: Callable[..., BeatProject], store: Server, servers: int) -> None:
    """A beat dies right after it sent a slot, which ends and is sent again: it is not waited for."""
    project = make(HELD.format("all"), store=store if servers == 2 else None, more=LONG_RUNS + INTERRUPTED)
    with project.process(*WORKER):
        with project.process("beat", AT="after _send held SIGKILL") as beat:
            assert beat.wait(patient(30)) == -signal.SIGKILL
        wait_until(lambda: project.redis.llen("held") == 2, 40, "it ran")
        free_lock(project)
        with project.process("beat"):
            project.wait_for_slots(3, name="held")
        wait_until(lambda: not messages(project), 40, "the last run has ended")
    check_no_overlap(project, "held")


# A signal that asks beat to end comes while an object is deleted, where Python drops what its handler raises.
ASKED_IN_DEL = """
import os
import signal

from conventions.schedules.beat_liveness import Beats
from conventions.schedules.schedule_store import Schedules


class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def ask(owner, step):
    original = getattr(owner, step)

    def asked(self, *arguments, **options):
        if os.environ.pop("ASKED_AT", None):
            Last()
        return original(self, *arguments, **options)

    setattr(owner, step, asked)


ask(*{"begin": (Schedules, "begin"), "tick": (Beats, "tick"), None: (Beats, "leave")}[os.environ.get("ASKED_AT")])
"""


@pytest.mark.parametrize("step", ["tick", "begin"])
def test_a_signal_to_end_is_not_lost(make: Callable[..., BeatProject], step: str) -> None:
    """Wherever it finds beat: it ends after that look with status 0, gives its lock back, and prints no traceback."""
    project = make(ALL.format(1), more=ASKED_IN_DEL)
    with project.process("beat", ASKED_AT=step) as beat:
        assert beat.wait(patient(20)) == 0
    assert not project.redis.exists(lock(project))
    assert "Traceback" not in project.log("beat")
