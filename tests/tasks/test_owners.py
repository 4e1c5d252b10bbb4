"""Which application a task class belongs to, and that a plain one beside ours is as without us."""

import inspect
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeAlias
from uuid import uuid4
from weakref import WeakSet

import pytest
from celery import Celery, _state, current_app, group, shared_task

from conventions import ImmediateTask, create_app
from conventions.app import ConventionsApp, TaskLoader
from conventions.core.errors import DeclarationError
from conventions.tasks.owners import owners
from tests.workers import close, remembering_current

Make: TypeAlias = Callable[..., Any]


def nothing() -> None:
    """Do nothing."""


MODULES = set[str]()  # which tests have made


@pytest.fixture(autouse=True)
def _no_module_stays() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in MODULES.intersection(set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes applications, which are closed after the test. Those that other tests have left are not there meanwhile."""
    monkeypatch.setattr("conventions.tasks.owners._owners", [])
    monkeypatch.setattr(_state, "_apps", WeakSet())
    with ExitStack() as stack, remembering_current():
        _state.set_default_app(None)  # an application of a whole session may be it
        _state._set_current_app(None)

        def make(kind: Any, *args: Any, **options: Any) -> Any:
            if kind is create_app:
                options = {"schedule": None, "broker_url": f"unix://{tmp_path}/nobody.sock"} | options
            app = kind(*args, **options)
            stack.callback(close, app)
            return app

        yield make


def declared(module: str, **attributes: Any) -> Any:
    """A new task class in this module."""

    def run(self: Any, number: int) -> int:  # a task's
        return number + 1

    own = {
        "__module__": module,
        "__qualname__": f"T{uuid4().hex[:8]}",
        "__doc__": "Adds one.",
        "not_idempotent": "a test",
        "run": run,
    }
    MODULES.add(module)
    sys.modules.setdefault(module, ModuleType(module))
    return type(str(own["__qualname__"]), (ImmediateTask,), own | attributes)


@pytest.mark.parametrize("declared_first", [True, False])
def test_a_class_belongs_to_the_application_whose_packages_hold_it(make: Make, declared_first: bool) -> None:
    """Whichever is current, and whichever was made first."""
    before = declared("shop.jobs.mail") if declared_first else None
    shop = make(create_app, "shop", packages=["shop.jobs"])
    bank = make(create_app, "bank", packages=["shop.job", "bank"], set_as_current=True)
    task = before or declared("shop.jobs.mail")
    assert task.registered.app is shop
    assert task.name in shop.tasks
    assert task.name not in bank.tasks


def test_a_class_may_name_its_application(make: Make) -> None:
    """On itself, or on a base of it."""
    shop, bank = make(create_app, "shop", packages=["shop"]), make(create_app, "bank", packages=["bank"])
    for application, other in ((shop, bank), (bank, shop)):
        task = declared("elsewhere", app=application)
        assert task.registered.app is application
        assert task.name not in other.tasks
        assert declared("shop", app=bank).registered.app is shop  # the packages say it first


def test_only_one_of_ours_may_be_named(make: Make) -> None:
    """A plain one runs no task of ours."""
    plain = make(Celery, "plain", set_as_current=False)
    with pytest.raises(DeclarationError, match="app must be an application that create_app has made"):
        declared("elsewhere", app=plain)


def test_a_class_of_no_package_belongs_to_the_only_application(make: Make) -> None:
    """Also beside a plain one that is current."""
    make(Celery, "plain")
    ours = make(create_app, "shop", packages=["shop"])
    assert declared("elsewhere").registered.app is ours


def test_a_class_of_no_package_is_refused_where_there_are_several(make: Make) -> None:
    """Whichever is current, the first send says what to write; a call needs no application."""
    for name in ("shop", "bank"):
        make(create_app, name, packages=[name], set_as_current=True)
    task = declared("elsewhere")
    with pytest.raises(
        RuntimeError,
        match=r"belongs to none of the applications of this process \(bank, shop\): add its module elsewhere",
    ):
        task.delay(number=1)


@pytest.mark.parametrize("current", ["shop", "bank"])
def test_a_class_of_two_packages_is_sent_through_the_current_one(make: Make, current: str) -> None:
    """As in a worker of each."""
    made = {name: make(create_app, name, packages=["common"], set_as_current=True) for name in ("shop", "bank")}
    task = declared("common.mail")
    made[current].set_current()
    assert task.registered.app is made[current]
    assert all(task.name in application.tasks for application in made.values())


def test_a_closed_application_owns_nothing(make: Make) -> None:
    """The next one does."""
    first = make(create_app, "first", packages=[])
    task = declared("elsewhere")
    first.close()
    assert first not in owners()
    second = make(create_app, "second", packages=[])
    assert task.registered.app is second


def test_without_an_application_a_class_can_be_called_and_not_sent(make: Make) -> None:  # none is made
    """As in a unit test of a team."""
    task = declared("elsewhere")
    assert task.registered(3) == 4
    with pytest.raises(RuntimeError, match="there is no application"):
        task.delay(number=3)


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("in_thread", [True, False])
def test_functions_of_a_plain_application_stay_its_own(make: Make, ours_first: bool, in_thread: bool) -> None:
    """What `@shared_task` gives goes where it would go without us."""
    kinds: list[tuple[Any, ...]] = [(create_app, "ours"), (Celery, "plain")]
    made = {args[0]: make(kind, *args) for kind, *args in (kinds if ours_first else reversed(kinds))}

    @shared_task(name=f"f{uuid4().hex[:8]}")
    def function() -> None:
        """Do nothing."""

    found: list[Any] = []

    def look() -> None:
        application = current_app.main
        found.append((application, function.app.main if application == "plain" else None))

    if in_thread:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        made["plain"].set_default()  # as a plain application must for its threads
        assert found.pop()[0] != "ours"
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    else:
        look()
    assert found == [("plain", "plain")]
    task = declared("elsewhere")
    assert task.registered.app is made["ours"]
    assert task.name not in made["plain"].tasks


def in_thread() -> str:
    """The current application of a thread that has none of its own."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(current_app.main))
    thread.start()
    thread.join()
    return found[0]


def test_it_is_current_where_there_is_no_other(make: Make) -> None:
    """In each thread, until there is one; what takes no place is none, and what was told stays."""
    make(create_app, "ours")
    assert current_app.main == in_thread() == "ours"
    make(create_app, "second")
    make(Celery, "helper", set_as_current=False)
    assert current_app.main == in_thread() == "ours"
    plain = make(Celery, "plain")
    assert (current_app.main, in_thread()) == ("plain", "default")  # as without us
    plain.set_default()
    assert current_app.main == in_thread() == "plain"
    make(create_app, "told", set_as_current=True)
    assert current_app.main == in_thread() == "told"


def test_a_place_that_another_application_is_given_is_its_own(make: Make) -> None:
    """By its team, later than it is made."""
    make(create_app, "ours")
    plain = make(Celery, "plain", set_as_current=False)
    plain.set_default()
    assert current_app.main == in_thread() == "plain"


def test_a_place_that_ours_is_given_is_its_own(make: Make) -> None:
    """By its team, or by Celery's worker: a job may make another application."""
    make(create_app, "ours").set_default()
    make(Celery, "legacy", set_as_current=False)
    make(Celery, "plain")
    assert (current_app.main, in_thread()) == ("plain", "ours")


@pytest.mark.parametrize("options", [{"fixups": []}, {}])
def test_it_takes_nobodys_place(make: Make, options: dict[str, Any]) -> None:
    """However the other one is made."""
    plain = make(Celery, "plain", **options)
    make(create_app, "ours")
    assert (current_app.main, in_thread()) == ("plain", "default")
    plain.set_default()
    make(create_app, "second")
    assert in_thread() == "plain"


def test_where_there_is_django_the_first_other_application_takes_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Celery's support of Django has it, without us."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nobody.settings")
    monkeypatch.setitem(sys.modules, "django", SimpleNamespace(VERSION=(5, 2), conf=None))  # the outside world's
    monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=object()))
    make(create_app, "ours")
    assert current_app.main == in_thread() == "ours"
    make(create_app, "second")
    make(Celery, "plain")
    assert current_app.main == in_thread() == "plain"
    make(Celery, "another", set_as_current=False)
    make(create_app, "third")
    assert in_thread() == "plain"


