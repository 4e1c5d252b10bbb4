"""`SoftLimit`: the signal of a soft time limit ends a job's own code, and nothing after it (protocol 4)."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from celery._state import _task_stack

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.execution.soft_time_limit import SoftLimit


class Never(ImmediateTask):
    """Never sent."""

    not_idempotent = "it does nothing"

    def run(self) -> None:
        """Do nothing."""


def passes() -> None:
    """A soft limit passes now."""
    signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def limit() -> Iterator[SoftLimit]:
    """In a process of a pool."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    limit = SoftLimit()
    limit.install()
    yield limit
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def task(app: ConventionsApp) -> Iterator[Any]:
    """A task that runs."""
    task = app.tasks[Never.name]
    _task_stack.push(task)
    task.push_request(id="1")
    yield task
    task.pop_request()
    _task_stack.pop()


def test_it_ends_a_job(limit: SoftLimit, task: Any) -> None:
    """Also the one after a job that is over."""
    for over in (None, object()):
        limit.over = over
        with pytest.raises(SoftTimeLimitExceeded):
            passes()


def test_it_ends_nothing_after_the_code_of_the_job(limit: SoftLimit, task: Any) -> None:
    """Neither while its outcome is recorded, nor before the next one runs."""
    limit.over = task.request
    passes()
    _task_stack.pop()
    passes()
    _task_stack.push(task)


def test_it_ends_nothing_in_the_moment_in_which_the_code_has_ended(limit: SoftLimit, task: Any) -> None:
    """The function that calls it has not said so yet; what it calls is ended."""

    def calls(inner: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)
        inner()

    with pytest.raises(SoftTimeLimitExceeded):
        calls(lambda: None)
    limit.ends_in(calls.__code__)
    calls(lambda: None)
    with pytest.raises(SoftTimeLimitExceeded):
        calls(passes)


def test_another_handler_stays(limit: SoftLimit) -> None:
    """Of a program that is no pool."""
    mine = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    SoftLimit().install()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, mine)
