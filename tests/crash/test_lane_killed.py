"""Processes die, stand still and lose their server in the middle of a group: each job ends once, and hardly one repeats."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.storage.tables import ExecutionRow
from tests.claiming import fields_of
from tests.crash import lane_crash_tasks
from tests.crash.lane_crash_tasks import ALONE, STOOD_AGAIN, Lines, Quick
from tests.crash.server import Server
from tests.crash.tempo import QUICK, USUAL, Tempo
from tests.support import patient, wait_until
from tests.workers import Installation, letters, messages, wait_for_letter

JOBS = 6000
KILLS = 6
START_LIMIT = 3
SHORT = ("-X", "long", "-c", "2")  # what a worker needs to have groups, two processes
STANDS = "a process stands still in the middle of a group"
ONE = ("-X", "long", "-c", "1")


@pytest.fixture
def task_module() -> str:
    """The task of these tests."""
    return lane_crash_tasks.__name__


def send(count: int = JOBS, *, stands: bool = False, again: bool = False, fatal: Iterable[int] = ()) -> list[str]:
    """Send jobs with the numbers from 0; returns their ids."""
    dead = frozenset(fatal)
    return Quick.enqueue_many(
        {"number": number, "stands": stands, "fatal": number in dead, "again": again} for number in range(count)
    )


def wait_for_lines(lines: Lines, count: int) -> None:
    """Wait until jobs have written so many lines."""
    wait_until(lambda: lines.count() >= count, 40, f"{count} lines")


def wait_until_drained(app: ConventionsApp, timeout: float = 40) -> None:
    """Wait until no message is left, and every outcome is in SQL."""
    wait_until(lambda: app.broker.sizes("immediate") == Sizes(0, 0, 0), timeout, "the queue is empty")
    assert not messages(app)
    wait_until(lambda: not app.journal.length(), 40, "all is recorded")


def kinds(app: ConventionsApp) -> dict[str, list[str]]:
    """How each message ended, by id; a start without an outcome is no end."""
    found: dict[str, list[str]] = {}
    with app.database.session(read_only=True) as session:
        for message_id, kind in session.execute(
            select(ExecutionRow.message_id, ExecutionRow.kind).where(ExecutionRow.kind != "interrupted")
        ):
            found.setdefault(message_id, []).append(kind)
    return found


def repeats(
    app: ConventionsApp,
    lines: Lines,
    ids: list[str],
    dead: Iterable[int] = (),
    *,
    without: Collection[str] = (),
    **wait: float,
) -> list[int]:
    """Wait for the end. Each job has ended once, succeeded but for the `dead`; returns those whose effect was repeated.

    `without`: kinds that any of them may have besides.
    """
    wait_until_drained(app, **wait)
    found, fatal = kinds(app), frozenset(dead)
    found = {one: [kind for kind in several if kind not in without] for one, several in found.items()}
    expected = {one: ["dead" if number in fatal else "succeeded"] for number, one in enumerate(ids)}
    wrong = {one: found.get(one) for one in ids if found.get(one) != expected[one]}
    assert (wrong, len(found)) == ({}, len(ids))
    assert {letter.id for letter in letters(app, state=None)} == {ids[number] for number in fatal}
    starts = lines.starts()
    assert not set(range(len(ids))) - starts.keys()
    return sorted(number for number, times in starts.items() for _ in range(times - 1) if number not in fatal)


def waits_for_server(pid: int) -> bool:
    """Whether a process waits for a socket."""
    return "poll" in Path(f"/proc/{pid}/wchan").read_text(encoding="ascii")


def test_processes_killed_in_groups(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """Each job succeeds once; a kill repeats one effect at most."""
    QUICK.install(installation)
    ids, lines, killed = send(), Lines(installation.folder), list[int]()
    with installation.worker(*SHORT) as worker:
        for number in range(KILLS):
            wait_for_lines(lines, (number + 1) * 2 * JOBS // (KILLS + 2))
            line = wait_until(lines.in_middle, 10, "a group runs")
            os.kill(line.pid, signal.SIGKILL)
            killed.append(line.pid)
        again = repeats(app, lines, ids)
        assert worker.process.poll() is None
    hits = [left for pid in killed if (left := lines.last_of(pid).left) > 0]
    show(f"{KILLS} kills, {len(hits)} in the middle of a group, before {hits} others: {len(again)} effects repeated")
    assert len(hits) >= KILLS / 2, "this shows too little"
    assert len(again) <= KILLS
    assert max(lines.starts().values()) <= 2


def test_a_process_killed_while_the_server_lags(
    installation: Installation, app: ConventionsApp, server: Server, show: Callable[[str], None]
) -> None:
    """What it has said is heard, although nobody reads the answers: its kill repeats one effect at most.

    It stands still twice, so that the server is frozen, and then the process killed, while jobs wait behind.
    """
    QUICK.install(installation)
    ids, lines = send(2000, stands=True, again=True), Lines(installation.folder)
    with installation.worker(*ONE):
        line = wait_until(lines.stood, 20, STANDS)
        server.freeze()
        os.kill(line.pid, signal.SIGCONT)
        wait_until(
            lambda: waits_for_server(line.pid) or lines.stood(STOOD_AGAIN),
            10,
            "it stands again, or waits for the server",
        )
        os.kill(line.pid, signal.SIGKILL)
        (installation.folder / STOOD_AGAIN).touch()  # so that no other process stands
        last = lines.last_of(line.pid)
        server.thaw()
        again = repeats(app, lines, ids)
    show(
        f"a kill {last.number - line.number} jobs later, before {last.left} others, while the server stands still: "
        f"{len(again)} effects repeated"
    )
    assert last.number > line.number, "this shows nothing"
    assert last.left > 0
    assert len(again) <= 1


def claims_of(app: ConventionsApp, pid: int, ids: list[str]) -> dict[int, bool]:
    """The jobs whose running claims a process has, and whether each has begun, by the claims."""
    redis: Any = app.store.redis
    numbers = {one.encode(): number for number, one in enumerate(ids)}
    keys = list(redis.scan_iter(match=app.store.key("claim", f"{Quick.name}:*"), count=1000))
    own, before = f"{pid}-".encode(), len(app.store.key("claim", ""))
    found = {claim: fields_of(app.store, claim) for claim in (key[before:].decode() for key in keys)}
    return {
        numbers[one[b"id"]]: app.claims.runs(claim, one[b"token"].decode())
        for claim, one in found.items()
        if one[b"state"] == b"running" and one[b"start"].startswith(own)
    }


def test_what_had_not_begun(installation: Installation, app: ConventionsApp) -> None:
    """No start of it is counted when its process is killed; it runs once, and so does all that had ended."""
    ids, lines = send(2000, stands=True), Lines(installation.folder)
    with installation.worker(*ONE) as worker:
        last = wait_until(lines.stood, 20, STANDS)
        os.kill(worker.process.pid, signal.SIGSTOP)  # so that nothing is returned before it was looked at
        os.kill(last.pid, signal.SIGKILL)
        began = lines.starts()
        wait_until(
            lambda: len(began.keys() & claims_of(app, last.pid, ids)) == 1, 5, "all outcomes are recorded but one"
        )
        claims = claims_of(app, last.pid, ids)
        assert claims.pop(last.number)
        assert 0 < len(claims) <= last.left  # those of a later part are not taken yet
        assert not any(claims.values())
        os.kill(worker.process.pid, signal.SIGCONT)
        assert repeats(app, lines, ids) == [last.number]


@pytest.mark.parametrize("tempo", [QUICK, pytest.param(USUAL, marks=pytest.mark.soak)], ids=["quick", "usual"])
def test_a_worker_killed_with_its_groups(
    installation: Installation, app: ConventionsApp, tempo: Tempo, show: Callable[[str], None]
) -> None:
    """Another one takes everything over; each process repeats one effect at most."""
    tempo.install(installation)
    ids, lines = send(), Lines(installation.folder)
    with installation.worker(*SHORT) as first:
        wait_for_lines(lines, JOBS)
        wait_until(lines.in_middle, 10, "a group runs")
        first.kill()
    killed, sizes = time.monotonic(), app.broker.sizes("immediate")
    processes = {line.pid for line in lines.all()}
    with installation.worker(*SHORT):
        again = repeats(app, lines, ids, timeout=60)
    seconds = time.monotonic() - killed
    show(f"{sizes} after the kill, drained and recorded after {seconds:.1f} s: {len(again)} effects repeated")
    assert sizes.in_flight > 2
    assert len(processes) == 2
    assert len(again) <= len(processes)
    assert seconds < tempo.recovery + patient(
        40
    )  # when another recorder takes what the one of the killed worker had begun


def test_jobs_that_kill_their_process(installation: Installation, app: ConventionsApp) -> None:
    """In the middle of a group, and then alone until they have begun three times; the others run once."""
    fatal = (1000, 1500, 2000)
    ids, lines = send(3000, fatal=fatal), Lines(installation.folder)
    with installation.worker(*SHORT) as worker:
        for number in fatal:
            assert wait_for_letter(app, ids[number], 40).error == "TooManyStarts"
        assert repeats(app, lines, ids, dead=fatal) == []
        assert worker.process.poll() is None
    runs = {number: [line.left for line in lines.all() if line.number == number] for number in fatal}
    assert {len(lefts) for lefts in runs.values()} == {START_LIMIT}
    assert {left for lefts in runs.values() for left in lefts[1:]} == {ALONE}
    assert any(lefts[0] > 0 for lefts in runs.values())


def restart(server: Server) -> None:
    """Kill it, and start it again with its append-only file."""
    server.kill()
    server.start()


def cut(server: Server) -> None:
    """Close every connection."""
    assert server.cut_connections("normal", "pubsub")


@pytest.mark.parametrize("strike", [restart, cut])
def test_a_server_lost_under_groups(
    installation: Installation,
    app: ConventionsApp,
    server: Server,
    strike: Callable[[Server], None],
    show: Callable[[str], None],
) -> None:
    """Three times; the processes go on, and record what they could not."""
    QUICK.install(installation)
    ids, lines = send(), Lines(installation.folder)
    with installation.worker(*SHORT) as worker:
        for number in range(3):
            wait_for_lines(lines, (number + 1) * JOBS // 2)
            wait_until(lines.in_middle, 10, "a group runs")
            strike(server)
        # Where the disk is busy the server loses its last writes, and a message whose end is in SQL is a duplicate.
        again = repeats(app, lines, ids, without={"duplicate"} if strike is restart else ())
        show(f"{strike.__name__}, 3 times: {len(again)} effects repeated")
        assert again == []
        assert {line.main for line in lines.all()} == {worker.process.pid}
        assert worker.stop() == 0


def test_a_worker_that_stands_still(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """For longer than its leases, in the middle of a group: what it says afterwards is refused."""
    QUICK.install(installation)
    ids, lines = send(stands=True), Lines(installation.folder)
    with installation.workers(ONE, ONE) as (first, second):
        last = wait_until(lines.stood, 20, STANDS)
        os.kill(last.main, signal.SIGSTOP)
        wait_until_drained(app)
        assert kinds(app) == {one: ["succeeded"] for one in ids}
        assert lines.starts() - Counter(range(len(ids))) == {last.number: 1}
        for process in (last.pid, last.main):
            os.kill(process, signal.SIGCONT)
        wait_until(lambda: sorted(kinds(app)[ids[last.number]]) == ["succeeded", "superseded"], 20, "it was refused")
        wait_until_drained(app)
        after = lines.starts() - Counter(range(len(ids))) - Counter([last.number])
        show(f"{last.left} waited behind the job that stood still; {after.total()} of them began once more afterwards")
        assert Counter(kind for several in kinds(app).values() for kind in several)["succeeded"] == len(ids)
        assert (first.process.poll(), second.process.poll()) == (None, None)
        assert not after


def test_a_process_that_stands_still(
    installation: Installation, app: ConventionsApp, show: Callable[[str], None]
) -> None:
    """In the middle of a group: its worker ends it at the time limit of the job that ran, which alone is dead."""
    QUICK.install(installation)
    ids, lines = send(stands=True), Lines(installation.folder)
    with installation.worker(*SHORT):
        last = wait_until(lines.stood, 20, STANDS)
        wait_until_drained(app)
        wait_until(lambda: not Path(f"/proc/{last.pid}").exists(), 10, "it is ended")
        found = kinds(app)
        show(f"{last.left} waited behind the job that stood still")
        assert found.pop(ids[last.number]) == ["dead"]
        assert [letter.error for letter in letters(app)] == ["TimeLimitExceeded"]
        assert all(several.count("succeeded") == 1 for several in found.values())
        assert lines.starts() == Counter(range(len(ids)))