def test_a_look_at_a_class_binds_it_to_no_application(make: Make) -> None:
    """Celery would bind it to the current one, and each class that is derived from the same base."""
    plain = make(Celery, "plain", task_serializer="pickle", task_ignore_result=False)
    task = declared("elsewhere")
    assert task.app.main == "nobody"
    inspect.getmembers(task)
    assert not hasattr(ImmediateTask, "app")
    ours = make(create_app, "ours")
    assert task.app is ours
    assert (task.registered.app, task.registered.serializer, task.registered.ignore_result) == (ours, "json", True)
    assert current_app.main == plain.main


def test_copies_of_an_application_are_one(make: Make) -> None:
    """As one that is pickled, or made again by a factory."""
    first = make(create_app, "shop", packages=["shop"])
    copied = pickle.loads(pickle.dumps(first))  # written here
    assert declared("elsewhere").registered.app is first  # which is the current one
    first.close()
    assert declared("elsewhere").registered.app is copied
    close(copied)


def test_a_module_that_is_read_again_replaces_its_classes(make: Make) -> None:
    """Also before there is an application."""
    same = {"name": f"T{uuid4().hex[:8]}", "__qualname__": "Same", "__firstlineno__": 7}
    kept = declared("elsewhere", **same)
    again = declared("elsewhere", **same)
    ours = make(create_app, "ours")
    assert isinstance(ours.tasks[kept.name], again)


