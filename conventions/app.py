"""`create_app`: Celery with safe defaults, our transport, queues and routes, and the tasks of a team's packages."""

import functools
import gc
import importlib
import inspect
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from celery import Celery
from celery.loaders.app import AppLoader

from conventions.alerts.beside_beat import start_beside_beat
from conventions.attempt_log.live_logs import LiveLogs
from conventions.attempt_log.log_writer import PATIENCE as LOG_PATIENCE
from conventions.attempt_log.log_writer import AttemptLogs
from conventions.attempt_log.run_log import attach
from conventions.batches.batch_state import Batches
from conventions.broker.in_flight import InFlight
from conventions.broker.port import BrokerPort
from conventions.broker.rabbitmq_port import RabbitMQPort
from conventions.broker.redis_broker import Broker
from conventions.broker.redis_port import RedisPort
from conventions.broker.routing import route, routes_alike
from conventions.broker.signature import Signatures
from conventions.console.flower_start import prepare_command
from conventions.core import extras
from conventions.core.audit_keys import AuditKeys
from conventions.core.code_release import commit_here
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.errors import ConfigurationError, TaskModuleError
from conventions.core.lease_timings import Timings
from conventions.core.message_keys import MessageKeys, parse_revoked
from conventions.core.settings import ENV_PREFIX, Settings, is_redis
from conventions.declare.task_packages import import_tasks
from conventions.declare.team_migrations import migrations_of
from conventions.django.project_settings import (
    alias_in,
    is_configured,
    project_settings,
    settings_of_tests,
    task_backends,
)
from conventions.execution.claim_horizon import REDRIVE_WINDOW
from conventions.execution.control_command import prepare_control
from conventions.execution.log_redaction import make_safe
from conventions.execution.process_ends import Ends, has_ended
from conventions.execution.purge_command import prepare_purge
from conventions.idempotency.claims import Claims
from conventions.idempotency.lease_keepers import LeaseKeeper, PageKeeper
from conventions.idempotency.shared_memory import Pages
from conventions.library_internals.celery import (
    current_application,
    cwd_in_path,
    default_application,
    forget_ids_of_chains,
    is_fallback,
    is_place_free,
    put_in_place,
)
from conventions.permission.authorizer import load as load_authorizer
from conventions.permission.decisions import Permissions
from conventions.progress.overlong_jobs import OverlongJobs
from conventions.records.journal import Journal
from conventions.sealing.name_keys import NameKeys
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.seal_outgoing import Outgoing
from conventions.sealing.sealed_body import open_with
from conventions.sending.by_name import name_positions, send_by_name
from conventions.sending.ignored_result import ignored_result
from conventions.sending.templates import Templates
from conventions.stack import folder as stack
from conventions.storage import redis_store
from conventions.storage.redis_store import Store
from conventions.tasks.base_classes import ConventionTask
from conventions.tasks.functions import Functions, check_kind, is_of_another, job_of_celerys, refuse_ours
from conventions.tasks.job_classes import ImmediateTask
from conventions.tasks.job_decorator import job_class
from conventions.tasks.owners import add_owner, forget_owner, register
from conventions.tasks.plain_task import hold_as_ours
from conventions.tracing.door import TracingDoor
from conventions.tracing.spans import Tracing
from conventions.transport.celery_defaults import RESULT_BACKENDS, celery_defaults, queue_names
from conventions.transport.team_configuration import TeamConfiguration, check_configuration
from conventions.worker.hung_jobs import HungJobs
from conventions.worker.intake import DirectIntake, Intake
from conventions.worker.loop_calls import LoopCalls
from conventions.worker.refused_messages import Refusals
from conventions.worker.sender_check import SenderCheck

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    from conventions.batches.application import BatchApplication
    from conventions.sending.application import SendingApplication
    from conventions.storage.database import Database
    from conventions.tasks.job_decorator import FunctionJob
    from conventions.worker.application import WorkerApplication

