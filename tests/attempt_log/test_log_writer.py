"""What of the log of an attempt comes to Redis, when, and what becomes of it where Redis is away, empty or full of others."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conventions.attempt_log import live_logs, log_writer, run_log
from conventions.attempt_log.head_and_tail import read
from conventions.attempt_log.live_logs import LiveLog, LiveLogs
from conventions.attempt_log.log_writer import AttemptLogs
from conventions.attempt_log.run_log import RunLog, attach, running
from conventions.storage.redis_store import Store
from tests.redis_servers import free_port, process, wait_for_server
from tests.support import at_most, wait_until

logger = logging.getLogger("shop.log_writer")
LIMIT = 65536


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [*before, logging.NullHandler()]
    root.setLevel(logging.DEBUG)
    attach(logging.DEBUG)
    yield
    root.handlers[:] = before
    root.setLevel(level)
    running.set(None)


@pytest.fixture
def live(store: Store) -> LiveLogs:
    return LiveLogs(store)


@pytest.fixture
def logs(live: LiveLogs) -> AttemptLogs:
    return AttemptLogs(lambda: live, LIMIT)


def said(log: LiveLog) -> list[str]:
    """The messages in Redis."""
    return [line.message for line in read(log.text)]


def run_of(logs: AttemptLogs, message_id: str = "m", *lines: str) -> RunLog:
    """A run with these lines, which has not ended."""
    run = logs.begin(message_id, 0, 1, "t")
    for one in lines:
        logger.info(one)
    return run


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run be a long one after a moment."""
    monkeypatch.setattr(run_log, "LONG", 0.05)
    monkeypatch.setattr(log_writer, "LONG", 0.05)
    monkeypatch.setattr(log_writer, "LOOK_EVERY", 0.02)


def left(store: Store) -> list[str]:
    """The keys of the application."""
    return sorted(key.decode().partition("}:")[2] for key in store.redis.scan_iter(match=store.key("*"), count=10_000))


def test_a_short_run_is_kept_when_it_has_failed(logs: AttemptLogs, live: LiveLogs, store: Store) -> None:
    """At once; until it is said that it has failed, nothing is there."""
    run = run_of(logs, "m", "one", "two")
    run.end()
    assert left(store) == []
    run.keep()
    (found,) = live.of("m")
    assert (said(found), found.ended, found.left_out, found.name) == (["one", "two"], True, 0, run.name)
    assert live.due(10) == [found]
    assert left(store) == ["log:m:0:1:t", "logs", "logs:bytes", "logs:changes", "logs:sizes", "logs_of:m"]
    assert 0 < store.redis.pttl(store.key("log", "m", "0:1:t")) <= live_logs.LIVES.total_seconds() * 1000
    assert live.drop([found]) == 1
    assert left(store) == ["logs:bytes", "logs:changes"]


def test_a_running_one_is_there_after_its_first_second(logs: AttemptLogs, live: LiveLogs) -> None:
    """Each line about a second after it was logged; and not before."""
    began = time.monotonic()
    run = run_of(logs, "m", "one")
    wait_until(lambda: live.of("m"), 5, "the first line")
    assert time.monotonic() - began >= run_log.LONG
    with at_most(1.0):
        logger.info("two")
        wait_until(lambda: said(live.of("m")[0]) == ["one", "two"], 5, "the second one")
    assert not live.of("m")[0].ended
    assert live.due(10) == [], "it lives"
    logger.info("three")
    run.end()
    (found,) = live.of("m")
    assert (said(found), found.ended) == (["one", "two", "three"], True)


