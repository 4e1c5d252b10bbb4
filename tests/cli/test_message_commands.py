"""`celery messages`: what it says, and Ctrl-C while it changes many."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from types import FrameType
from typing import TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from conventions.broker.waiting_messages import Waiting
from conventions.cli.messages import messages
from conventions.cli.stopping import stop_between_steps
from conventions.execution.waiting_ends import WaitingEnds
from tests.cli.command_tasks import Send

Run: TypeAlias = Callable[..., Result]


def send(*days: int, countdown: float = 0) -> list[str]:
    """Send some mails; returns their ids."""
    return [Send.apply_async(kwargs={"user_id": 7, "day": date(2026, 1, day)}, countdown=countdown).id for day in days]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Somebody presses Ctrl-C while the first step is at work."""
    end, before = WaitingEnds.end, signal.getsignal(signal.SIGINT)

    def presses(ends: WaitingEnds, found: Sequence[Waiting]) -> list[bool]:
        signal.raise_signal(signal.SIGINT)
        return end(ends, found)

    monkeypatch.setattr(WaitingEnds, "end", presses)
    yield
    assert signal.getsignal(signal.SIGINT) == before, "another command is ended as ever"


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_in_a_cancel(run: Run, commands_app: ConventionsApp, as_json: bool) -> None:
    """It says how many are done, and what does the rest."""
    send(1, countdown=3600)
    send(2, 3)
    done = run(messages, "cancel", "--task", "Send", "--reason", "x", "--yes", *(["--json"] if as_json else []))
    assert (done.exit_code, done.stderr) == (1, "stopped before its end: the same command does the rest\n")
    if as_json:
        assert json.loads(done.stdout) == {"done": 1, "queues": {"mail": 1}, "by_workers": 0, "left": None}
    else:
        assert done.stdout == "1 message is cancelled\n"
    assert commands_app.broker.sizes("mail") == Sizes(2, 0, 0)


def test_the_second_ctrl_c_ends_it_at_once() -> None:
    """And a signal afterwards is nobody's here."""
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGINT, hear)
    try:
        with stop_between_steps() as stops:
            assert not stops()
            signal.raise_signal(signal.SIGINT)
            assert (stops(), heard) == (True, [])
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT] * 2
    finally:
        signal.signal(signal.SIGINT, before)
