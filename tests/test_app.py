"""`create_app`: addresses, settings, queues, the import of task packages, and several applications at once."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import pytest
from celery import _state
from celery.exceptions import QueueNotFound

from conventions import ImmediateTask, LongRunningTask, Priority, Progress, Settings, create_app
from conventions.app import ConventionsApp
from conventions.core.errors import ConfigurationError, TaskModuleError
from conventions.core.lease_timings import Timings
from conventions.idempotency.lease_keepers import PageKeeper
from conventions.stack.folder import Stack
from conventions.transport.celery_defaults import CLASS_QUEUES, celery_defaults
from tests.workers import application, forget, messages, remembering_current

MEMORY: dict[str, Any] = {"broker_url": "memory://", "redis_url": "redis://127.0.0.1:1"}


class Mail(ImmediateTask):
    """Send one e-mail."""

    queue_name = "test-app-mail"
    aliases = ("test_app.OldMail", "old.mail")
    not_idempotent = "a test"

    def run(self, number: int) -> None: ...


class Archive(LongRunningTask):
    """Archive one thing."""

    not_idempotent = "a test"

    def run(self, number: int) -> None: ...


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Write a package of a team, somewhere, and return its name; keywords are its modules."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))  # the tasks of all applications
    before = set(sys.modules)

    def write(init: str = "", **modules: str) -> str:
        name = f"team_{uuid4().hex[:8]}"
        (tmp_path / name).mkdir()
        for module, code in {"__init__": init, **modules}.items():
            (tmp_path / name / f"{module}.py").write_text(dedent(code), encoding="utf-8")
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("team_"):
            del sys.modules[name]


GOOD = '''
    """A task of a team."""
    from conventions import EVERY_ARGUMENT, ImmediateTask


    class Greet(ImmediateTask):
        """Greet one user."""

        idempotent_on = EVERY_ARGUMENT

        def run(self, user_id: int) -> None: ...
'''


UNDECIDED = """\
from conventions import ImmediateTask


class Undecided(ImmediateTask):
    '''Do something.'''

    def run(self): ...
"""
IMPOSSIBLE = """\
from conventions import ImmediateTask, RetryPolicy


class Impossible(ImmediateTask):
    '''Do something.'''
    retry_policy = RetryPolicy(attempts=0)
"""

# Addresses and settings.


def test_nothing_is_read_before_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package calls `create_app` while it is being imported; settings that cannot work must not break that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVENTIONS_TIMEZONE", "Mars/Olympus")
    with remembering_current():
        app = create_app("lazy", packages=["no.such.package"])
        with pytest.raises(ConfigurationError, match="CONVENTIONS_TIMEZONE"):
            app.settings  # noqa: B018  # reading it is what is tested


def test_without_a_broker_the_message_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says how to start one, and which variable to set."""
    monkeypatch.chdir(tmp_path)
    with application() as app:
        with pytest.raises(ConfigurationError) as found:
            app.broker_address  # noqa: B018  # reading it is what is tested
        assert found.value.faults == (
            "no broker: start one here with `celery -A tests up`, or set CONVENTIONS_BROKER_URL",
        )


def test_the_store_defaults_to_the_broker(tmp_path: Path) -> None:
    """And has an address of its own when one is set."""
    with application(broker_url="redis://localhost:7/2") as app:
        assert app.store.url == "redis://localhost:7/2"
        assert app.conf.result_backend == "redis://localhost:7/2"
    with application(broker_url="redis://localhost:7/2", redis_url="unix:///run/v.sock?db=1") as app:
        assert app.store.url == "unix:///run/v.sock?db=1"
        assert app.conf.result_backend == "redis+socket:///run/v.sock?virtual_host=1"


def test_the_database_defaults_to_a_file_in_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the folder of the embedded stack; nothing is made before it is used."""
    monkeypatch.chdir(tmp_path)
    with application(**MEMORY) as app:
        assert str(app.database.url) == "sqlite:///.conventions/conventions.sqlite3"
    assert list(tmp_path.iterdir()) == []


def test_keywords_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in the code is meant."""
    monkeypatch.setenv("CONVENTIONS_CONCURRENCY", "7")
    monkeypatch.setenv("CONVENTIONS_KEY_PREFIX", "environment")
    with application(**MEMORY, key_prefix="code") as app:
        assert (app.settings.concurrency, app.settings.key_prefix) == (7, "code")
        assert app.conf.worker_concurrency == 7


