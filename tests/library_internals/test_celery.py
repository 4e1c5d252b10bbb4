"""What Celery does not document and this package uses: another release fails here, with what to look at."""

import inspect
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celery
import pytest
from celery import signals
from celery.app import defaults, trace
from celery.app.task import Context
from celery.apps import worker as program
from celery.apps.beat import Beat
from celery.bin import control as control_program
from celery.bin import purge
from celery.concurrency import thread
from celery.loaders.app import AppLoader
from celery.worker import control, state

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.library_internals import celery as internals
from conventions.library_internals import celery_worker
from conventions.transport.celery_defaults import celery_defaults
from conventions.worker.shutdown import EXIT_STATUS
from tests.library_internals.seam import Seam

SEAMS = [
    Seam(
        "celery.apps.worker:_shutdown_handler",
        "(worker, sig=, how=, callback=, exitcode=, verbose=)",
        "8ab0756039",
        "worker/shutdown.py",
    ),
    Seam("celery._state:get_current_task", "()", "aa71f8f52d", "execution/current_job.py, sending/plain_send.py"),
    Seam("celery._state:get_current_worker_task", "()", "f1160c8ac8", "sending/templates.py"),
    Seam(
        "celery.app.task:get_actual_ignore_result",
        "(task, req)",
        "516dac5ca9",
        "execution/settle.py, tasks/running_task.py",
    ),
    Seam(
        "celery.worker.consumer.consumer:Consumer._limit_move_to_pool",
        "(self, request)",
        "",
        "library_internals/celery_worker.py",
    ),
    # What writes the id of the last step into a chain that is sent.
    Seam("celery.canvas:_chain.run", "", "508f515e52", "library_internals/celery.py"),
    Seam("celery.canvas:_chain.prepare_steps", "", "769e743dec", "library_internals/celery.py"),
    # What a job finds at `self.request`, as `LazyRequest` shows it before it is read.
    Seam("celery.app.task:Context.__init__", "(self, *args, **kwargs)", "50a0f05c5d", "fast_lane/lazy_request.py"),
    Seam(
        "celery.app.task:Context._get_custom_headers",
        "(self, *args, **kwargs)",
        "e0a9059be3",
        "fast_lane/lazy_request.py",
    ),
    Seam("celery.app.task:Context.update", "(self, *args, **kwargs)", "a31189b814", "fast_lane/lazy_request.py"),
    # What a short job of a group does without.
    Seam(
        "celery.app.trace:build_tracer",
        "",
        "34fc167515",
        "fast_lane/call_job.py, execution/run.py, execution/follow_ups.py",
    ),
    Seam(
        "celery.app.trace:trace_task",
        "(task, uuid, args, kwargs, request=, **opts)",
        "98d264d78b",
        "fast_lane/call_job.py",
    ),
    Seam("celery.app.trace:task_has_custom", "(task, attr)", "369b7d4ec6", "fast_lane/call_job.py"),
    Seam("celery.app.trace:info", "(fmt, context)", "90471fc3ec", "execution/success_log.py, fast_lane/call_job.py"),
    # What happens to a message between its arrival and the pool.
    Seam("celery.worker.strategy:default", "", "571fb31858", "worker/strategy.py, fast_lane/short_cut.py"),
    Seam("celery.worker.request:create_request_cls", "", "0fca8bbbce", "fast_lane/short_request.py"),
    Seam("celery.worker.consumer.consumer:Consumer.call_soon_ack", "", "51f1fc9ad5", "fast_lane/short_request.py"),
    Seam(
        "celery.worker.consumer.consumer:Consumer._limit_task",
        "(self, request, bucket, tokens)",
        "75802f9509",
        "worker/hold_back_rate_limited.py, library_internals/celery_worker.py",
    ),
    Seam("celery.worker.loops:asynloop", "", "fad4382286", "worker/shutdown.py, transport/redis_transport.py"),
    Seam("celery.worker.state:task_reserved", "", "31688234dd", "fast_lane/short_cut.py"),
    Seam("celery.worker.state:task_ready", "", "c828c23270", "worker/request.py, fast_lane/group.py"),
    Seam("celery.worker.state:task_accepted", "", "fda3b2b9d5", "worker/request.py"),
    Seam(
        "celery.worker.worker:WorkController.register_with_event_loop",
        "(self, hub)",
        "736f49c221",
        "the steps of worker/",
    ),
    Seam("celery.bootsteps:Blueprint.close", "(self, parent)", "5e6a01f67d", "worker/shutdown.py"),
    # How a message is made, of which templates make the next ones.
    Seam("celery.app.task:Task.apply_async", "", "0cd0807092", "sending/templates.py, sending/by_name.py"),
    Seam("celery.app.base:Celery.send_task", "", "ed509d4121", "sending/by_name.py"),
    Seam("celery.app.amqp:AMQP.as_task_v2", "", "8f94fe5918", "sending/message_template.py, broker/simple_message.py"),
    Seam(
        "celery.app.amqp:AMQP._create_task_sender",
        "(self)",
        "f1e9c7e1eb",
        "sending/templates.py, sending/bulk_sender.py",
    ),
    Seam("celery.app.base:Celery._after_fork", "(self)", "dc66aeb171", "recording/recorder_process.py"),
    Seam("celery.apps.beat:Beat.install_sync_handler", "(self, service)", "7b7f07e7c5", "schedules/scheduler.py"),
    Seam("celery.worker.control:nok", "(value)", "", "worker/pool_step.py"),
    Seam("celery.utils.imports:symbol_by_name", "", "", "fast_lane/short_cut.py, worker/pool_step.py"),
    Seam("celery.utils.imports:cwd_in_path", "()", "", "app.py"),
    Seam("celery.utils.time:rate", "(r)", "", "declare/class_rules.py"),
]


