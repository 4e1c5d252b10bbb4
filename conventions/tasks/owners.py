"""Whose a task class is. It is registered in applications of ours alone, not in a plain one that is in the same process.

A class that an application has made of a function belongs to that one. Another belongs to each application whose packages hold its module.
Else to that which `app = ...` names, on the class or on a base of it. Else to the only application of ours, by name. Where there are several,
the first send says what to write.
"""

from collections.abc import Callable
from typing import Any, Protocol
from weakref import ReferenceType, WeakValueDictionary, ref

import celery

from conventions.core.errors import DeclarationError
from conventions.library_internals.celery import (
    Proxy,
    current_application,
    leave_place,
    named_application,
    when_finalized,
    when_made,
)

OURS = "conventions"  # its classes belong to every application
MADE_BY = "_made_by"  # an attribute of a class that an application has made of a function


class TaskProxy(Proxy):
    """The task of a class, in the application to which it belongs at that moment.

    Attributes:
        declared: the class.
    """

    __slots__ = ("declared",)

    declared: type[Any]


class _Lookup:
    """Finds the task of a class. Each use of a class asks some ten times, so what it has found counts while the applications are the same ones."""

    __slots__ = ("_known", "_task_class")

    def __init__(self, task_class: type[Any]) -> None:
        self._task_class = task_class
        self._known: tuple[list[Any], Callable[[], Any]] = ([], _nothing)  # one value, since other threads look, too

    def __call__(self) -> Any:
        among, found = self._known
        if among == _owners and (task := found()) is not None:
            return task
        among = [*_owners]
        task = task_of(self._task_class)
        # Of several applications the current one counts, which may be another one soon.
        if sum(belongs(self._task_class, app) for app in owners()) == 1:
            self._known = (among, ref(task))
        return task


def _nothing() -> None:
    return None


def class_of(task: Any) -> Any:
    """The class of what `@app.job` has returned; anything else as it is."""
    return object.__getattribute__(task, "declared") if type(task) is TaskProxy else task


class ApplicationOfClass:
    """The attribute `app` of a class. A task has Celery's, which is written into the class that Celery makes for it."""

    def __get__(self, task: object, task_class: type[Any]) -> Any:
        if task_class.registered is None:
            raise AttributeError(f"{task_class.__qualname__} is abstract: it belongs to no application")
        try:
            return owner_of(task_class)
        except RuntimeError as error:
            raise AttributeError(str(error)) from error


class Owner(Protocol):
    """What an application of ours is here."""

    main: str
    tasks: Any
    takes_place: bool  # whether somebody has made it Celery's current application, so that it stays so where there is another one
    finalized: bool

    def holds(self, module: str) -> bool:
        """Whether its packages hold a module."""

    def register(self, task_class: Any) -> None:
        """Make the task of a class."""


_owners: list[ReferenceType[Owner]] = []
# By name, so that a module that is read again replaces its own.
_classes: WeakValueDictionary[tuple[str, int], type[Any]] = WeakValueDictionary()
_nobody: list[Any] = []  # a bare application, where classes are called without one of ours


def owners() -> list[Owner]:
    """The applications of ours in this process, in the order in which they were made."""
    return [app for one in _owners if (app := one()) is not None]


def add_owner(app: Owner) -> None:
    """Note a new application."""
    _owners[:] = [one for one in _owners if one() is not None]
    _owners.append(ref(app))


def forget_owner(app: Owner) -> None:
    """Of an application that is closed."""
    _owners[:] = [one for one in _owners if one() is not None and one() is not app]


def add_class(task_class: type[Any]) -> None:
    """Note a new class. Its `registered` becomes a proxy of its task, which is looked up at each use.

    Raises:
        DeclarationError: its `app` is none of ours.
    """
    named = named_application(task_class)
    if named is not None and not _is_ours(named):
        raise DeclarationError(
            f"{task_class.__qualname__}: app must be an application that create_app has made, not {named!r}"
        )
    _classes[task_class.name, id(vars(task_class).get(MADE_BY))] = task_class
    task_class.registered = TaskProxy(_Lookup(task_class))
    object.__setattr__(task_class.registered, "declared", task_class)  # a plain assignment would reach the task
    for app in owners():
        if app.finalized and belongs(task_class, app):
            app.register(task_class)