LOG_LEVEL = "CELERY_LOG_LEVEL"  # by which Celery tells the processes of a pool
CONFIG_OBJECT = "config_object"  # what an application that is pickled was configured from
DEFAULT_SCHEDULE = "beat_schedule:SCHEDULE"
BROKER_OPTIONS = {"socket_connect_timeout": 1}  # seconds: a send must fail within `broker_timeout`
STEPS = (
    "conventions.worker.redis_layout_step:LayoutStep",
    "conventions.worker.broker_step:BrokerStep",
    "conventions.worker.shutdown:Stopping",
    "conventions.worker.functions_step:FunctionsStep",
    "conventions.worker.report_step:ReportStep",
    "conventions.worker.preloading:Preloading",
    "conventions.worker.log_step:LogStep",
    "conventions.recording.recorder_step:RecorderStep",
    "conventions.batches.send_for_dead_sender:BatchSweep",
    "conventions.worker.loop_calls:LoopCallsStep",
    "conventions.worker.pool_step:PagesStep",
    "conventions.worker.last_spans:LastSpansStep",
    "conventions.worker.pool_step:PoolStep",
    "conventions.worker.pool_step:HearingStep",
)


def create_app(
    name: str,
    packages: Sequence[str] | None = None,
    schedule: str | None = DEFAULT_SCHEDULE,
    *,
    settings_class: type[Settings] = Settings,
    set_as_current: bool = False,
    functions: Functions = "celery",
    **settings: Any,
) -> "ConventionsApp":
    """Make a Celery application that keeps the conventions.

    Nothing is imported or connected here: a package calls this in its own `__init__`, its tasks are imported when a
    worker, beat, Flower or a sub-command starts, and settings are read when they are first needed.

    Args:
        name: the application's name, by custom that of the package.
        packages: packages or modules with tasks; default: the one called `name`. `CONVENTIONS_TASK_PACKAGES` adds more. All modules in them are
            imported, but for those that are run: `scripts`, `tests`, `management`, `migrations`, `conftest`, `manage`, `setup`, `wsgi`, `asgi`.
        schedule: `module:NAME` of the schedule. The default counts only where `beat_schedule.py` lies in the current
            folder; `None` means none.
        settings_class: a subclass of `Settings`, where the team has settings of its own.
        set_as_current: whether it becomes Celery's current application, which runs and sends `@shared_task` functions, also where
            there is another application. By itself it does where there is none, and until there is one.
        functions: what `@app.task` and `@shared_task` make of a function: `celery`, Celery's task, or `conventions`, a job as
            `@app.job` makes it, of each that lies in the packages.
        settings: fields of it, in place of the environment's.

    Raises:
        ValueError: `functions` is neither.
    """
    check_kind(functions)
    forget_ids_of_chains(is_ours)
    app = ConventionsApp(
        name,
        packages=(name,) if packages is None else tuple(packages),
        schedule=schedule,
        settings_class=settings_class,
        overrides=settings,
        set_as_current=set_as_current,
        functions=functions,
    )
    add_owner(app)
    redis_store.set_current(lambda: app.store)
    prepare_command(is_ours)
    prepare_purge()
    prepare_control()
    start_beside_beat(is_ours)
    return app


def _is_class_of_jobs(base: Any) -> bool:
    return isinstance(base, type) and issubclass(base, ConventionTask)


def is_ours(app: Any) -> bool:
    """Whether `create_app` has made an application."""
    return isinstance(app, ConventionsApp)


class TaskLoader(AppLoader):
    """Imports the tasks where Celery imports its default modules: in workers, beat, Flower and sub-commands."""

    override_backends = RESULT_BACKENDS  # by name: imported when results are first asked for

    def mapping_of(self, obj: Any, *, silent: bool) -> Any:
        """The mapping of an object with settings, or of a module by its name. Raises: whatever the import raises."""
        reader = AppLoader(self.app)
        return reader.conf if reader.config_from_object(obj, silent=silent) else {}

    def import_default_modules(self) -> Any:
        """Import what Celery would, then the task packages. Raises: TaskModuleError."""
        imported = super().import_default_modules()
        self.app.load_tasks()
        return imported

    def on_worker_init(self) -> None:
        """What is loaded stays: the collector need not look at it again, here and in every process of the pool.

        Raises:
            ConfigurationError: the records are in PostgreSQL, and its driver is not installed; or a task requires a permission, and there is no
                authorizer.
        """
        make_safe()
        open_with(self.app.payload_keys)
        self.app.check_driver()
        self.app.check_authorizer()
        self.app.check_sealing()
        self.app.take_place_of(current_application())
        self.app.be_patient()
        self.app.take_fast_lane()
        gc.freeze()

    def on_worker_process_init(self) -> None:
        """Also in a process of the pool that was not forked."""
        open_with(self.app.payload_keys)
        self.app.be_patient()
        if self.app.attempt_logs is not None and (level := os.environ.get(LOG_LEVEL, "")).isdecimal():
            attach(int(level))


