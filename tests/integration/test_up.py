"""`celery -A <app> up` with real processes, in a folder of an app that is not ours."""

import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from conventions.core.errors import ConfigurationError
from conventions.stack.folder import find, hold
from tests.integration.stack_app import Running, StackApp
from tests.support import patient, wait_until

READY = " ready."


@contextmanager
def small_app() -> Iterator[StackApp]:
    """An app in a folder with a short path, so that the socket lies in it."""
    folder = Path(tempfile.mkdtemp(prefix="up-"))
    yield StackApp(folder)
    shutil.rmtree(folder)


@pytest.fixture
def app() -> Iterator[StackApp]:
    """An app of the test's own."""
    with small_app() as app:
        yield app


@pytest.fixture(scope="module")
def shared_app() -> Iterator[StackApp]:
    """An app whose stack several tests use, one after the other."""
    with small_app() as app:
        yield app


@pytest.fixture(scope="module")
def shared_up(shared_app: StackApp) -> Iterator[Running]:
    """Its stack, its worker ready; the last test that uses it stops it."""
    with shared_app.running("up", "--no-flower", "--concurrency", "2") as running:
        running.stack()
        running.wait_for(READY)
        yield running


def test_a_second_up_is_refused_and_the_first_goes_on(shared_app: StackApp, shared_up: Running) -> None:
    """One line, with the first's pid, and status 2."""
    second = shared_app.run("up")
    assert second.returncode == 2
    assert second.stdout.splitlines()[-1].startswith("Error: a stack runs in this folder already")
    assert f"process {shared_up.process.pid};" in second.stdout
    assert shared_up.process.poll() is None
    assert shared_up.stack().pid == shared_up.process.pid


def test_a_changed_file_starts_a_new_worker_at_once(shared_app: StackApp, shared_up: Running) -> None:
    """While the old worker finishes its job, the new one runs the next job with the new code."""
    shared_app.send("old", 60)
    assert shared_app.left("old.started") == "first"
    ready = shared_up.output.count(READY)
    shared_app.write_work("second")
    shared_up.wait_for(READY, count=ready + 1)
    shared_app.send("new")
    assert shared_app.left("new.done") == "second"
    shared_app.write("old.go", "")
    assert shared_app.left("old.done") == "first"
    shared_up.wait_for("the old worker has finished")


def test_a_broken_file_is_named_and_its_correction_starts_a_worker(shared_app: StackApp, shared_up: Running) -> None:
    """The message has file and line; no restart in a hot loop; the next change is tried at once."""
    shared_app.write("jobs/work.py", "def broken(:\n")
    shared_up.wait_for("work.py, line 1")
    shared_up.wait_for("worker | ended with exit code 2; starts again in")
    ready = shared_up.output.count(READY)
    shared_app.write_work("third")
    shared_up.wait_for(READY, count=ready + 1)
    shared_app.send("corrected")
    assert shared_app.left("corrected.done") == "third"


def test_a_killed_worker_is_replaced(shared_app: StackApp, shared_up: Running) -> None:
    """After kill -9 of the worker its exit code is shown, its children are gone, and a new one takes jobs."""
    ready = shared_up.output.count(READY)
    workers = wait_until(lambda: shared_up.workers() if len(shared_up.workers()) == 1 else [], description="one worker")
    worker = workers[0]
    children = worker.children()
    worker.kill()
    shared_up.wait_for("worker | ended with exit code -9; starts again in 1 s")
    assert psutil.wait_procs(children, timeout=patient(5))[1] == []
    shared_up.wait_for(READY, count=ready + 1)
    shared_app.send("job")
    assert shared_app.left("job.done")


def test_a_new_schedule_file_is_noticed(shared_app: StackApp, shared_up: Running) -> None:
    """`beat_schedule.py` counts as a source, also when it appears later."""
    shared_app.write("beat_schedule.py", "SCHEDULE = []\n")
    shared_up.wait_for("changed: beat_schedule.py")


