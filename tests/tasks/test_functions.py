"""What `@app.task` and `@shared_task` make of a function in an application of ours."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, shared_task

from conventions import ImmediateTask, create_app
from conventions.app import ConventionsApp
from conventions.core.errors import DeclarationError
from conventions.tasks.functions import OURS, functions_of
from conventions.tasks.plain_task import PlainTask
from tests.workers import close, forget_applications, remembering_current

FUNCTION_REQUEST = "conventions.worker.function_request:FunctionRequest"


def add(x: int, y: int = 1) -> int:
    """Add two numbers."""
    return x + y


def untyped(x):  # type: ignore[no-untyped-def]  # that is the point
    """Do something."""
    return x


def of_plain(x: int) -> int:
    """Do something, in a plain application."""
    return x


def name() -> str:
    """A name that no other task has."""
    return f"f-{uuid4().hex[:8]}"


@pytest.fixture
def chosen() -> Iterator[ConventionsApp]:
    """An application that makes jobs of the functions in this module."""
    with remembering_current():
        forget_applications()
        app = create_app(
            "chosen", packages=[__name__], schedule=None, broker_url="redis://127.0.0.1:1", functions="conventions"
        )
        yield app
        close(app)


def test_a_function_has_celerys_defaults(app: ConventionsApp) -> None:
    """Those of the configuration, which its author may change, as in plain Celery; Celery's own tasks come again like ours."""
    plain: Any = Celery("plain", set_as_current=False)
    names = [config for _, config in plain.Task.from_config if config != "task_default_priority"]
    assert {one: app.conf[one] for one in names} == {one: plain.conf[one] for one in names}
    function = app.task(add, name=name())
    assert (function.acks_late, function.ignore_result, function.max_retries) == (False, False, 3)
    assert function.Request == FUNCTION_REQUEST
    own = app.tasks["celery.starmap"]
    assert (own.acks_late, own.reject_on_worker_lost, own.Request) == (
        True,
        True,
        "conventions.worker.request:PlainRequest",
    )


def test_our_tasks_do_not_ask_celerys_configuration() -> None:
    """A team that keeps Celery's settings for its functions changes no promise."""
    with remembering_current():
        forget_applications()
        app = create_app("other", packages=[], schedule=None, broker_url="redis://127.0.0.1:1")
        app.conf.update(task_acks_late=False, task_reject_on_worker_lost=False, task_ignore_result=False)

        class Job(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"

            def run(self) -> None: ...

        task = app.tasks[Job.name]
        assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)
        app.conf.task_acks_late = True
        assert app.task(add, name=name()).acks_late
        close(app)


@pytest.mark.parametrize("option", OURS)
def test_options_of_ours_are_refused_on_a_function(app: ConventionsApp, option: str) -> None:
    """They would have no effect."""
    with pytest.raises(DeclarationError, match=f"{option} has no effect on a function, .* write @app.job"):
        app.task(add, name=name(), **{option: None}).delay(1)


def test_functions_may_be_jobs_by_choice(chosen: ConventionsApp) -> None:
    """Those in the packages, by whichever decorator, with what they say; others stay Celery's."""
    declared = chosen.task(add, name=name(), queue_name="mail", idempotent_on=("x",))
    shared = name()
    shared_task(add, name=shared)
    elsewhere = FunctionType(add.__code__, add.__globals__, "elsewhere")
    elsewhere.__module__ = "library.tasks"
    foreign = chosen.task(elsewhere)
    assert isinstance(chosen.tasks[declared.name], ImmediateTask)
    assert (declared.queue_name, declared.idempotent_on) == ("mail", ("x",))
    assert isinstance(chosen.tasks[shared], ImmediateTask)
    assert "says nothing of running twice" in str(chosen.tasks[shared].not_idempotent)
    assert declared(2) == chosen.tasks[shared](1, 2) == 3
    assert type(chosen.tasks[foreign.name]).mro()[2] is PlainTask
    assert functions_of(chosen) == [foreign.name]


def test_functions_of_another_application_stay_its_own(chosen: ConventionsApp) -> None:
    """Celery registers them here, too; they become no jobs, are not listed, and ours are not registered there."""
    with Celery("plain", set_as_current=False, broker="redis://127.0.0.1:1") as plain:
        theirs = plain.task(of_plain, name=name(), autoretry_for=(KeyError,))
        ours = chosen.task(add, name=name())
        assert ours.name not in plain.tasks
        assert theirs.app is plain
        assert isinstance(chosen.tasks[theirs.name], PlainTask)
        assert functions_of(chosen) == []
        close(plain)


def test_a_function_that_cannot_be_a_job_says_why(chosen: ConventionsApp) -> None:
    """What Celery's options would mean, and what is missing."""
    for function, options, fault in (
        (add, {"autoretry_for": (KeyError,)}, "autoretry_for is not used here: write retry_policy"),
        (add, {"acks_late": True}, "acks_late is not used here"),
        (untyped, {}, "argument 'x' has no type"),
    ):
        with pytest.raises(DeclarationError, match=fault):
            chosen.task(function, name=name(), lazy=False, **options)


def test_a_base_of_ones_own_keeps_celerys_meaning(chosen: ConventionsApp) -> None:
    """Its author has written how its jobs run."""

    class Own(PlainTask):
        abstract = True

    task: Any = chosen.task(add, name=name(), base=Own)
    assert isinstance(chosen.tasks[task.name], Own)
    assert functions_of(chosen) == [task.name]


def test_there_are_two_kinds() -> None:
    """A misspelt one is refused at once."""
    with pytest.raises(ValueError, match="functions is 'celery' or 'conventions', not 'convention'"):
        create_app("other", functions="convention")  # type: ignore[arg-type]  # that is the point
