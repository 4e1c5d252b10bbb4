"""Which run a line belongs to, and that the log of a process is what it was."""

import asyncio
import io
import logging
import os
import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from greenlet import greenlet  # type: ignore[import-untyped]

from conventions.attempt_log import run_log
from conventions.attempt_log.head_and_tail import read
from conventions.attempt_log.run_log import Collector, RunLog, RunName, attach, running

logger = logging.getLogger("shop.run_log")


class Kept:
    """Notes what is kept, and how."""

    def __init__(self, limit: int = 65536) -> None:
        self.limit = limit
        self.watched: list[RunLog] = []
        self.stored: list[RunLog] = []

    def watch(self, run: RunLog) -> None:
        self.watched.append(run)

    def forget(self, run: RunLog) -> None:
        self.watched.remove(run)

    def store(self, run: RunLog) -> None:
        self.stored.append(run)


def begin(keeper: Kept, name: str = "m") -> RunLog:
    """A run of this context."""
    run = RunLog(RunName(name, 0, 1, "t"), keeper)
    running.set(run)
    return run


def said(run: RunLog) -> list[str]:
    """The messages of a run that has some."""
    return [line.message for text in run.write().kept().values() for line in read(text.decode())]


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What the handlers of a team print, beside the collector."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    attach(logging.INFO)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    running.set(None)


def test_only_within_a_run(output: io.StringIO) -> None:
    """From the level on; nothing before it and after it."""
    keeper = Kept()
    logger.info("before")
    run = begin(keeper)
    logger.info("one %d", 1)
    logger.debug("below the level")
    assert keeper.watched == [run]
    run.end()
    logger.info("after")
    assert said(run) == ["one 1"]
    assert (keeper.watched, keeper.stored) == ([], [])
    run.keep()
    run.keep()
    assert keeper.stored == [run]


def test_a_run_without_lines_tells_nobody(output: io.StringIO) -> None:
    """However it ends."""
    keeper = Kept()
    run = begin(keeper)
    run.end()
    run.keep()
    assert (keeper.watched, keeper.stored) == ([], [])


def test_a_long_run_is_kept(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being asked."""
    monkeypatch.setattr(run_log, "LONG", 0.0)
    keeper = Kept()
    run = begin(keeper)
    logger.info("one")
    run.end()
    assert keeper.stored == [run]


def test_threads(output: io.StringIO) -> None:
    """Each has the run that began in it; a thread that a job starts has that job's only with its context."""
    keeper, found = Kept(), dict[int, RunLog]()
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        found[number] = begin(keeper)
        barrier.wait()
        logger.info("thread %d", number)
        context = copy_context()
        for target in (lambda: logger.info("lost"), lambda: context.run(logger.info, "inner of %d", number)):
            inner = threading.Thread(target=target)
            inner.start()
            inner.join()
        found[number].end()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: said(run) for number, run in found.items()} == {
        number: [f"thread {number}", f"inner of {number}"] for number in range(4)
    }


def test_greenlets(output: io.StringIO) -> None:
    """Each has its own, also where they take turns, as in the pools of gevent and eventlet."""
    keeper, found = Kept(), dict[str, RunLog]()
    main = greenlet.getcurrent()

    def work(name: str) -> None:
        found[name] = begin(keeper, name)
        for number in range(3):
            main.switch()
            logger.info("%s %d", name, number)
        found[name].end()

    one, two = greenlet(work), greenlet(work)
    one.switch("one")
    two.switch("two")
    while not (one.dead and two.dead):
        for each in (one, two):
            if not each.dead:
                each.switch()
        logger.info("nobody's")
    assert {name: said(run) for name, run in found.items()} == {
        name: [f"{name} {number}" for number in range(3)] for name in ("one", "two")
    }


def test_tasks_of_asyncio_have_it(output: io.StringIO) -> None:
    """And what outlives the run has it no more."""
    run = begin(Kept())

    async def late(go: asyncio.Event) -> None:
        logger.info("a task")
        await go.wait()
        logger.info("too late")

    async def work() -> None:
        go = asyncio.Event()
        task = asyncio.create_task(late(go))
        await asyncio.sleep(0)
        run.end()
        go.set()
        await task

    asyncio.run(work())
    assert said(run) == ["a task"]