class Echo(ImmediateTask):
    """A task of ours."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, word: str) -> str:
        """Return the word."""
        return word


FIELDS = """
    args callbacks called_directly chain children chord correlation_id delivery_info errbacks eta expires group group_index
    headers hostname id ignore_result is_eager kwargs logfile loglevel origin parent_id properties replaced_task_nesting
    reply_to retries root_id shadow soft_time_limit stamped_headers stamps taskset time_limit timelimit utc
"""


CELERYS_INFO = trace.info  # before another test has replaced it


@pytest.fixture(autouse=True)
def celerys_info(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's process replaces it, and so does a test that starts one here."""
    monkeypatch.setattr(trace, "info", CELERYS_INFO)


@pytest.mark.parametrize("seam", SEAMS, ids=str)
def test_a_function_is_what_it_was(seam: Seam) -> None:
    """It is there, takes these arguments, and does what it did when somebody looked at it."""
    assert not seam.fault()


def test_a_fault_names_what_to_look_at() -> None:
    """The name, what has changed, and our files."""
    gone = Seam("celery._state:current_thing", "()", "", "a.py").fault()
    assert "celery._state:current_thing is gone: look at a.py" in gone
    other = Seam("celery.app.trace:info", "(text)", "", "a.py").fault()
    assert "takes (fmt, context), and not (text) any more: look at a.py" in other
    changed = Seam("celery.app.trace:info", "(fmt, context)", "0123456789", "a.py").fault()
    assert "does something else than it did" in changed
    assert celery.__version__ in gone


def test_the_running_task(app: ConventionsApp) -> None:
    """The top of the stack is the one that `celery.current_task` names, and a call is no run in a worker."""
    task = app.tasks[Echo.name]
    assert (internals.running_tasks.top, internals.current_task()) == (None, None)
    internals.running_tasks.push(task)
    try:
        assert internals.running_tasks.top is internals.current_task() is task
        assert celery.current_task.name == task.name
        assert internals.current_worker_task() is None, "it is called directly"
        with _requested(task, called_directly=False):
            assert internals.current_worker_task() is task
    finally:
        internals.running_tasks.pop()
    assert internals.running_tasks.top is None


@contextmanager
def _requested(task: Any, **fields: Any) -> Iterator[None]:
    task.request_stack.push(Context(**fields))
    try:
        yield
    finally:
        task.request_stack.pop()