@pytest.mark.parametrize("said", ["shop:app", Celery, property(lambda _: None)])
def test_an_application_that_is_none_is_refused(said: object) -> None:
    """Its author expects something of it."""
    with pytest.raises(DeclarationError, match="app must be an application that create_app has made"):
        declared("elsewhere", app=said)


def test_a_class_is_no_base_of_a_function(make: Make) -> None:
    """Celery would make a task of it that has no arguments, in whichever application."""
    task = declared("elsewhere")
    for application in (make(create_app, "ours"), make(Celery, "plain", set_as_current=False)):
        for base in (ImmediateTask, task):
            with pytest.raises(DeclarationError, match=rf"write @app.job\(base={base.__name__}"):
                application.task(nothing, base=base, name=f"f{uuid4().hex[:8]}", shared=False, lazy=False)


@pytest.fixture
def two(app: ConventionsApp) -> Iterator[Any]:
    """A plain application on the server of ours."""
    with Celery("plain", broker=app.conf.broker_url, set_as_current=False) as plain:
        yield plain
        close(plain)


def sends(task: Any, by: str) -> dict[str, Callable[..., Any]]:
    """Each way to send one or many, by a connection or a producer that is given."""
    return {
        "apply_async": lambda given: task.apply_async((1,), **{by: given}),
        "enqueue_many": lambda given: task.enqueue_many([{"number": 1}], **{by: given}),
        "send_task": lambda given: task.registered.app.send_task(task.name, (1,), **{by: given}),
        "signature": lambda given: task.s(1).apply_async(**{by: given}),
    }


def test_a_function_of_ours_leaves_by_a_connection_of_ours(app: ConventionsApp, two: Celery) -> None:
    """As a class does."""
    function = app.task(nothing, name=f"f{uuid4().hex[:8]}")
    with two.connection_for_write() as connection:
        for send in (function.apply_async, partial(app.send_task, function.name)):
            with pytest.raises(TypeError, match="connection was made by another application"):
                send((), connection=connection)


@pytest.mark.parametrize("by", ["connection", "producer", "publisher"])
@pytest.mark.parametrize("how", ["apply_async", "enqueue_many", "send_task", "signature"])
def test_a_message_leaves_by_a_connection_of_its_application(
    app: ConventionsApp, two: Celery, by: str, how: str
) -> None:
    """One of ours is used; another one is refused, before anything is sent."""
    task = declared("elsewhere", queue_name=f"q{uuid4().hex[:8]}")
    send = sends(task, by)[how]
    for application in (two, app):
        with application.connection_for_write() as connection:
            given = connection if by == "connection" else application.amqp.Producer(connection, auto_declare=False)
            if application is two:
                with pytest.raises(TypeError, match=f"{by} was made by another application"):
                    send(given)
                assert app.broker.sizes(task.queue_name).ready == 0
            else:
                send(given)
                assert connection.connected
    assert app.broker.sizes(task.queue_name).ready == 1
    app.broker.drop(task.queue_name)


def test_a_group_of_two_applications_is_refused(app: ConventionsApp, two: Celery) -> None:
    """Celery would send all of it by the producer of the first one; what it has sent before stays sent."""
    task = declared("elsewhere", queue_name=f"q{uuid4().hex[:8]}")

    @two.task(name=f"f{uuid4().hex[:8]}")
    def function(number: int) -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="producer was made by another application"):
        group([function.si(1), task.si(1)]).apply_async()
    assert app.broker.sizes(task.queue_name).ready == 0
    group([task.si(1), task.si(2)]).apply_async()
    assert app.broker.sizes(task.queue_name).ready == 2
    with pytest.raises(TypeError, match="another application of Celery has made this message"):
        group([task.si(3), function.si(4)]).apply_async()
    with (
        app.connection_for_write() as connection,
        pytest.raises(TypeError, match="another application of Celery has made this message"),
    ):
        function.apply_async((1,), connection=connection)
    app.broker.drop(task.queue_name)


def test_it_can_be_made_where_django_is(monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    """Celery's support of Django looks at the name of the loader."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nobody.settings")
    with pytest.warns(UserWarning, match="Django isn't installed") if find_spec("django") is None else nullcontext():
        ours = make(create_app, "ours")
    assert isinstance(ours.loader, TaskLoader)
