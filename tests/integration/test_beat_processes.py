"""`celery beat` as real processes: started, killed, stopped and doubled while slots pass every second."""

import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.integration.beat_project import BeatProject, server
from tests.support import at_most, patient, wait_until


@pytest.fixture
def project(tmp_path: Path) -> Iterator[BeatProject]:
    """A project whose broker and store are one server."""
    with server(tmp_path / "v") as running:
        project = BeatProject(tmp_path, Path(str(running.unix_socket_path)))
        yield project
        project.close()


def test_each_slot_runs_once_whatever_happens_to_the_beats(project: BeatProject) -> None:
    """A leader is killed, the next is stopped and goes on after its lock lapsed: no slot runs twice, and slots go on."""
    with project.process("worker", "-c", "2", "-Q", "scheduled"):
        with project.process("beat") as first:
            project.wait_for_slots(3)
            with project.process("beat") as second:
                project.wait_for_log("beat: Starting", 2)
                os.kill(first.pid, signal.SIGKILL)
                project.wait_for_slots(2)  # the second leads now
                with project.process("beat"):
                    project.wait_for_log("beat: Starting", 3)
                    os.kill(second.pid, signal.SIGSTOP)
                    project.wait_for_slots(2)  # the third leads
                    os.kill(second.pid, signal.SIGCONT)
                    project.wait_for_slots(3)
                    project.wait_for_log("another beat may lead now")
        planned = project.slots()
        assert planned == sorted(set(planned))
        assert len(planned) >= 10
        wait_until(lambda: set(planned) <= set(project.ran()), description="every slot ran")
        ran = sorted(project.ran())
        assert ran == sorted(set(ran))
        assert set(ran) - set(planned) <= project.begun_but_missed()
    assert "Traceback" not in project.log("beat")


def test_a_broker_that_refuses_does_not_lose_the_slot(tmp_path: Path) -> None:
    """The broker is away while a slot passes; the slot is sent, with its planned time, when the broker is back."""
    with server(tmp_path / "store") as store:
        socket = tmp_path / "broker" / "s"
        project = BeatProject(tmp_path, socket, Path(str(store.unix_socket_path)))
        project.set_interval(8)
        with project.process("beat"):
            with server(tmp_path / "broker"):
                project.wait_for_slots(1)
            project.wait_for_log("is not sent yet")
            with server(tmp_path / "broker"):
                project.wait_for_slots(1)
        said = next(line for line in project.log("beat").splitlines() if "is not sent yet" in line)
        assert "often is not sent yet: " in said, said
        assert "the broker at" in said, said
        late = [run for run in project.runs() if (run.lateness or 0) > 3]  # `broker_timeout` is 3 s
        assert len(late) == 1
        planned = project.slots()
        assert [after - before for before, after in pairwise(planned)] == [timedelta(seconds=8)] * (len(planned) - 1)


def test_a_beat_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    """While Redis is away the same process waits, and it goes on when Redis is back, without a slot sent twice."""
    folder = tmp_path / "v"
    with server(folder, persist=True) as running:
        project = BeatProject(tmp_path, Path(str(running.unix_socket_path)))
        beat = project.process("beat")
        process = beat.__enter__()
        project.wait_for_slots(2)
    try:
        project.wait_for_log("Redis does not answer")
        with server(folder, persist=True):
            project.wait_for_slots(2, timeout=30)
            planned = project.slots()
        assert process.poll() is None
        assert planned == sorted(set(planned))
    finally:
        beat.__exit__(None, None, None)


def test_a_pause_holds_over_a_restart_which_takes_no_time(project: BeatProject) -> None:
    """SIGTERM ends beat at once with status 0; the next leads without waiting, and sends nothing until `resume`."""
    with project.process("beat") as beat:
        project.wait_for_slots(1)
        assert project.run("schedule", "pause", "often", "--reason", "maintenance").returncode == 0
        held = project.slots()
        with at_most(1):
            beat.send_signal(signal.SIGTERM)
            assert beat.wait(timeout=patient(10)) == 0
        assert not project.redis.exists("{conventions}:redbeat::lock")
    with project.process("beat"):
        project.wait_for_log("beat: leads", 2)
        two_slots_later = time.time() + 2.5
        wait_until(lambda: time.time() > two_slots_later, description="slots that must not be sent")
        assert project.slots() == held
        assert project.run("schedule", "resume", "often").returncode == 0
        project.wait_for_slots(2)
    assert project.slots()[len(held)] - held[-1] > timedelta(seconds=2)
    (passed,) = [run for run in project.history() if run.what == "paused"]
    assert (passed.first_at, passed.note) == (held[-1] + timedelta(seconds=1), "maintenance")


@pytest.mark.everyday
def test_a_faulty_schedule_is_one_line_and_status_2(project: BeatProject) -> None:
    """Also without a banner, beat names file, line and fault, and prints no traceback."""
    (project.folder / "beat_schedule.py").write_text(
        "from conventions.schedules.cron import cron\ncron('0 0 31 2 *')\n"
    )
    done = project.run("-q", "beat")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: schedule beat_schedule:SCHEDULE")
    assert "beat_schedule.py, line 2" in done.stderr
    assert "no such day ever comes" in done.stderr
    assert "Traceback" not in done.stderr