def test_what_a_request_has() -> None:
    """A field that a release adds is no header of a caller's any more: look at `broker/header_names.py` and `broker/message_form.py`."""
    fields = {
        name for name in internals.REQUEST_FIELDS if not name.startswith("_") and not callable(vars(Context)[name])
    }
    assert fields == set(FIELDS.split())
    own = Context(
        {"id": "1", "task": "t", "lang": "py", "argsrepr": "", "kwargsrepr": "", "compression": None, "mine": 1}
    )
    assert own.headers == {"mine": 1}
    assert {"id", "task", "lang", "argsrepr", "kwargsrepr", "compression"} <= internals.NOT_HEADERS
    assert {"update", "get", "clear", "_children"} <= internals.REQUEST_METHODS
    assert "id" not in internals.REQUEST_METHODS
    assert all(name.startswith("x-") for name in internals.RABBITMQ_HEADERS)


def test_the_result_of_a_request_counts_more_than_that_of_its_task() -> None:
    """Where the request says so."""
    task = SimpleNamespace(ignore_result=True)
    assert internals.result_is_ignored(task, Context())
    assert not internals.result_is_ignored(task, Context(ignore_result=False))


def test_the_order_of_what_send_task_takes() -> None:
    """After the name and the arguments of the task."""
    assert internals.SEND_TASK_POSITIONS[:3] == ("countdown", "eta", "task_id")
    assert internals.SEND_TASK_POSITIONS[-1] == "replaced_task_nesting"


def test_who_replaces_apply_async_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tracing does, by a function of its own."""
    assert internals.sends_are_celerys()
    monkeypatch.setattr(celery.Task, "apply_async", lambda *_, **__: None)
    assert not internals.sends_are_celerys()


def test_what_is_behind_proxies(app: ConventionsApp) -> None:
    """The application, and a task."""
    assert internals.current_application() is app
    proxy = Echo.registered
    assert type(internals.without_proxy(proxy)) is type(app.tasks[Echo.name])
    assert internals.without_proxy(app.tasks[Echo.name]) is app.tasks[Echo.name]


def test_what_was_set_is_seen(app: ConventionsApp) -> None:
    """Before the rest of the configuration is read, and after it."""
    new = celery.Celery("new", set_as_current=False)
    new.conf.task_always_eager = True
    assert internals.changed_settings(new.conf)["task_always_eager"] is True
    assert new.conf.task_always_eager
    new.conf.task_always_eager = False
    assert internals.changed_settings(new.conf)["task_always_eager"] is False
    before = dict(internals.changed_settings(app.conf))
    app.conf.task_send_sent_event = True
    assert internals.changed_settings(app.conf) != before


def test_whose_tracer_it_is(app: ConventionsApp) -> None:
    """Celery's, or that of an observer."""
    task = app.tasks[Echo.name]
    assert internals.is_celerys_tracer(trace.build_tracer(task.name, task, app=app))
    assert not internals.is_celerys_tracer(lambda *_: None)
    assert not internals.has_own_hooks(AppLoader)
    assert internals.has_own_hooks(type("Mine", (AppLoader,), {"on_task_init": lambda *_: None}))
    assert not internals.has_own(task, "on_success")
    assert internals.has_own(task, "retry")
    assert internals.trace_logger is trace.logger