def check_registered(made: type[Any]) -> None:
    """Check the class that Celery has made to register a task. Raises: DeclarationError, where somebody else has told it to."""
    declared: Any = made.__bases__[0]
    if declared.registered is None or vars(made)["run"] is not declared.run:
        raise DeclarationError(
            f"{made.__module__}.{made.__name__}: {declared.__name__} is a class of jobs: write @app.job(base={declared.__name__}, ...) over the function"
        )
    if not _is_ours(vars(made)["app"]) and vars(made)["app"] is not nobody():
        raise DeclarationError(f"{declared.__qualname__}: only an application that create_app has made can run it")


def classes_of(app: Owner) -> list[type[Any]]:
    """The classes that belong to an application."""
    return [one for one in list(_classes.values()) if belongs(one, app)]


def belongs(task_class: type[Any], app: Owner) -> bool:
    """Whether a class belongs to an application."""
    if (maker := vars(task_class).get(MADE_BY)) is not None:
        return maker is app
    if _is_system(task_class) or app.holds(task_class.__module__):
        return True
    others = [one for one in owners() if one.main != app.main]  # of one name: copies of one application
    if any(one.holds(task_class.__module__) for one in others):
        return False
    named = named_application(task_class)
    if named is not None:
        return named is app
    return not others


def owner_of(task_class: type[Any]) -> Any:
    """The application through which a class is sent.

    Raises:
        RuntimeError: it cannot be told, or there is none.
    """
    found = [app for app in owners() if belongs(task_class, app)]
    if not found:
        known = owners()
        if not known:
            return nobody()
        names = ", ".join(sorted(app.main for app in known))
        raise RuntimeError(
            f"{task_class.name}: it belongs to none of the applications of this process ({names}): add its module {task_class.__module__} to the "
            f"packages of one, or write app = ... on the class"
        )
    current = current_application() if len(found) > 1 else None
    return current if any(one is current for one in found) else found[-1]


def the_application() -> Any:
    """The only application of ours in this process; of several, the one that Celery has as the current one.

    Raises:
        RuntimeError: there is none, or it cannot be told.
    """
    known = owners()
    if not known:
        raise RuntimeError("no application: call conventions.create_app first, or import the module that does")
    if len(known) == 1:
        return known[0]
    current = current_application()
    if any(one is current for one in known):
        return current
    names = ", ".join(sorted(app.main for app in known))
    raise RuntimeError(f"there are several applications in this process ({names}): pass app=...")


def nobody() -> Any:
    """A bare application: a class may be called, as in a test, where there is none of ours, and cannot be sent."""
    if not _nobody:
        _nobody.append(celery.Celery("nobody", set_as_current=False, fixups=[]))
    return _nobody[0]


def task_of(task_class: type[Any]) -> Any:
    """The task of a class, in its application. Raises: RuntimeError, as `owner_of`."""
    app = owner_of(task_class)
    if task_class.name not in app.tasks:
        register(app, task_class)
    return app.tasks[task_class.name]


def declared_class(task: Any) -> type[Any]:
    """The class that a team has written, or `@app.job` has made, of a task of ours in an application."""
    found: type[Any] = type(task).__bases__[0]  # Celery has derived one of its own from it
    return found


def register(app: Any, task_class: Any) -> None:
    """Make the task of a class in an application."""
    app.task(task_class.run, bind=True, base=task_class, name=task_class.name, lazy=False, shared=False)


@when_made
def _another(app: Any) -> None:
    """Celery has made an application. If it is none of ours, one of ours that was current for want of another one is so no more."""
    if not _is_ours(app):
        for one in owners():
            if not one.takes_place:
                leave_place(one, app)


@when_finalized
def _register_classes(app: Any) -> None:
    """Celery has finalized an application, whichever."""
    if app in owners():
        for one in classes_of(app):
            app.register(one)


def _is_ours(app: object) -> bool:
    return hasattr(type(app), "holds")  # an attribute of its own may be anything, or fail before it is made


def _is_system(task_class: type[Any]) -> bool:
    return task_class.__module__.partition(".")[0] == OURS
