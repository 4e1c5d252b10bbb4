"""What Celery does not document, and any process uses: a sender, a worker, a beat. `celery_worker.py` has what only workers use.

Another release may change each of these names. `tests/library_internals/` says which one has changed, and what to look at.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from logging import Logger
from types import ModuleType
from typing import Any, Protocol, TypeAlias, TypeVar

import celery
from celery import _state, canvas
from celery.app import base, trace
from celery.app.defaults import DEFAULTS, SETTING_KEYS
from celery.app.routes import Router
from celery.app.task import X_DEATH_HEADERS, Context, get_actual_ignore_result
from celery.app.utils import detect_settings
from celery.loaders.base import BaseLoader
from celery.local import Proxy
from celery.utils import functional, imports, time
from celery.utils.collections import ConfigurationView
from celery.utils.saferepr import saferepr as celerys_saferepr
from celery.utils.threads import LocalStack

T = TypeVar("T")

__all__ = ["LocalStack", "Proxy", "Router"]


class TaskStack(Protocol):
    """The tasks that run in this thread, one within the other; `celery.current_task` is the top one."""

    top: Any

    def push(self, task: Any) -> None:
        """A task begins."""

    def pop(self) -> Any:
        """It has ended."""


# The task that runs. `celery.current_task` is a proxy, which takes three times as long.
running_tasks: TaskStack = _state._task_stack  # noqa: SLF001
current_task: Callable[[], Any] = _state.get_current_task
current_worker_task: Callable[[], Any] = _state.get_current_worker_task  # `None` also where a task is only called

# Messages, and the requests that become of them.
result_is_ignored: Callable[[Any, Any], bool] = get_actual_ignore_result  # takes the task, and its request
REQUEST_FIELDS = frozenset(vars(Context))  # what a request has of its own
NOT_HEADERS = REQUEST_FIELDS | {
    "lang",
    "task",
    "argsrepr",
    "kwargsrepr",
    "compression",
}  # all else is a caller's header
signature_of: Callable[[dict[str, Any]], Any] = (
    celery.Signature.from_dict
)  # raises whatever it meets in what is no signature
new_request: Callable[[dict[str, Any]], Any] = Context
REQUEST_METHODS = frozenset(name for name in dir(Context) if name.startswith("_") or callable(getattr(Context, name)))
RABBITMQ_HEADERS = frozenset(X_DEATH_HEADERS)  # RabbitMQ's own, of a message that it has put aside
SEND_TASK_POSITIONS = tuple(  # of what `send_task` takes after the arguments of the task
    one.name
    for one in inspect.signature(celery.Celery.send_task).parameters.values()
    if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
)[4:]  # without self, name, args, kwargs


def sends_are_celerys() -> bool:
    """Whether nobody has replaced `Task.apply_async`, as tracing does."""
    return bool(celery.Task.apply_async.__code__.co_qualname == "Task.apply_async")


# Configuration.

ConfigurationSource: TypeAlias = Callable[[], Mapping[str, Any]]  # reads a module or an object, when it is needed


def configuration_values(source: Mapping[str, Any], namespace: str | None) -> dict[str, Any]:
    """What a mapping says, by Celery's names of today.

    With a namespace only names that begin with it count: Celery would take its names of before, such as `BROKER_URL`, with any namespace.

    Raises:
        ImproperlyConfigured: names of today and of before are mixed.
    """
    if namespace:
        prefix = f"{namespace.rstrip('_')}_"
        cased = str.upper if prefix.isupper() else str.lower
        names = {name: cased(prefix + name) for name in (*SETTING_KEYS, *_FURTHER)}
        return {name: source[said] for name, said in names.items() if said in source}
    said = detect_settings(source)
    said.maps[:] = [source]  # without Celery's defaults
    return {name: said[name] for name in (*SETTING_KEYS, *_FURTHER) if name in said}


def default_of(name: str) -> Any:
    """Celery's default of a setting."""
    return DEFAULTS.get(name)


_FURTHER = ("redbeat_lock_timeout", "redbeat_redis_url")


# Applications, and proxies of them and of their tasks.


def current_application() -> Any:
    """The current application itself: its proxy would look it up at every touch."""
    return celery.current_app._get_current_object()  # noqa: SLF001


def is_place_free() -> bool:
    """Whether no application is the current one of any thread, as far as one can see from here.

    What Celery makes where there is none, when somebody asks, does not count; nor does an application that was told to take no place.
    """
    default = _state.default_app
    if not (default is None or is_fallback(default)):
        return False
    return not any(app.set_as_current for app in _state._get_active_apps())  # noqa: SLF001


def is_fallback(app: Any) -> bool:
    """Whether it is what Celery makes when somebody asks for the current application, and there is none."""
    return bool(app.main == "default" and not app.set_as_current and not app.fixups)


def default_application() -> Any:
    """The current one of each thread that has no other; `None`: Celery would make one."""
    return _state.default_app


def put_in_place(app: Any) -> None:
    """Make an application that one, or none."""
    _state.set_default_app(app)


def leave_place(app: Any, other: Any) -> None:
    """Let an application be the current one no more, since another one is made, as if it had not been."""
    is_of_django = any(type(fixup).__name__ == "DjangoFixup" for fixup in other._fixups)  # noqa: SLF001
    if _state.default_app is app and (other.set_as_current or is_of_django):
        _state.set_default_app(other if is_of_django else None)  # where there is Django, the first application takes it


def when_made(call: Callable[[Any], None]) -> Callable[[Any], None]:
    """Have `call(app)` called at the end of the making of each application."""
    register = base._register_app  # noqa: SLF001

    @functools.wraps(register)
    def registered(app: Any) -> None:
        register(app)
        call(app)

    base._register_app = registered  # noqa: SLF001
    return call