def test_head_and_tail_in_redis(store: Store, live: LiveLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a run whose middle was stored before it went."""
    soon(monkeypatch)
    logs = AttemptLogs(lambda: live, 5000)
    run = run_of(logs)
    for number in range(300):
        logger.info("%d", number)
        if number % 30 == 0:
            wait_until(lambda: live.of("m") and said(live.of("m")[0])[-1] == str(number), 5)  # noqa: B023  # it waits here
    run.end()
    (found,) = live.of("m")
    size = sum(map(len, found.text.splitlines()))
    assert size <= 5000 + 30
    assert found.left_out > 200
    kept = [int(one) for one in said(found) if one.isdecimal()]
    head = [number for place, number in enumerate(kept) if number == place]
    assert kept == [*head, *range(300 - len(kept) + len(head), 300)]
    assert len(kept) + found.left_out == 300
    stored = store.redis.hgetall(store.key("log", "m", "0:1:t"))
    lines = {name: value for name, value in stored.items() if name.isdigit()}
    assert int(store.redis.get(store.key("logs:bytes")) or 0) == sum(map(len, lines.values())) <= 5000


def test_an_emptied_redis_has_all_of_it_again(
    logs: AttemptLogs, live: LiveLogs, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next line."""
    soon(monkeypatch)
    run = run_of(logs, "m", "one")
    (found,) = wait_until(lambda: live.of("m"), 5)
    live.drop([found])
    logger.info("two")
    (found,) = wait_until(lambda: live.of("m"), 5)
    assert said(found) == ["one", "two"]
    run.end()
    assert live.of("m")[0].ended


def test_lines_that_came_since_are_not_dropped(logs: AttemptLogs, live: LiveLogs) -> None:
    """Whoever moves them reads them again."""
    run = run_of(logs, "m", "one")
    run.end()
    run.keep()
    (before,) = live.due(10)
    live.keep(run.name, run.write().take_all(), again=False, ended=True)
    assert live.drop([before]) == 0
    assert live.drop(live.due(10)) == 1


def test_too_many_bytes_of_others(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Redis does not fill up; one line says so. What is there already goes on."""
    live = LiveLogs(store, most_bytes=1000)
    logs = AttemptLogs(lambda: live, LIMIT)
    first = run_of(logs, "m1", "x" * 800)
    first.end()
    first.keep()
    for number in range(2, 5):
        run = run_of(logs, f"m{number}", "y" * 800)
        run.end()
        run.keep()
        assert live.of(f"m{number}") == []
    assert caplog.text.count("lines of attempts are not kept for now: too many lines wait for SQL") == 1
    live.drop(live.due(10))
    run = run_of(logs, "m5", "z" * 800)
    run.end()
    run.keep()
    assert len(live.of("m5")) == 1


def test_a_server_that_says_nothing_holds_a_job_up_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines of the ended attempts are there when it answers again. Those of the driver are no lines of a job."""
    soon(monkeypatch)
    port = free_port()
    with process(tmp_path / "redis", [f"port {port}"]) as server:
        wait_for_server(tmp_path / "redis", port)
        store = Store(f"redis://127.0.0.1:{port}/0", "p", patience=log_writer.PATIENCE)
        patient_store = LiveLogs(Store(f"redis://127.0.0.1:{port}/0", "p"))
        logs = AttemptLogs(lambda: LiveLogs(store), LIMIT)
        logs_of = [run_of(logs, "m0", "before")]
        wait_until(lambda: patient_store.of("m0"), 5)
        server.send_signal(signal.SIGSTOP)
        try:
            with at_most(0.5, slack=1.0):
                for number in range(10_000):
                    logger.info("%d", number)
            with at_most(3 * log_writer.PATIENCE, slack=1.0):
                logs_of[0].end()
                for number in range(1, 20):
                    logs_of.append(run_of(logs, f"m{number}", "meanwhile"))
                    logs_of[-1].end()
                    logs_of[-1].keep()
        finally:
            server.send_signal(signal.SIGCONT)
        for number in range(1, 20):
            (found,) = wait_until(lambda: patient_store.of(f"m{number}"), 20, f"m{number}")  # noqa: B023  # it waits here
            assert (said(found), found.ended) == (["meanwhile"], True)
        wait_until(lambda: patient_store.of("m0")[0].ended, 20)
        assert said(patient_store.of("m0")[0])[-1] == "9999"
    assert "a fault of the platform" not in caplog.text


def test_a_driver_that_logs_does_not_log_for_ever(
    logs: AttemptLogs, live: LiveLogs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged while lines are stored belongs to no run."""
    soon(monkeypatch)
    keep = LiveLogs.keep

    def talking(self: LiveLogs, *args: object, **options: object) -> object:
        logger.warning("the driver sends")
        return keep(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LiveLogs, "keep", talking)
    run = run_of(logs, "m", "one")
    wait_until(lambda: live.of("m"), 5)
    logger.info("two")
    wait_until(lambda: "two" in said(live.of("m")[0]), 5)
    run.end()
    assert said(live.of("m")[0]) == ["one", "two"]


def test_the_thread_sleeps_and_wakes(logs: AttemptLogs, live: LiveLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run it costs nothing."""
    soon(monkeypatch)
    run_of(logs, "m1", "one").end()
    wait_until(lambda: logs._sleeps, 10, "it sleeps")
    run = run_of(logs, "m2", "two")
    wait_until(lambda: live.of("m2"), 5, "it is awake")
    run.end()


def test_after_a_fork(logs: AttemptLogs, live: LiveLogs) -> None:
    """A process of a pool has a thread of its own."""
    run = run_of(logs, "parent", "one")
    wait_until(lambda: live.of("parent"), 5)
    child = os.fork()
    if not child:
        status = 1
        try:
            inner = run_of(logs, "child", "two")
            wait_until(lambda: live.of("child"), 5)
            inner.end()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (said(live.of("child")[0]), live.of("child")[0].ended) == (["two"], True)
    assert not live.of("parent")[0].ended
    run.end()
    assert live.of("parent")[0].ended


@pytest.mark.thorough
def test_a_silent_run_is_taken_for_ended(logs: AttemptLogs, live: LiveLogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that lives says so, also where it logs nothing."""
    monkeypatch.setattr(live_logs, "SILENT_AFTER", 0.6)
    monkeypatch.setattr(log_writer, "SAY_EVERY", 0.1)
    run = run_of(logs, "m", "one")
    wait_until(lambda: live.of("m"), 5)
    since = time.monotonic()
    while time.monotonic() - since < 1.0:
        assert live.due(10) == []
    logs._watched.clear()  # as if its process were killed
    (found,) = wait_until(lambda: live.due(10), 5)
    assert (found.ended, said(found)) == (False, ["one"])
    run.end()


def test_names_of_any_form(live: LiveLogs, logs: AttemptLogs, store: Store) -> None:
    """Of messages of other programs; and what is no name of ours is taken out."""
    for message_id in ("a:b:c", "0:1:t:m", "é 注文", "x" * 255):
        run = run_of(logs, message_id, "one")
        run.end()
        run.keep()
        assert [one.name for one in live.of(message_id)] == [run.name]
    store.redis.zadd(store.key("logs"), {"no name": 0, "a:b:c:d": 0})
    assert len(live.due(10)) == 4
    assert live.drop(live.due(10)) == 4
    assert left(store) == ["logs:bytes", "logs:changes"]
    assert store.redis.get(store.key("logs:bytes")) == b"0"