def test_how_a_success_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The tracer looks both up in its module each time."""
    monkeypatch.setattr(trace, "LOG_SUCCESS", trace.LOG_SUCCESS)
    monkeypatch.setattr(trace, "info", trace.info)
    source = Path(trace.__file__).read_text(encoding="utf-8")
    assert "info(LOG_SUCCESS, {" in source
    internals.log_successes("it is %(name)s", lambda info: lambda text, parts: info(f"{text}!", parts))
    with caplog.at_level(logging.INFO, "celery.app.trace"):
        trace.info(trace.LOG_SUCCESS, {"name": "a"})
    assert caplog.messages == ["it is a!"]
    assert internals.text_of_receipt() == "Task %(name)s[%(id)s] received"


def test_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """`purge` and `control`, with these options; `pool_restart` of remote control."""
    assert internals.control_command() is control_program.control
    assert {"command", "destination"} <= {one.name for one in control_program.control.params}
    assert internals.purge_command() is purge.purge
    assert {"force", "queues", "exclude_queues"} <= {one.name for one in purge.purge.params}
    monkeypatch.delitem(sys.modules, "celery.bin.purge")
    assert internals.purge_command() is None
    monkeypatch.delitem(sys.modules, "celery.bin.control")
    assert internals.control_command() is None
    assert celery_worker.control_commands is control.Panel.data
    assert "pool_restart" in celery_worker.control_commands
    assert celery_worker.refusal("no") == {"error": "no"}


def test_the_handlers_of_a_worker(capfd: pytest.CaptureFixture[str]) -> None:
    """Those that let running jobs finish, and what they say, and tell whom."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
    told: list[dict[str, Any]] = []

    def hear(**facts: Any) -> None:
        told.append({name: facts[name] for name in ("sender", "sig", "how", "exitcode")})

    signals.worker_shutting_down.connect(hear)
    try:
        host = SimpleNamespace(hostname="w@h")
        program.install_worker_term_handler(host)
        program.install_worker_int_handler(host)
        program.install_worker_term_hard_handler(host)
        found = {number: signal.getsignal(number) for number in before}
        assert [celery_worker.is_warm_handler(one) for one in found.values()] == [True, True, False]
        for number in (signal.SIGTERM, signal.SIGINT):
            found[number](number, None)  # type: ignore[operator, misc]  # it is a function
            assert state.should_stop == EXIT_STATUS[number]
    finally:
        state.should_stop = None
        signals.worker_shutting_down.disconnect(hear)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert told == [
        {"sender": "w@h", "sig": number.name, "how": "Warm", "exitcode": EXIT_STATUS[number]}
        for number in (signal.SIGTERM, signal.SIGINT)
    ]
    celery_worker.say("a line", sys.__stdout__)
    assert capfd.readouterr().out.count("worker: Warm shutdown (MainProcess)") == 2


def test_the_handler_of_beat() -> None:
    """By which a signal would close the scheduler wherever it is."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        Beat.install_sync_handler(SimpleNamespace(), SimpleNamespace())
        assert all(internals.is_beats_handler(signal.getsignal(number)) for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not internals.is_beats_handler(signal.SIG_DFL)


def test_small_helpers() -> None:
    """What they answer."""
    assert internals.per_second("10/m") == pytest.approx(1 / 6)
    assert internals.listed("a") == ["a"]
    assert internals.listed(["a"]) == ["a"]
    assert internals.saferepr({"a": 1}) == "{'a': 1}"
    assert internals.symbol_by_name("celery.app.trace:trace_task") is trace.trace_task


def test_the_state_of_a_worker() -> None:
    """The names that `celery.worker.state` has, and what they hold."""
    assert (state.should_stop, state.should_terminate) == (None, None)
    assert hasattr(state.revoked, "add")
    assert isinstance(state.revoked_stamps, dict)
    for name in ("active_requests", "reserved_requests", "scheduled_requests"):
        assert iter(getattr(state, name)), name


def test_the_settings_have_these_names(app: ConventionsApp) -> None:
    """One that Celery does not know does nothing."""
    known = {name for name, _ in defaults.flatten(defaults.NAMESPACES)}
    given = {name for name in celery_defaults(app) if not name.startswith("redbeat_")}
    assert given <= known, "a setting of transport/celery_defaults.py is not Celery's any more"


def test_the_classes_that_are_named_by_text() -> None:
    """Where Celery imports ours: `task_cls`, `control`, `Request`, `Strategy`, `worker_consumer`, `beat_scheduler`, steps."""
    taken = inspect.signature(celery.Celery.__init__).parameters
    assert {"loader", "task_cls", "control"} <= taken.keys()
    assert celery.Task.Request == "celery.worker.request:Request"
    assert celery.Task.Strategy == "celery.worker.strategy:default"
    for step in ("Hub", "Pool"):
        assert internals.symbol_by_name(f"celery.worker.components:{step}").name == f"celery.worker.components.{step}"


def test_the_result_of_a_thread() -> None:
    """It has its future."""
    assert celery_worker.future_of(thread.ApplyResult(SimpleNamespace(result=lambda: 1))) is not None
    assert celery_worker.future_of(None) is None