@contextmanager
def keeping_current() -> Iterator[None]:
    """Put back, at the end, which application is the current one, here and in threads."""
    default, current = _state.default_app, _state._tls.current_app  # noqa: SLF001
    try:
        yield
    finally:
        _state.set_default_app(default)
        _state._set_current_app(current)  # noqa: SLF001


when_finalized: Callable[[Callable[[Any], None]], Any] = _state.connect_on_app_finalize  # called for each application


_seen = set[Any]()
_declared = set[Any]()


def functions_of_applications() -> set[Any]:
    """The functions that applications have declared by `@app.task`, and that Celery registers in all others, too.

    Without those of `@shared_task`, which belong to none.
    """
    new = _state._on_app_finalizers - _seen  # noqa: SLF001
    _seen.update(new)
    declared = [one for one in new if one.__qualname__.startswith("Celery.task.")]
    _declared.update(inspect.unwrap(inspect.getclosurevars(one).nonlocals["fun"]) for one in declared)
    return _declared


def named_application(task_class: type[Any]) -> Any:
    """What `app = ...` says, on a task class or on a base of it that a team has written; `None`: nobody says anything."""
    written = (one for one in task_class.__mro__ if not one.__module__.startswith(("celery.", "conventions.")))
    return next((vars(one)["app"] for one in written if "app" in vars(one)), None)


def without_proxy(task: T) -> T:
    """A task itself, where this is the proxy of one."""
    found: Any = task
    return found._get_current_object() if issubclass(type(found), Proxy) else found  # type: ignore[no-any-return]  # noqa: SLF001


def changed_settings(conf: Any) -> Mapping[str, Any]:
    """What was set in a configuration, below what Celery puts over it until it reads the rest."""
    first = conf.maps[0]
    inner = getattr(first, "data", None)
    return changed_settings(inner) if isinstance(inner, ConfigurationView) else first


def after_fork(app: Any) -> None:
    """Let an application forget its connections. Celery calls this for processes of its own pool only."""
    app._after_fork()  # noqa: SLF001


# How a job is traced.

trace_job: Callable[..., Any] = trace.trace_task
trace_logger: Logger = trace.logger
log_success: Callable[[str, dict[str, Any]], None] = trace.info
has_own: Callable[[Any, str], Any] = trace.task_has_custom  # whether a task overrides a method of Celery's own class


def is_celerys_tracer(tracer: Any) -> bool:
    """Whether this traces a task as Celery does, and not as an observer that has replaced it."""
    return bool(tracer.__code__.co_qualname == "build_tracer.<locals>.trace_task")


def has_own_hooks(loader: type[Any]) -> bool:
    """Whether a loader wants to hear of each job that begins and ends."""
    return any(
        getattr(loader, name) is not getattr(BaseLoader, name) for name in ("on_task_init", "on_process_cleanup")
    )


RETRIED = trace.LOG_RETRY  # how Celery's tracer logs that an attempt failed and another one follows


def log_successes(
    text: str, replaced: Callable[[Callable[[str, dict[str, Any]], None]], Callable[[str, dict[str, Any]], None]]
) -> None:
    """Let Celery's tracer log a success by this text, and by what is made of its own function for that."""
    trace.LOG_SUCCESS = text
    trace.info = replaced(trace.info)


def text_of_receipt() -> str:
    """How Celery logs that a message has come."""
    return str(trace.LOG_RECEIVED)


# Canvases.

FORGETS = "conventions_forgets_ids"  # an attribute of what takes the place of `_chain.run`, once


def forget_ids_of_chains(is_ours: Callable[[Any], bool]) -> None:
    """Let each send of one chain object be a chain of its own, where its application is one of ours.

    `_chain.prepare_steps` writes the id of the last step into the chain that is sent. The next send of that object would send
    its last step under the same id again, and that one is done. So a copy is sent.
    """
    send = canvas._chain.run  # noqa: SLF001
    if vars(send).get(FORGETS):
        return

    @functools.wraps(send)
    def run(self: Any, *args: Any, **options: Any) -> Any:
        if "task_id" in self.options or not is_ours(self.app):  # an id of its owner's, or of `freeze`
            return send(self, *args, **options)
        sent = dict.__new__(type(self))
        sent.update(self, options=dict(self.options))
        vars(sent).update(vars(self))
        return send(sent, *args, **options)

    vars(run)[FORGETS] = True
    canvas._chain.run = run  # noqa: SLF001


# Commands.


def purge_command() -> Any:
    """The command `celery purge`, where it may run in this process, else `None`."""
    module: ModuleType | None = sys.modules.get("celery.bin.purge")
    return module and module.purge


def control_command() -> Any:
    """The command `celery control`, where it may run in this process, else `None`."""
    module: ModuleType | None = sys.modules.get("celery.bin.control")
    return module and module.control


def is_beats_handler(handler: Any) -> bool:
    """Whether this is the signal handler of `celery beat`, which closes its scheduler wherever that is."""
    return getattr(handler, "__qualname__", "").startswith("Beat.install_sync_handler.")


# Small helpers.

symbol_by_name: Callable[[Any], Any] = imports.symbol_by_name
cwd_in_path: Callable[[], AbstractContextManager[Any]] = imports.cwd_in_path
import_from_cwd: Callable[[str], Any] = imports.import_from_cwd
saferepr: Callable[..., str] = celerys_saferepr
listed: Callable[[Any], list[Any]] = functional.maybe_list
per_second: Callable[[Any], float] = time.rate  # of "10/m"


def signature_fault(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why a function does not take these arguments, as Celery checks it in a send; empty: it does, or nothing is checked of it (`typing=False`)."""
    check = getattr(task, "__header__", None)
    if check is None or not task.typing:
        return ""
    try:
        check(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return ""