def test_a_misspelt_setting_is_named() -> None:
    """All faults at once."""
    with application(**MEMORY, conurrency=3, timezone="Nowhere") as app:
        with pytest.raises(ConfigurationError) as found:
            app.conf.timezone  # noqa: B018  # reading it is what is tested
        assert "conurrency: no such setting" in found.value.faults
        assert len(found.value.faults) == 2


def test_defaults_of_celery(app: ConventionsApp) -> None:
    """JSON alone, UTC inside; what functions are is left to Celery."""
    conf = app.conf
    assert (conf.task_serializer, conf.result_serializer, conf.accept_content) == ("json", "json", ("json",))
    assert (conf.enable_utc, conf.timezone) == (True, "Asia/Tokyo")
    assert conf.result_expires.total_seconds() == 86_400
    assert not conf.worker_send_task_events, "Flower turns them on"
    assert (conf.worker_concurrency, conf.worker_prefetch_multiplier) == (5, 4)
    assert conf.task_default_priority == Priority.NORMAL
    assert conf.beat_scheduler == "conventions.schedules.scheduler:Scheduler"


def test_every_setting_of_celery_exists(app: ConventionsApp) -> None:
    """Celery accepts a misspelt setting without a word."""
    from celery.app.defaults import NAMESPACES, flatten

    known = {name for name, _ in flatten(NAMESPACES)}
    ours = celery_defaults(app)
    assert {name for name in ours if not name.startswith("redbeat_")} <= known


def test_all_parts_keep_the_timings_of_the_lease() -> None:
    """They are made once, from the setting."""
    with application(broker_url="redis://127.0.0.1:1", lease=6, broker_timeout=3) as app:
        timings = app.timings
        assert timings == Timings.of(6)
        assert app.claims.lease == timings.lease
        assert app.broker._visibility == timings.visibility * 1000
        assert app.in_flight._timings is timings
        assert isinstance(app.in_flight._keeper, PageKeeper)
        assert {app.in_flight._keeper.every, app.lease_keeper._rounds._every} == {timings.renew_every}
        assert app.conf.redbeat_lock_timeout == timings.beat_lock
        app.be_patient()
        assert app.store.patience == app.broker.store.patience == app.settings.broker_timeout > timings.patience
    with application(broker_url="redis://127.0.0.1:1", lease=6, broker_timeout=20) as app:
        app.be_patient()
        assert app.store.patience == app.timings.longest_call


# Queues.


def test_a_worker_consumes_the_class_queues_and_those_of_the_tasks(app: ConventionsApp) -> None:
    """With no `-Q`; `-Q long` selects afterwards and is not undone."""
    app.load_tasks()
    queues = set(app.amqp.queues.consume_from)
    assert queues >= {*CLASS_QUEUES, "test-app-mail"}
    app.amqp.queues.select("long")
    app.load_tasks()
    assert set(app.amqp.queues.consume_from) == {"long"}


def test_an_alias_is_the_same_task(app: ConventionsApp) -> None:
    """Messages under the old name run."""
    app.load_tasks()
    assert app.tasks["old.mail"] is app.tasks["test_app.OldMail"] is app.tasks[Mail.name]


def test_an_alias_that_is_another_task(app: ConventionsApp) -> None:
    """One of the two would lose its messages."""
    app.tasks["old.mail"] = app.tasks[Archive.name]
    with pytest.raises(TaskModuleError, match=r"its alias 'old\.mail' is the name of another task"):
        app.load_tasks()


def test_an_alias_belongs_to_one_task(write: Callable[..., str]) -> None:
    """A subclass of a concrete task does not take the old names of its base."""
    code = '''
    from conventions import ImmediateTask


    class Renamed(ImmediateTask):
        """Do something."""

        not_idempotent = "a test"
        aliases = ("team.Old",)

        def run(self) -> None: ...


    class Special(Renamed):
        """Do it in another way."""
    '''
    name = write(jobs=code)
    with application([name], **MEMORY) as team:
        team.load_tasks()
        assert team.tasks["team.Old"] is team.tasks[f"{name}.jobs.Renamed"]


# Task packages.


def test_every_module_of_a_package_is_imported(app: ConventionsApp, write: Callable[..., str]) -> None:
    """No list to keep: subfolders too, but not `__main__` and not migrations."""
    name = write(mail=GOOD, __main__="raise SystemExit('started')")
    with application([name], **MEMORY) as team:
        team.load_tasks()
        assert f"{name}.mail.Greet" in team.tasks
        assert f"{name}.__main__" not in sys.modules