if (
    TYPE_CHECKING
):  # pyright takes no class with cached properties for a Protocol with properties, unless it is derived from that

    class _Base(Celery, BatchApplication, SendingApplication, WorkerApplication):
        main: str
        conf: Any
        control: Any
        tasks: Any

        def __hash__(self) -> int: ...

else:
    _Base = Celery


class ConventionsApp(_Base):
    """What `create_app` returns: a Celery application with `settings`, `store`, `database` and the conventions."""

    def __init__(
        self,
        name: str,
        *,
        packages: tuple[str, ...],
        schedule: str | None,
        settings_class: type[Settings],
        overrides: Any,
        set_as_current: bool,
        functions: Functions,
    ) -> None:
        self._packages = packages
        self._schedule = schedule
        self._settings_class = settings_class
        self._overrides = overrides
        self._queues_selected = False
        self._is_patient = False
        self._embedded: str | None = None  # the address of the stack of this folder, once it was found
        self.takes_place = False
        self.around: Any = None  # the application that was current before a worker of this one began
        is_free, default = is_place_free(), default_application()
        self._functions = functions
        self.declared_functions = set[Any]()  # by `task`
        self.new_intake: Callable[[Any], Intake] = DirectIntake  # made for the consumer of a worker
        super().__init__(
            name,
            amqp="conventions.transport.connection:AMQP",
            loader=f"{__name__}:{TaskLoader.__name__}",  # a text, as Celery's support of Django wants it
            task_cls=f"conventions.tasks.{'django_function:DjangoFunction' if is_configured() else 'plain_task:PlainTask'}",
            control="conventions.worker.remote_control:Control",
            log="conventions.execution.json_log:LogSetup",
            set_as_current=set_as_current,
        )
        if set_as_current:
            self.set_default()  # Celery's current application is one for each thread; this is for all the others
        else:
            self.takes_place = (
                False  # Celery's support of Django may have made it the current one: nobody has told it to
            )
            put_in_place(self if is_free else default)
        self.steps["worker"].update(STEPS)
        self.steps["consumer"].add("conventions.worker.remote_control_guard:RemoteCalls")
        self.team_configuration: TeamConfiguration | None = None
        self._config_object: tuple[Any, bool, Any] | None = None
        self._defaults = _LazyDefaults(self)
        super().config_from_object(self._defaults)

    def __reduce__(self) -> Any:
        """Pool processes that are spawned, not forked, make the application anew."""
        of_settings = (self._settings_class.__module__, self._settings_class.__qualname__)
        told = self._overrides | {"set_as_current": self.set_as_current, "functions": self._functions}
        told[CONFIG_OBJECT] = self._config_object
        return create_app_from, (self.main, self._packages, self._schedule, of_settings, told)

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, read at first use. Raises: ConfigurationError, with every fault."""
        of_celery = {} if self.team_configuration is None else self.team_configuration.settings()
        return self._settings_class.load(settings_of_tests() | of_celery | project_settings(), **self._overrides)

    @functools.cached_property
    def timings(self) -> Timings:
        """How often a process says that it lives, and how soon others take it for dead."""
        return Timings.of(self.settings.lease)

    @functools.cached_property
    def release(self) -> str | None:
        """Which release of the team's code this process runs, where anything says so."""
        return self.settings.release or commit_here()

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages and modules that hold tasks."""
        return tuple(dict.fromkeys((*self._packages, *self.settings.task_packages)))

    def holds(self, module: str) -> bool:
        """Whether its packages hold a module."""
        try:
            packages = self.packages
        except ConfigurationError:  # whoever needs the settings will hear of it
            packages = self._packages
        return any(module == one or module.startswith(f"{one}.") for one in packages)

    def register(self, task_class: Any) -> None:
        """Make the task of a class, see `tasks/owners.py`."""
        register(self, task_class)

    def config_from_object(self, obj: Any, silent: bool = False, force: bool = False, namespace: Any = None) -> Any:
        """As Celery, but over our defaults: what the object does not say stays as it is here.

        Args:
            obj: an object, or the name of a module, such as `django.conf:settings`.
            silent: whether a module that cannot be imported is left out.
            force: whether it is read now; else when Celery first asks for a setting.
            namespace: the prefix of its names, such as `CELERY`.

        Raises:
            ConfigurationError: the application is in use; or, when the object is read, it says what would break a promise, each fault by
                its name.
        """
        if used := {"store", "broker", "database"}.intersection(vars(self)):
            raise ConfigurationError(
                [f"config_from_object: call it before the application is used; it has its {min(used)}"]
            )
        for known in ("settings", "timings"):
            vars(self).pop(known, None)
        self._config_object = (obj, silent, namespace)
        read = functools.partial(self.loader.mapping_of, obj, silent=silent)
        self.team_configuration, self._defaults = TeamConfiguration(read, namespace), _LazyDefaults(self)
        return super().config_from_object(self._defaults, silent=silent, force=force)

    def set_current(self) -> None:
        """As Celery: it is the current application of this thread, whichever is made later."""
        self.takes_place = True
        super().set_current()

    def set_default(self) -> None:
        """As Celery: it is the current application of threads that have none, whichever is made later."""
        self.takes_place = True
        super().set_default()

    def close(self) -> None:
        """As Celery. No class belongs to it any more."""
        forget_owner(self)
        super().close()

    @overload
    def job(self, function: Callable[P, R], /) -> "FunctionJob[P, R]": ...

    @overload
    def job(
        self, /, *, bind: Literal[True], queue: str | None = None, name: str | None = None,
        base: type[ConventionTask] = ImmediateTask, **attributes: Any,
    ) -> Callable[[Callable[Concatenate[Any, P], R]], "FunctionJob[P, R]"]: ...  # fmt: skip

    @overload
    def job(
        self, /, *, queue: str | None = None, name: str | None = None, bind: Literal[False] = False,
        base: type[ConventionTask] = ImmediateTask, **attributes: Any,
    ) -> Callable[[Callable[P, R]], "FunctionJob[P, R]"]: ...  # fmt: skip

    def job(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a job of a function: `@app.job(idempotent_on=("order_id",))`, the same task as a class with this function as `run`.

        Args:
            function: typed, with a docstring.
            options: `queue`, the name of its queue; `name` of the task; `bind`, whether the first parameter is the task, `self`;
                `base`, the class of job; and what a class may say, such as `idempotent_on`.

        Raises:
            DeclarationError: what a class would be refused for, with what to write.
        """
        if function is None:
            return lambda function: job_class(self, function, **options).registered
        return job_class(self, function, **options).registered

    def task(self, *args: Any, **options: Any) -> Any:
        """As Celery, but for this application alone: Celery would register it in each one that is in the process.

        Raises:
            DeclarationError: an option has no effect on a function; or the function cannot be a job, where it is to be one.
        """
        if not args:
            return lambda function: self.task(function, **options)
        (function,) = args
        if not callable(function):
            return super().task(*args, **options)  # which refuses it
        self.declared_functions.add(inspect.unwrap(function))
        if self._becomes_job(function, options.get("base")):
            return job_of_celerys(self, function, options).registered
        refuse_ours(f"{function.__module__}.{getattr(function, '__name__', function)}", options)
        return super().task(function, **{"shared": False} | options)

    def _becomes_job(self, function: Any, base: Any) -> bool:
        return base is None and self._functions == "conventions" and self.holds(function.__module__)

    def _task_from_fun(
        self, fun: Any, name: str | None = None, base: Any = None, bind: bool = False, **options: Any
    ) -> Any:
        """As Celery, also for `@shared_task`. A function may become a job."""
        name = name or self.gen_task_name(fun.__name__, fun.__module__)
        there = self._tasks.get(name)
        if there is not None and isinstance(there, ConventionTask) != _is_class_of_jobs(base):
            # A job has the name of a function that it takes over, and the function is still there: the job is what is sent and run.
            if isinstance(there, ConventionTask):
                return there
            del self._tasks[name]
        if name not in self._tasks and not is_of_another(self, fun):
            if self._becomes_job(fun, base):
                register(self, job_of_celerys(self, fun, options | {"name": name, "bind": bind}))
                return self._tasks[name]
            refuse_ours(name, options)
        task = super()._task_from_fun(fun, name, base, bind, **options)
        if not isinstance(task, ConventionTask):
            hold_as_ours(task)
        return task

    def register_task(self, task: Any, **options: Any) -> Any:
        """As Celery."""
        registered = super().register_task(task, **options)
        hold_as_ours(registered)
        return registered

    @property
    def schedule_address(self) -> str | None:
        """Where the schedule is, as `module:NAME`, or `None` when there is none."""
        if self._schedule == DEFAULT_SCHEDULE and not Path("beat_schedule.py").is_file():
            return None
        return self._schedule

    @property
    def broker_address(self) -> str:
        """The configured broker, or that of the embedded stack in this folder. Raises: ConfigurationError."""
        if self.settings.broker_url:
            return self.settings.broker_url
        if self._embedded is None and (running := stack.find()) is not None:
            self._embedded = running.broker_url  # it stays the one of this process, also while it does not run
        if self._embedded is None:
            raise ConfigurationError(
                [f"no broker: start one here with `celery -A {self.main} up`, or set {ENV_PREFIX}BROKER_URL"]
            )
        return self._embedded

    @property
    def _patience(self) -> float:
        """Seconds of one call of Redis with all its tries: a worker goes on after them, others wait for the answer."""
        seconds: float = self.settings.broker_timeout
        if not self._is_patient:
            return seconds
        return min(max(seconds, self.timings.patience), self.timings.longest_call)

    def take_place_of(self, app: Any) -> None:
        """A worker or a beat: Celery makes this application the current one, in the place of that of the project around it."""
        if not is_ours(app) and not is_fallback(app):
            self.around = app

    def be_patient(self) -> None:
        """A worker: a server that stands still for some seconds is no reason to give a job back."""
        self._is_patient = True
        found = [vars(self)["store"]] if "store" in vars(self) else []
        for one in [*found, *([self.broker.store] if "broker" in vars(self) else [])]:
            one.patience = self._patience

    def take_fast_lane(self) -> None:
        """A worker: let short jobs go to a process several at a time, unless that is turned off, or its package is left out."""
        if self.settings.fast_lane and find_spec("conventions.fast_lane") is not None:
            from conventions.fast_lane.door import attach  # noqa: PLC0415  # no sender needs it, nor what it imports of a worker

            attach(self)

    @functools.cached_property
    def store(self) -> Store:
        """The Redis of claims, progress and schedule."""
        url = self.settings.redis_url or self.broker_address
        found = Store(url, self.settings.key_prefix, patience=self._patience)
        found.entry_signatures = self._entry_signatures
        return found

    @functools.cached_property
    def _entry_signatures(self) -> EntrySignatures | None:
        """Sign entries of the journal and rows of the audit; `None`: there are no keys."""
        keys = self.message_keys
        return None if keys is None else EntrySignatures(keys, self.settings.trust_unsigned_until)

    @functools.cached_property
    def database(self) -> "Database":
        """The SQL database of records and of the team's own tables."""
        found = self._new_database()
        found.row_signatures = self._row_signatures
        return found

    def _row_signatures(self) -> EntrySignatures | None:
        """As those of entries; of the embedded stack of this folder also while it does not run, as where somebody grants a role before."""
        if self.settings.message_keys is not None or self.settings.broker_url is not None:
            return self._entry_signatures
        with suppress(OSError):  # there was no stack here
            return EntrySignatures(MessageKeys.parse(stack.key_of_stacks(stack.MESSAGE_KEY)))
        return None

    def _new_database(self) -> "Database":
        from conventions.storage.database import Database  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

        url = self.settings.database_url or f"sqlite:///{stack.FOLDER / 'conventions.sqlite3'}"
        if (alias := alias_in(self.settings.database_url)) is not None:
            from conventions.django.database_address import database_of  # noqa: PLC0415  # only where there is Django

            with cwd_in_path():
                return database_of(
                    alias,
                    [folder for package in self.packages for folder in migrations_of(package)],
                    production=self.settings.environment == "production",
                    plaintext_hosts=self.settings.plaintext_hosts,
                )
        with cwd_in_path():
            return Database(url, [folder for package in self.packages for folder in migrations_of(package)])

    def check_driver(self) -> None:
        """Raises: ConfigurationError: the records are in PostgreSQL, and its driver is not installed."""
        address = self.settings.database_url
        if address is not None and not address.startswith("sqlite:") and not extras.is_installed("psycopg"):
            self.database.engine  # noqa: B018  # it names what is missing; SQLAlchemy takes 0.6 s to import

    @functools.cached_property
    def claims(self) -> Claims:
        """Idempotency claims."""
        return Claims(self.store, lease=self.timings.lease, start_limit=self.settings.start_limit)

    @functools.cached_property
    def journal(self) -> Journal:
        """What happened, until it is recorded in SQL."""
        return Journal(self.store)

    @functools.cached_property
    def broker(self) -> Broker:
        """The messages, where the broker is Redis; elsewhere it has none."""
        own = self.store
        if is_redis(self.broker_address):
            own = Store(self.broker_address, self.settings.key_prefix, patience=self._patience, **BROKER_OPTIONS)
        return Broker(own, journal_limit=self.settings.journal_limit, visibility=self.timings.visibility)

    @functools.cached_property
    def in_flight(self) -> InFlight:
        """The messages that this process holds."""
        keeper = PageKeeper(
            self.claims,
            self.pages,
            has_ended,
            every=self.timings.renew_every,
            retry_after=self.timings.retry_after,
        )
        return InFlight(self.broker, keeper, timings=self.timings)

    @functools.cached_property
    def attempt_logs(self) -> AttemptLogs | None:
        """The log lines of the attempts of this process; `None`: they are turned off."""
        return AttemptLogs(self._live_logs, self.settings.job_log_limit) if self.settings.job_log_limit else None

    def _live_logs(self) -> LiveLogs:
        """With connections of its own, which hold no job up for long."""
        url = self.settings.redis_url or self.broker_address
        return LiveLogs(Store(url, self.settings.key_prefix, patience=LOG_PATIENCE))

    @property
    def tracing(self) -> Tracing | None:
        """Who makes spans of sends and jobs; `None`: nobody has set a tracer provider in this process, or the settings say no."""
        return self._tracing_door.find()

    @functools.cached_property
    def _tracing_door(self) -> TracingDoor:
        return TracingDoor(self.settings.broker_url or "", wanted=self.settings.tracing)

    @functools.cached_property
    def pages(self) -> Pages:
        """What the processes of this worker's pool do just now."""
        return Pages()

    @functools.cached_property
    def process_ends(self) -> Ends:
        """Says how processes of the pool have ended."""
        return Ends()

    @functools.cached_property
    def message_keys(self) -> MessageKeys | None:
        """Sign messages and entries of the journal; `None`: there are none, as in development with servers of one's own."""
        keys = self._keys(self.settings.message_keys, stack.MESSAGE_KEY)
        return None if keys is None else MessageKeys.parse(keys)

    @functools.cached_property
    def audit_keys(self) -> AuditKeys | None:
        """Seal the audit; `None`: there are none, and nobody can prove that it is whole."""
        keys = self._keys(self.settings.audit_keys, stack.AUDIT_KEY)
        return None if keys is None else AuditKeys.parse(keys)

    def check_audit_keys(self) -> None:
        """A worker in production seals the audit. Raises: ConfigurationError: it has no keys for it."""
        if self.settings.environment == "production" and self.audit_keys is None:
            raise ConfigurationError(
                [
                    f"{ENV_PREFIX}AUDIT_KEYS is not set: a worker in production seals the audit; `celery keys new` makes a key"
                ]
            )

    def _keys(self, told: str | None, of_stacks: str) -> str | None:
        """What a setting says; without it, the key of the embedded stack of this folder, where that is used."""
        if told is not None or self.settings.broker_url is not None or not self.broker_address:
            return told
        return stack.key_of_stacks(of_stacks)

    @functools.cached_property
    def signatures(self) -> Signatures | None:
        """Signs and verifies messages; `None`: there are no keys."""
        keys = self.message_keys
        return None if keys is None else Signatures(keys, parse_revoked(self.settings.revoked_keys))

    @functools.cached_property
    def payload_keys(self) -> PayloadKeys | None:
        """Seal and open what jobs hold; `None`: there are no keys."""
        keys = self._keys(self.settings.payload_keys, stack.PAYLOAD_KEY)
        return None if keys is None else PayloadKeys.parse(keys)

    @functools.cached_property
    def name_keys(self) -> NameKeys | None:
        """Name sealed jobs; `None`: there are no keys."""
        keys = self._keys(self.settings.name_keys, stack.NAME_KEY)
        return None if keys is None else NameKeys.parse(keys)

    @functools.cached_property
    def outgoing(self) -> Outgoing | None:
        """The last step of each send; `None`: there are no keys."""
        if self.signatures is None and self.payload_keys is None:
            return None
        return Outgoing(self.signatures, self.payload_keys)

    @functools.cached_property
    def sender_check(self) -> SenderCheck | None:
        """Whom a worker believes; `None`: everybody, since there are no keys."""
        settings = self.settings
        if self.signatures is None:
            return None
        return SenderCheck(
            self.signatures,
            settings.accept_unsigned,
            settings.trust_unsigned_until,
            is_splitter=lambda name: getattr(self.tasks.get(name), "chunk_task", None) is not None,
        )

    @functools.cached_property
    def permissions(self) -> Permissions:
        """Who may run what."""
        return Permissions(functools.partial(load_authorizer, self.settings.authorizer, self))

    def check_authorizer(self) -> None:
        """Make an authorizer now, where a task requires a permission, to see that it can be made. Raises: ConfigurationError."""
        if any(getattr(task, "requires", None) is not None for task in self.tasks.values()):
            load_authorizer(self.settings.authorizer, self)

    def check_sealing(self) -> None:
        """Look whether what a task says to be sealed can be. Raises: ConfigurationError, with all that is missing."""
        sealed = sorted(task.name for task in self.tasks.values() if getattr(task, "encrypt", False))
        if not sealed and self.settings.seal_payloads != "all":
            return
        who = f"{sealed[0]} says" if sealed else f"{ENV_PREFIX}SEAL_PAYLOADS says"
        missing = [] if extras.is_installed("cryptography") else [extras.how_to_install("cryptography")]
        for keys, setting in ((self.payload_keys, "PAYLOAD_KEYS"), (self.name_keys, "NAME_KEYS")):
            if keys is None:
                missing.append(f"{ENV_PREFIX}{setting} is not set, and {who} that messages are sealed")
        if missing:
            raise ConfigurationError(missing)

    @functools.cached_property
    def refusals(self) -> Refusals:
        """Dead letters of messages that never reach a task."""
        return Refusals(self)

    @functools.cached_property
    def ignored_result(self) -> Any:
        """The class of results that nobody keeps."""
        return ignored_result(self)

    @functools.cached_property
    def port(self) -> BrokerPort:
        """The broker, whichever it is."""
        if not is_redis(self.broker_address):
            return RabbitMQPort(self, self.claims, self.broker, self.settings.broker_timeout)
        return RedisPort(
            self.broker, self.claims, self.journal, self.producer_or_acquire, same=self.settings.redis_url is None
        )

    @property
    def servers(self) -> tuple[Store, ...]:
        """The Redis of claims and journal, and that of the messages where it is another one. Raises: RedisError."""
        return (self.store,) if self.port.keeps_claims else (self.store, *self.port.servers.values())

    @property
    def routes_alike(self) -> bool:
        """Whether a task's messages all go the same way, because no other router looks at them."""
        return routes_alike(self.conf.task_routes)

    @functools.cached_property
    def lease_keeper(self) -> LeaseKeeper:
        """Renews the claims of the jobs that this process runs."""
        return LeaseKeeper(self.claims, every=self.timings.renew_every)

    @functools.cached_property
    def templates(self) -> Templates:
        """Messages as Celery made them, from which those of their kind are made."""
        return Templates(self)

    @functools.cached_property
    def hung_jobs(self) -> HungJobs:
        """Ends jobs that hang, where the broker's heartbeats do not tell of them."""
        return HungJobs(every=self.timings.heartbeat)

    @functools.cached_property
    def loop_calls(self) -> LoopCalls:
        """What other threads ask the loop of this worker to do."""
        return LoopCalls()

    @functools.cached_property
    def granularity(self) -> OverlongJobs:
        """Which tasks have jobs that should be split."""
        return OverlongJobs(self.store)

    @functools.cached_property
    def batches(self) -> Batches:
        """The state of batches, kept as long as a chunk may be on its way, or a dead one is redriven."""
        return Batches(
            self.store, max(self.settings.keep_result_for, self.settings.max_delay + REDRIVE_WINDOW), self.payload_keys
        )

    @functools.cached_property
    def broker_errors(self) -> tuple[type[Exception], ...]:
        """What the transport raises when the broker cannot be reached."""
        with self.connection_for_write() as connection:
            # kombu counts `KeyError`, which its own reads from Redis may raise; of a send it says that the message is wrong.
            return tuple(one for one in connection.connection_errors if not issubclass(one, LookupError))

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Send a task by its name, with the checks of a send by its class as far as the task is known here.

        Where it is not, its arguments are checked for JSON and size only, and its worker makes the key.

        Args:
            name: of the task.
            args: positional arguments of `run`.
            kwargs: arguments of `run` by name.
            more: countdown, eta, id and what follows them, as Celery takes them.
            options: as `apply_async` takes them.

        Raises:
            TypeError, ValueError, PayloadError, BrokerUnavailable: as `apply_async`; `TypeError` also for one argument too many, or
                one that is given twice.
        """
        options |= name_positions(more, options) if more else {}
        send = functools.partial(super().send_task, name)
        return send_by_name(self, name, (args, kwargs), options, send)

    def may_read(self) -> bool:
        """Whether messages may be read from a server that was started anew; false: ask again. Raises: RedisError."""
        from conventions.recording.restored_redis import may_read  # noqa: PLC0415  # seldom

        return may_read(self)

    def import_packages(self) -> None:
        """Import every module of the task packages. Raises: TaskModuleError."""
        importlib.import_module("conventions.dead_letters.old_redrive_task")  # registers the tasks of the system
        if task_backends():
            importlib.import_module("conventions.django_tasks.run_task")
        with cwd_in_path():  # a team's packages lie where the command is run
            import_tasks(self.packages)

    @functools.cached_property
    def worker_tasks(self) -> frozenset[str]:
        """The names of the tasks that a worker knows: those of the task packages, without the schedule's module."""
        self.import_packages()
        return frozenset(self.tasks)

    def load_tasks(self) -> None:
        """Import every module of the task packages; register aliases and queues.

        Raises:
            TaskModuleError: names the module, the file and the line.
        """
        check_configuration(self.conf, self._defaults)
        self.import_packages()
        for task in list(self.tasks.values()):
            for alias in getattr(task, "aliases", ()):
                there = self.tasks.get(alias, task)
                if there is not task and isinstance(there, ConventionTask):
                    raise TaskModuleError([f"{task.name}: its alias {alias!r} is the name of another task"])
                self.tasks[alias] = task
                self.tasks[task.name] = self.tasks.pop(task.name)  # Celery logs the name that it meets last
        if not self._queues_selected:  # once, so that it never undoes a worker's -Q
            self._queues_selected = True
            names = queue_names(self)
            for name in set(names).difference(self.amqp.queues):
                self.amqp.queues.add(name)  # Celery makes none where it is told to make none
            self.amqp.queues.select(names)


def create_app_from(
    name: str, packages: tuple[str, ...], schedule: str | None, of_settings: tuple[str, str], told: Any
) -> ConventionsApp:
    """Make an application from the parts that it was pickled as; a class of settings may lie where the command is run."""
    module, class_name = of_settings
    with cwd_in_path():
        settings_class = operator.attrgetter(class_name)(importlib.import_module(module))
    config_object = told.get(CONFIG_OBJECT)
    options = {option: value for option, value in told.items() if option != CONFIG_OBJECT}
    app = create_app(name, packages, schedule, settings_class=settings_class, **options)
    if config_object is not None:
        obj, silent, namespace = config_object
        app.config_from_object(obj, silent=silent, namespace=namespace)
    return app


class _LazyDefaults(Mapping[str, Any]):
    """Celery's configuration, computed when Celery first asks for a key."""

    def __init__(self, app: ConventionsApp) -> None:
        self._app = app

    @functools.cached_property
    def _values(self) -> dict[str, Any]:
        team = self._app.team_configuration
        return self.ours if team is None else team.over(self.ours)

    @functools.cached_property
    def ours(self) -> dict[str, Any]:
        """Without what the team says."""
        return celery_defaults(self._app) | {"task_routes": (functools.partial(route, self._app),)}

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)