def test_a_process_that_a_job_forks_has_no_run(output: io.StringIO) -> None:
    """Its lines are no lines of the job; and it takes no lock of the parent."""
    from conventions.attempt_log.log_writer import AttemptLogs

    def no_server() -> Any:
        raise AssertionError("nothing is stored")

    run = AttemptLogs(no_server, 65536).begin("m", 0, 1, "t")
    logger.info("parent")
    with run.lock:
        child = os.fork()
        if not child:
            try:
                logger.info("child")
                os._exit(0 if running.get() is None else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
    assert said(run) == ["parent"]


class Odd:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise LookupError("no text")


def test_a_line_that_cannot_be_read_ends_no_job(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other handlers say of it is their matter."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    run = begin(Kept())
    logger.info("%d", "text")
    logger.info(Odd())
    logger.info("fine")
    assert said(run) == [
        "<its text cannot be read: TypeError>",
        "<its text cannot be read: LookupError>",
        "fine",
    ]


def test_a_soft_limit_in_this_moment_ends_the_job(output: io.StringIO) -> None:
    """It is raised wherever the process is just then."""
    run = begin(Kept())

    class Limit:
        def __str__(self) -> str:
            raise SoftTimeLimitExceeded

    record = logging.makeLogRecord({"msg": Limit(), "levelno": logging.INFO})
    with pytest.raises(SoftTimeLimitExceeded):
        Collector().handle(record)
    run.end()


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_handlers_of_the_team_print_what_they_did(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch, ours_first: bool
) -> None:
    """Also of a traceback, which a formatter of theirs may write in its own way; before or after ours."""

    class Short(logging.Formatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
            return f"short: {ei[1]}"

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Short("%(message)s"))
    each = [Collector(), handler] if ours_first else [handler, Collector()]
    monkeypatch.setattr(logging.getLogger(), "handlers", each)  # pytest has some that keep the traceback, too
    run = begin(Kept())
    try:
        dict[str, int]()["no such thing"]
    except LookupError:
        logger.exception("it %s", "broke")
    assert stream.getvalue() == "it broke\nshort: 'no such thing'\n"
    (line,) = [line for text in run.write().kept().values() for line in read(text.decode())]
    assert line.exception is not None
    assert line.exception.startswith("Traceback (most recent call last):\n")
    assert line.exception.endswith("\nKeyError: 'no such thing'")


def test_where_nobody_has_set_up_a_log_nothing_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python prints warnings then, and stops where the root has a handler."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    attach(logging.INFO)
    assert root.handlers == []


def test_the_logger_of_tasks(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line comes once, whether that logger tells the root or has handlers of its own."""
    of_tasks = logging.getLogger("celery.task")
    for propagate, handlers in ((True, []), (True, [logging.NullHandler()]), (False, [logging.NullHandler()])):
        monkeypatch.setattr(of_tasks, "propagate", propagate)
        monkeypatch.setattr(of_tasks, "handlers", handlers)
        attach(logging.INFO)
        attach(logging.INFO)
        run = begin(Kept())
        logging.getLogger("celery.task.mine").warning("once")
        run.end()
        assert said(run) == ["once"], (propagate, handlers)


def test_a_job_that_logs_much_is_bounded_while_it_runs(output: io.StringIO) -> None:
    """In lines that wait, in their length, and in what is kept of them."""
    run = begin(Kept(limit=10_000))
    for number in range(2000):
        logger.info("%d %s", number, "y" * 100)
    logger.info("z" * 10**6)
    waiting = run._waiting
    assert waiting is not None
    assert len(waiting) < run_log.AT_ONCE
    assert max(len(one.message) for one in waiting) < 2 * run_log.MOST_WAITING
    lines = run.write()
    assert lines.count == 2001
    assert sum(map(len, lines.kept().values())) <= 10_000
