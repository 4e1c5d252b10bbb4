"""`@app.job`: a function that is a job, as a class with this function as `run` would be."""

import pickle
from collections.abc import Callable
from datetime import date
from functools import partial
from types import FunctionType
from typing import Any
from uuid import uuid4

import pytest
from celery import chain

from conventions import (
    EVERY_ARGUMENT,
    BatchTask,
    ImmediateTask,
    LongRunningTask,
    PayloadError,
    Schedule,
    create_app,
    every,
)
from conventions.app import ConventionsApp
from conventions.core.errors import DeclarationError
from tests.workers import close, messages, remembering_current


def name() -> str:
    """A name that no other task has."""
    return f"job-{uuid4().hex[:8]}"


def remind(user_id: int, day: date, note: str = "") -> str:
    """Remind one user."""
    return f"{user_id} {day:%d.%m.} {note}"


def numbered(self: Any, number: int) -> list[Any]:
    """Tell the task and the number."""
    return [self.name, number]


def test_it_sends_what_a_class_sends(app: ConventionsApp) -> None:
    """The same message, by each way to send, with the arguments of the function."""

    class Remind(ImmediateTask):
        """Remind one user."""

        queue_name = "mail"
        idempotent_on = ("user_id", "day")

        def run(self, user_id: int, day: date, note: str = "") -> str:
            return remind(user_id, day, note)

    job = app.job(queue="mail", idempotent_on=("user_id", "day"), name=name())(remind)
    for task in (Remind, job):
        task.delay(7, date(2026, 1, 31))
        task.enqueue_many([{"user_id": 8, "day": "2026-02-01", "note": "x"}])
        chain(task.si(9, date(2026, 2, 2))).apply_async()
    sent = messages(app)
    of_class, of_job = (
        sorted(
            (one.queue, one.priority, sorted(one.arguments.items()), one.headers["x_fingerprint"])
            for one in sent
            if one.task == task.name
        )
        for task in (Remind, job)
    )
    assert of_class == of_job
    assert len(of_job) == 3


def test_it_is_called_as_the_function_is(app: ConventionsApp) -> None:
    """With the checks of the arguments; `run` has none."""
    job = app.job(idempotent_on=EVERY_ARGUMENT, name=name())(remind)
    assert job(7, date(2026, 1, 31), note="now") == "7 31.01. now"
    assert job.run(7, date(2026, 1, 31)) == "7 31.01. "
    with pytest.raises(PayloadError, match="'day'"):
        job(7, "tomorrow")  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match="'user_id'"):
        job.delay("x", date(2026, 1, 31))  # type: ignore[arg-type]


def test_a_bound_one_gets_the_task(app: ConventionsApp) -> None:
    """As `self`, which is none of its arguments."""
    job = app.job(bind=True, not_idempotent="a test", name=name())(numbered)
    assert job(3) == [job.name, 3]
    assert job.arguments.names == ("number",)
    with pytest.raises(DeclarationError, match=r"numbered: it takes self: write @app.job\(bind=True\)"):
        app.job(not_idempotent="a test", name=name())(numbered)


def test_what_a_class_may_say_it_may_say(app: ConventionsApp) -> None:
    """Its base, its limits, its old names."""
    job = app.job(base=LongRunningTask, stall_after=3.0, aliases=("old",), idempotent_on=EVERY_ARGUMENT, name=name())(
        remind
    )
    assert (job.stalls_after, job.aliases, job.queue_name) == (3.0, ("old",), "long")


def test_its_name_is_that_of_celery(app: ConventionsApp) -> None:
    """So that a function may be moved while its messages wait."""
    job = app.job(idempotent_on=EVERY_ARGUMENT)(remind)
    assert job.name == app.gen_task_name("remind", __name__) == f"{__name__}.remind"


def test_without_options_it_says_what_is_missing(app: ConventionsApp) -> None:
    """As a class does."""
    with pytest.raises(DeclarationError, match="remind: say what makes two messages the same job"):
        app.job(remind)


async def waits(number: int) -> None:
    """Wait."""


def untyped(number) -> None:  # type: ignore[no-untyped-def]  # that is the point
    """Do something."""


def silent(number: int) -> None: ...


class Concrete(ImmediateTask):
    """Do something."""

    not_idempotent = "a test"

    def run(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "fault"),
    [
        (waits, {}, "waits must be a plain function; write def waits"),
        (untyped, {}, "argument 'number' has no type"),
        (silent, {}, "a task says its effect in a docstring"),
        (remind, {"max_retries": 3}, "max_retries is not used here: write retry_policy"),
        (remind, {"idempotent_one": ("user_id",)}, "there is no option idempotent_one; write idempotent_on"),
        (remind, {"run": 3}, "@app.job takes no run"),
        (remind, {"base": Concrete}, "base is ImmediateTask"),
        (remind, {"base": BatchTask}, "base is ImmediateTask"),
        (remind, {"base": int}, "base is ImmediateTask"),
        (remind, {"queue": "a", "queue_name": "b"}, "queue and queue_name are the same"),
        (lambda: None, {"bind": True}, "with bind=True its first parameter is the task"),
        (partial(remind, 1), {}, "is for a function, written with def"),
        (print, {}, "is for a function, written with def"),
        (Concrete, {}, "is for a function, written with def"),
    ],
)
def test_what_cannot_work_is_refused(
    app: ConventionsApp, function: Callable[..., Any], options: dict[str, Any], fault: str
) -> None:
    """At the declaration, with what to write."""
    with pytest.raises(DeclarationError, match=fault):
        app.job(**{"not_idempotent": "a test", "name": name()} | options)(function)


def test_it_belongs_to_the_application_that_declares_it(app: ConventionsApp) -> None:
    """Whatever the packages are."""
    with remembering_current():
        other = create_app("other", packages=[__name__], schedule=None, broker_url="redis://127.0.0.1:1")
        for one, not_one in ((app, other), (other, app)):
            job = one.job(idempotent_on=EVERY_ARGUMENT, name=name())(remind)
            assert job.app is one
            assert job.name in one.tasks
            assert job.name not in not_one.tasks
        close(other)


def test_it_may_be_scheduled_and_pickled(app: ConventionsApp) -> None:
    """As a class may."""
    job = app.job(idempotent_on=EVERY_ARGUMENT, name=name())(remind)
    entry = Schedule("often", every(60), job, {"user_id": 1, "day": date(2026, 1, 1)})
    assert entry.task.name == job.name
    assert isinstance(entry.task, type)
    assert pickle.loads(pickle.dumps(job)).name == job.name  # written here


def test_a_program_may_be_a_module_of_tasks_too(app: ConventionsApp) -> None:
    """As `python tasks.py`, whose worker imports `tasks`."""
    own = name()
    app.job(idempotent_on=EVERY_ARGUMENT, name=own)(remind)
    program = FunctionType(remind.__code__, remind.__globals__, "remind", remind.__defaults__)
    program.__module__, program.__doc__, program.__annotations__ = "__main__", remind.__doc__, remind.__annotations__
    assert app.job(idempotent_on=EVERY_ARGUMENT, name=own)(program).name == own
