"""`celery pause` and `resume`: which name means what. What workers do then is tested with real ones, in `integration/test_pauses.py`."""

from collections.abc import Callable
from typing import TypeAlias

import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.pause import pause
from conventions.cli.resume import resume
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Kind, Pauses, Target
from tests.cli.command_tasks import Charge, Send

Run: TypeAlias = Callable[..., Result]


def paused(app: ConventionsApp) -> set[Target]:
    """What is paused."""
    return {*Pauses(app.store).read().pauses}


def nothing() -> None:
    """A function of plain Celery."""


@pytest.mark.parametrize("name", ["Charge", "command_tasks.Charge", "old.charge", "charge", str(Charge.name)])
def test_a_short_name_of_a_task(run: Run, commands_app: ConventionsApp, name: str) -> None:
    """Its last parts, or those of an alias, mean the task, when it is paused and when it is resumed."""
    done = run(pause, "task", name, "--reason", "x")
    assert (done.exit_code, f"task {Charge.name} is paused: x" in done.output) == (0, True), done.output
    assert paused(commands_app) == {Target("task", str(Charge.name))}
    done = run(resume, "task", name)
    assert (done.exit_code, f"task {Charge.name} runs again" in done.output) == (0, True), done.output
    assert paused(commands_app) == set()


def test_a_short_name_of_several_tasks(run: Run, commands_app: ConventionsApp) -> None:
    """They are named, and nothing is changed. A whole name that is also the end of another means itself."""
    commands_app.task(name="elsewhere.Send", lazy=False)(nothing)
    PauseActions(commands_app.store).pause(Target("task", str(Send.name)), "u", "x")
    for done in (run(pause, "task", "Send", "--reason", "x"), run(resume, "task", "Send")):
        assert done.exit_code == 2
        said = f"several tasks are called Send: elsewhere.Send, {Send.name}; name one in full"
        assert said in " ".join(done.output.replace("│", " ").split())
    assert paused(commands_app) == {Target("task", str(Send.name))}
    commands_app.task(name="Send", lazy=False)(nothing)
    assert run(pause, "task", "Send", "--reason", "x").exit_code == 0
    assert paused(commands_app) == {Target("task", str(Send.name)), Target("task", "Send")}


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [("queue", "mial", "mail"), ("task", "Sned", str(Send.name)), ("worker", "nobody@h", "")],
)
def test_a_name_that_there_is_not(run: Run, commands_app: ConventionsApp, kind: Kind, name: str, near: str) -> None:
    """It is said so, also when somebody resumes it, with what may be meant."""
    question = f" (did you mean {near}?)" if near else ""
    for done in (run(pause, kind, name, "--reason", "x"), run(resume, kind, name)):
        assert done.exit_code == 2
        assert f"there is no {kind} {name}{question}; there are: " in " ".join(done.output.replace("│", " ").split())
    assert paused(commands_app) == set()


def test_what_is_not_paused_and_what_is_gone(run: Run, commands_app: ConventionsApp) -> None:
    """A queue that exists is said to be not paused; a pause of one that exists no more can be ended."""
    done = run(resume, "queue", "mail")
    assert (done.exit_code, done.stderr) == (1, "queue mail is not paused\n")
    PauseActions(commands_app.store).pause(Target("queue", "gone"), "u", "x")
    assert run(resume, "queue", "gone").exit_code == 0
    assert paused(commands_app) == set()