def test_packages_come_from_the_setting_too(monkeypatch: pytest.MonkeyPatch, write: Callable[..., str]) -> None:
    """`CONVENTIONS_TASK_PACKAGES` adds packages and single modules."""
    first, second = write(mail=GOOD), write(mail=GOOD)
    monkeypatch.setenv("CONVENTIONS_TASK_PACKAGES", f"{second}.mail, {first}")
    with application([first], **MEMORY) as team:
        assert team.packages == (first, f"{second}.mail")
        team.load_tasks()
        assert {f"{first}.mail.Greet", f"{second}.mail.Greet"} <= set(team.tasks)


def test_the_package_is_called_like_the_application() -> None:
    """Unless another is named."""
    with remembering_current():
        assert create_app("shop", **MEMORY).packages == ("shop",)


def test_an_application_may_have_no_package() -> None:
    """One that only sends, or takes all from the setting."""
    with remembering_current():
        assert create_app("sender", packages=[], **MEMORY).packages == ()


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("import nowhere", 1, "ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\n\ny = x / 0", 3, "ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:", 2, "SyntaxError: invalid syntax"),
        ("x = 1\nraise SystemExit(3)", 2, "SystemExit"),
        (UNDECIDED, 4, "Undecided: say what makes two messages the same job"),
        (IMPOSSIBLE, 6, "RetryPolicy: attempts must be at least 1, not 0"),
    ],
)
def test_a_broken_module_is_named_with_its_line(write: Callable[..., str], code: str, line: int, message: str) -> None:
    """Whatever it raises; the line is the team's, not ours."""
    name = write(good=GOOD, bad=code)
    with application([name], **MEMORY) as team, pytest.raises(TaskModuleError) as found:
        team.load_tasks()
    assert f"{name}.bad" in str(found.value)
    assert f"bad.py, line {line})" in str(found.value)
    assert message in str(found.value)
    assert found.value.exit_code == 2


def test_a_broken_package_is_named_with_its_line(write: Callable[..., str]) -> None:
    """Also when it is the package's own `__init__`, or that of a subpackage."""
    name = write("x = 1\n\nimport nowhere")
    with application([name], **MEMORY) as team, pytest.raises(TaskModuleError, match=r"__init__\.py, line 3"):
        team.load_tasks()


def test_a_package_that_does_not_exist() -> None:
    """There is no line to name."""
    expected = pytest.raises(TaskModuleError, match="no_such_package: ModuleNotFoundError: No module named")
    with application(["no_such_package"], **MEMORY) as team, expected:
        team.load_tasks()


@pytest.mark.parametrize(
    "left_out",
    [
        "scripts/wipe.py",
        "tests/test_jobs.py",
        "management/commands/send.py",
        "conftest.py",
        "wsgi.py",
        "jobs/manage.py",
    ],
)
def test_what_is_run_and_not_imported(write: Callable[..., str], tmp_path: Path, left_out: str) -> None:
    """A script would do its work at the start of each worker. Who has tasks there names the module."""
    name = write(mail="sent = []")
    file = tmp_path / name / left_out
    file.parent.mkdir(parents=True, exist_ok=True)
    for folder in (file.parent, *file.parent.parents):
        if folder.is_relative_to(tmp_path / name):
            (folder / "__init__.py").touch()
    file.write_text("raise SystemExit('it was run')")
    with application([name], **MEMORY) as team:
        team.import_packages()
        assert f"{name}.mail" in sys.modules
    named = f"{name}.{left_out.removesuffix('.py').replace('/', '.')}"
    with application([name, named], **MEMORY) as team, pytest.raises(TaskModuleError, match="it was run"):
        team.import_packages()


def test_migrations_are_no_task_modules(write: Callable[..., str], tmp_path: Path) -> None:
    """Alembic runs them; `app.database` finds them."""
    name = write(mail=GOOD)
    (tmp_path / name / "migrations").mkdir()
    (tmp_path / name / "migrations" / "first.py").write_text("raise RuntimeError('imported')\nrevision = 'a1'")
    with application([name], **MEMORY) as team:
        team.load_tasks()
        assert team.database._migrations == (tmp_path / name / "migrations",)


