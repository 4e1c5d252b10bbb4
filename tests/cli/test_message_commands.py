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
from conventions.broker.redis_broker import HeldMessage, Sizes
from conventions.broker.waiting_messages import Waiting
from conventions.cli.ctrl_c import stop_between_steps
from conventions.cli.jobs import jobs
from conventions.cli.messages import messages
from conventions.execution.end_waiting import WaitingEnds
from conventions.jobs.job import Job
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
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


def test_the_states_are_those_of_a_job(run: Run, commands_app: ConventionsApp) -> None:
    """Also of what only the pause of its task holds back; what is not due waits for its time all the same."""
    (held,) = send(1)
    (delivery,) = commands_app.broker.reserve(["mail"], 1)
    one = HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt)
    commands_app.broker.hold_back([one], task=str(Send.name), period=0.0, why="paused")
    (later,), (ready,) = send(2, countdown=3600), send(3)
    expected = {held: "queued", later: "delayed", ready: "queued"}
    listed = json.loads(run(messages, "list", "--json").stdout)
    assert {row["id"]: row["state"] for row in listed} == expected
    shown = json.loads(run(jobs, "list", "--json").stdout)["lines"]
    assert {row["id"]: row["state"] for row in shown} == expected
    assert {one: Job.of(one).state for one in expected} == expected
    queued = json.loads(run(jobs, "list", "--state", "queued", "--json").stdout)["lines"]
    assert {row["id"] for row in queued} == {held, ready}
    delayed = json.loads(run(jobs, "list", "--state", "delayed", "--json").stdout)["lines"]
    assert {row["id"] for row in delayed} == {later}


def test_counts_as_json(run: Run, commands_app: ConventionsApp) -> None:
    """What is with workers is said beside it."""
    send(1, 2, 3)
    commands_app.broker.reserve(["mail"], 1)
    done = run(messages, "count", "--json")
    assert json.loads(done.stdout) == [{"queue": "mail", "task": Send.name, "messages": 2}]
    assert "1 more of these queues are with workers" in done.stderr
    assert json.loads(run(messages, "count", "--queue", "immediate", "--json").stdout) == []


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


@pytest.mark.parametrize(
    ("is_paused", "said"),
    [
        (False, "no worker consumes the queue immediate: what is moved there waits until one does\n"),
        (True, "the queue immediate is paused: what is moved there waits until it is resumed\n"),
    ],
)
def test_a_move_to_where_nobody_takes_them(run: Run, commands_app: ConventionsApp, is_paused: bool, said: str) -> None:
    """Is warned of, and done. Nothing is said where nothing moves."""
    if is_paused:
        PauseActions(commands_app.store).pause(Target("queue", "immediate"), "u", "x", None)
    send(1)
    done = run(messages, "move", "--task", "Send", "--to", "immediate", "--reason", "x", "--yes")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "1 message is moved to immediate\n", said)
    none = run(messages, "move", "--task", "Send", "--to", "immediate", "--reason", "x", "--yes")
    assert (none.exit_code, none.stderr) == (1, "no message that waits matches\n")


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