def test_a_configured_broker_is_used_and_nothing_is_embedded(
    shared_app: StackApp, shared_up: Running, tmp_path: Path
) -> None:
    """With a broker in the environment only the services run, and the folder is held all the same."""
    other = StackApp(tmp_path / "other")
    other.environment["CONVENTIONS_BROKER_URL"] = shared_up.stack().broker_url
    other.environment["CONVENTIONS_KEY_PREFIX"] = "other"
    with other.running("up", "--no-flower", "--concurrency", "1") as running:
        running.wait_for(READY)
        assert find(other.conventions) is None
        assert not (other.conventions / "valkey").exists()
        with pytest.raises(ConfigurationError, match=str(running.process.pid)), hold(other.conventions):
            pass
        assert running.interrupt() == 0


def test_ctrl_c_lets_the_running_job_finish(shared_app: StackApp, shared_up: Running) -> None:
    """After Ctrl-C the job ends, then all services, with status 0; the stack is not found any more."""
    shared_app.send("last", 3)
    shared_app.left("last.started")
    assert shared_up.interrupt() == 0, shared_up.output
    assert (shared_app.folder / "last.done").exists()
    wait_until(lambda: not shared_up.services(), description="no service is left")
    assert find(shared_app.conventions) is None


def test_a_kill_leaves_nothing_after_5_seconds(app: StackApp) -> None:
    """After kill -9 of `up` every process ends, that of a running job too."""
    with app.running("up", "--no-flower", "--concurrency", "1") as running:
        running.stack()
        running.wait_for(READY)
        app.send("endless", 600)
        app.left("endless.started")
        assert len(running.services()) >= 6  # guardian, Valkey and its parent, worker and its child, beat
        running.process.kill()
        running.process.wait()
        assert find(app.conventions) is None, "a dying stack is not found"
        wait_until(lambda: not running.services(), timeout=5, description="nothing left")


def test_a_folder_too_deep_for_a_socket_works_with_flower_on_the_given_port(tmp_path: Path) -> None:
    """The socket lies elsewhere, other programs find it, and it is removed after SIGTERM; a taken port is refused."""
    app = StackApp(tmp_path / ("deep " * 30).strip() / "project")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = app.run("up", "--port", str(port))
        assert refused.returncode == 2
        assert f"Error: port {port} cannot be used" in refused.stdout
    with app.running("up", "--port", str(port), "--no-reload", "--concurrency", "1") as running:
        stack = running.stack()
        assert stack.flower_url == f"http://127.0.0.1:{port}"
        assert not Path(stack.socket).is_relative_to(app.folder)
        app.send_from_elsewhere("job")
        assert app.left("job.done") == "first"
        wait_until(lambda: answers(port), timeout=20, description="Flower answers")
        with urllib.request.urlopen(f"{stack.flower_url}/dead-letters", timeout=patient(10)) as page:
            assert "Nothing is dead." in page.read().decode(), "the console is there"
        running.process.terminate()
        assert running.process.wait(timeout=patient(15)) == 0, running.output
        assert not Path(stack.socket).parent.exists()


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_up_ends_with_the_uv_that_started_it(app: StackApp) -> None:
    """`uv run` stands between the user and us: a kill -9 of it leaves nothing either."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    command = [uv, "run", "--no-project", "--", *app.celery("up", "--no-flower", "--concurrency", "1")]
    launcher = subprocess.Popen(
        command, cwd=app.folder, env=app.environment, stdout=subprocess.DEVNULL, start_new_session=True
    )
    stack = wait_until(lambda: find(app.conventions), timeout=40, description="an embedded stack")
    up = psutil.Process(stack.pid)
    guardian = wait_until(up.children, description="its services")[0]
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    _, left = psutil.wait_procs([up, guardian], timeout=patient(10))
    for survivor in left:
        survivor.kill()
    assert left == []