def test_the_embedded_broker_stays_the_one_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it does not run: a send says that it is away, and not that none is set."""
    found = Stack(1, "redis+socket:///x/valkey.sock", "unix:///x/valkey.sock", None, "/x/valkey.sock", "")
    answers: list[Stack | None] = [None, found, None]
    monkeypatch.setattr("conventions.app.stack.find", lambda: answers.pop(0))
    with application() as team:
        with pytest.raises(ConfigurationError, match="no broker: start one here"):
            _ = team.broker_address
        assert team.broker_address == found.broker_url
        assert team.broker_address == found.broker_url


def test_a_sender_knows_the_queues_of_its_jobs(valkey_url: str) -> None:
    """Also where Celery is told to make none, and only a worker has loaded the tasks."""
    with application(broker_url=valkey_url, key_prefix=f"t{uuid4().hex[:8]}") as team:
        team.conf.update(task_create_missing_queues=False, task_queues=[])
        Mail.apply_async((1,), countdown=1)  # by Celery's own way
        Mail.delay(2)
        assert {sent.queue for sent in messages(team)} == {"test-app-mail"}
        with pytest.raises(QueueNotFound):
            Mail.apply_async((3,), queue="typo")
        forget(team.store)


# Several applications.


def test_two_applications_in_one_process(valkey_url: str) -> None:
    """What is sent goes to the current one, and a task's `self.app` is the application that runs it."""
    first_prefix, second_prefix = f"t{uuid4().hex[:8]}", f"t{uuid4().hex[:8]}"
    with application(broker_url=valkey_url, key_prefix=first_prefix) as first:
        Mail.delay(1)
        with application(broker_url=valkey_url, key_prefix=second_prefix) as second:
            Mail.delay(2)
            first.tasks[Mail.name].delay(3)
            assert {sent.arguments["number"] for sent in messages(first)} == {1, 3}
            assert {sent.arguments["number"] for sent in messages(second)} == {2}
            assert first.tasks[Mail.name].app is first
            assert second.tasks[Mail.name].app is second
        Mail.delay(4)
        assert {sent.arguments["number"] for sent in messages(first)} == {1, 3, 4}


def test_keys_depend_on_the_prefix_not_on_the_name(app: ConventionsApp, valkey_url: str) -> None:
    """A renamed application finds its claims and messages."""
    Mail.delay(1)
    with remembering_current():
        renamed = create_app("renamed", broker_url=valkey_url, key_prefix=app.settings.key_prefix)
        assert renamed.store.key("claim", "a") == app.store.key("claim", "a")
        assert len(messages(renamed)) == 1


def test_every_key_has_the_prefix(app: ConventionsApp) -> None:
    """Several applications may share one Redis."""
    found = app.store.redis
    before = set(found.scan_iter())
    Mail.delay(1)
    Mail.cancel("a-message")
    new = set(found.scan_iter()) - before
    prefix = f"{{{app.settings.key_prefix}}}:".encode()
    assert new
    assert all(key.startswith(prefix) for key in new), new


def test_progress_outside_of_a_job_reads_the_current_application(app: ConventionsApp) -> None:
    """`Progress.of` needs no application."""
    assert Progress.of("nothing").done == 0


def test_an_application_survives_pickle(app: ConventionsApp) -> None:
    """A spawned pool process makes it anew."""
    with remembering_current():
        again = pickle.loads(pickle.dumps(app))
        assert (again.main, again.settings) == (app.main, app.settings)
        assert isinstance(again.settings, Settings)


@pytest.mark.thorough
def test_the_settings_of_a_package_in_the_current_folder_survive_a_spawn(tmp_path: Path) -> None:
    """A spawned pool process does not find that folder on its path, as where `celery` is started by its script."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from conventions import Settings, create_app\n\n\nclass ShopSettings(Settings):\n    colour: str = 'red'\n\n\n"
        "app = create_app('shop', settings_class=ShopSettings, broker_url='memory://', redis_url='redis://127.0.0.1:1')\n"
    )
    write = "import pickle, sys; sys.path.insert(0, '.'); import shop; sys.stdout.buffer.write(pickle.dumps(shop.app))"
    read = "import pickle, sys; app = pickle.loads(sys.stdin.buffer.read()); print(type(app.settings).__name__, app.settings.colour)"
    command = [sys.executable, "-P", "-c"]  # -P: not the current folder
    pickled = subprocess.run([*command, write], cwd=tmp_path, capture_output=True, check=True).stdout
    found = subprocess.run([*command, read], cwd=tmp_path, input=pickled, capture_output=True, check=False)
    assert found.stdout.decode().split() == ["ShopSettings", "red"], found.stderr.decode()


def test_sending_works_from_any_thread(app: ConventionsApp) -> None:
    """A web server has many, and Celery's current application is one for each thread."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: Mail.delay(number).id, range(40)))
    assert {sent.id for sent in messages(app)} == set(ids)
