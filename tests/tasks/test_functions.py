"""What `@app.task` and `@shared_task` make of a function in an application of ours."""

from collections.abc import Iterator
from types import FunctionType
from typing import Any
from uuid import uuid4

import celery
import pytest
from celery import Celery, shared_task
from kombu.entity import Queue

from conventions import ImmediateTask, PayloadError, Schedule, create_app, every
from conventions.app import ConventionsApp
from conventions.core.errors import DeclarationError
from conventions.library_internals.celery import functions_of_applications, running_tasks
from conventions.tasks.functions import OURS, functions_of
from conventions.tasks.plain_task import PlainTask
from tests.workers import close, forget_applications, messages, remembering_current

OLD = Queue("old")  # type: ignore[no-untyped-call]  # kombu has few types
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


def test_celerys_settings_are_for_functions() -> None:
    """What a team has set for all its functions changes no job, and not its queue."""
    with remembering_current():
        forget_applications()
        app = create_app("other", packages=[], schedule=None, broker_url="redis://127.0.0.1:1")
        app.conf.update(
            task_time_limit=7,
            task_soft_time_limit=6,
            task_default_rate_limit="1/m",
            task_serializer="pickle",
            task_track_started=True,
            task_routes={"*": {"queue": "elsewhere"}},
        )

        class Job(ImmediateTask):
            """Do something."""

            not_idempotent = "a test"
            queue_name = "mail"

            def run(self) -> None: ...

        app.conf.task_annotations = {"*": {"acks_late": False, "time_limit": 1}, Job.name: {"rate_limit": "5/s"}}
        task, function = app.tasks[Job.name], app.task(add, name=name())
        assert (task.time_limit, task.soft_time_limit, task.serializer, task.acks_late) == (90, 60, "json", True)
        assert (task.rate_limit, task.track_started) == ("5/s", True)
        assert (function.time_limit, function.rate_limit, function.serializer) == (1, "1/m", "pickle")
        assert app.amqp.router.route({}, Job.name)["queue"].name == "mail"
        assert app.amqp.router.route({}, function.name)["queue"].name == "elsewhere"
        close(app)


@pytest.mark.parametrize("settings", [{"task_default_queue": "old"}, {"task_queues": [OLD]}])
def test_a_worker_consumes_what_plain_celery_would(settings: dict[str, Any]) -> None:
    """Beside our queues, also where Celery is to make no others."""
    with remembering_current():
        forget_applications()
        app = create_app("other", packages=[], schedule=None, broker_url="redis://127.0.0.1:1")
        app.conf.update(task_create_missing_queues=False, **settings)
        app.load_tasks()
        assert set(app.amqp.queues.consume_from) >= {"immediate", "scheduled", "long", "old"}
        close(app)


def test_a_base_of_celery_is_held_as_ours() -> None:
    """However its task is registered: a worker that stops would give back what runs."""

    class Base(celery.Task):
        abstract = True

    class Registered(celery.Task):
        name = name()

        def run(self) -> None: ...

    with remembering_current():
        forget_applications()
        app = create_app("other", packages=[], schedule=None, broker_url="redis://127.0.0.1:1")
        registered = app.register_task(Registered())
        based = app.task(add, name=name(), base=Base)
        for task in (registered, app.tasks[based.name]):
            assert (task.Request, task.Strategy) == (FUNCTION_REQUEST, "conventions.worker.strategy:strategy")
        assert Registered.Request == celery.Task.Request  # which another application may have
        with pytest.raises(DeclarationError, match="idempotent_on has no effect on a function"):
            app.task(add, base=Base, idempotent_on=("x",))
        own = app.task(add, name="celery.mine", lazy=False)
        assert (own.Request, own.acks_late) == (FUNCTION_REQUEST, False)
        close(app)


def test_what_no_worker_takes_is_refused_at_the_send(app: ConventionsApp) -> None:
    """Its sender would wait for ever."""
    function = app.task(add, name=name())
    with pytest.raises(PayloadError, match="half a character"):
        function.delay("\ud800")
    app.conf.task_compression = "gzip"
    with pytest.raises(TypeError, match="compress"):
        function.delay(1)


def test_a_function_may_pass_on_the_headers_of_its_message(app: ConventionsApp) -> None:
    """As Celery's `request.headers` has them; another value of ours is refused."""
    function = app.task(add, name=name())
    own = {"x_actor": "anna", "trace": "7"}
    function.push_request(id="1", headers=own)
    running_tasks.push(function)
    try:
        function.apply_async((1,), headers=own, task_id="2")
        with pytest.raises(TypeError, match="x_actor is the platform's own"):
            function.apply_async((1,), headers={"x_actor": "berta"})
    finally:
        running_tasks.pop()
        function.pop_request()
    (sent,) = messages(app)
    assert sent.headers["trace"] == "7"


def test_the_functions_of_others_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be thousands, and each of ours asks."""
    functions_of_applications()
    looked: list[Any] = []
    monkeypatch.setattr("inspect.getclosurevars", looked.append)
    functions_of_applications()
    assert looked == []


@pytest.mark.parametrize("option", OURS)
def test_options_of_ours_are_refused_on_a_function(app: ConventionsApp, option: str) -> None:
    """They would have no effect."""
    with pytest.raises(DeclarationError, match=f"add: {option} has no effect on a function, .* write @app.job"):
        app.task(add, name=name(), **{option: None})
    with pytest.raises(DeclarationError, match=f"{option} has no effect"):
        app.task(name=name(), **{option: None})(add)


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
    told = chosen.task(elsewhere, name=name(), shared=True)  # its own all the same
    assert functions_of(chosen) == sorted([foreign.name, told.name])
    assert Schedule("often", every(60), declared, {"x": 1}).task.name == declared.name


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
            chosen.task(function, name=name(), **options)


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
