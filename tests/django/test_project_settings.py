"""What a project says in `settings.CONVENTIONS` and in its settings of Celery, and what wins over what."""

from pathlib import Path

import pytest

from tests.django_project import DjangoProject
from tests.prepared_python import FRESH

ERROR = """
from conventions.core.errors import ConfigurationError
try:
    {}
except ConfigurationError as error:
    print(error)
else:
    raise AssertionError("it was taken")
"""


def show(project: DjangoProject, *expressions: str) -> list[str]:
    """What these are in a process of the project."""
    return project.python("\n".join(["from shop import app", *(f"print({one})" for one in expressions)])).splitlines()


def fault(project: DjangoProject, statement: str) -> str:
    """The error of a statement."""
    return project.python("from shop import app\n" + ERROR.format(statement))


def test_what_wins(sqlite_project: DjangoProject) -> None:
    """A keyword of `create_app`, the environment, `settings.CONVENTIONS`, Celery's name of the same setting, the default."""
    project = sqlite_project
    project.say('CONVENTIONS |= {"LEASE": 20, "SHUTDOWN_GRACE": 7, "CONCURRENCY": 9, "DEAD_LETTER_RETENTION": 86400}')
    project.say("CELERY_WORKER_CONCURRENCY = 3\nCELERY_RESULT_EXPIRES = 77")
    project.variables |= {"CONVENTIONS_LEASE": "40", "CONVENTIONS_START_LIMIT": "8"}
    path = project.folder / "shop" / "celery.py"
    path.write_text(path.read_text().replace('"orders.jobs"]', '"orders.jobs"], start_limit=2'))
    names = ("lease", "shutdown_grace", "concurrency", "start_limit", "result_expires.seconds", "stall_after")
    found = show(project, *(f"app.settings.{name}" for name in names), "app.conf.worker_concurrency")
    assert found == ["40.0", "7.0", "9", "2", "77", "600.0", "9"]
    assert show(project, "app.settings.dead_letter_retention.days", "app.timings.lease") == ["1", "40.0"]


def test_the_project_is_read_without_an_application_of_django(sqlite_project: DjangoProject) -> None:
    """Then our tables are elsewhere, as without Django."""
    project = sqlite_project
    project.say('INSTALLED_APPS.remove("conventions.django")\nCONVENTIONS["LEASE"] = 20')
    url = show(project, "app.settings.lease", "app.settings.database_url", "app.database.url")
    assert url == ["20.0", "None", "sqlite:///.conventions/conventions.sqlite3"]


def test_the_tables_are_in_the_project_s_database(project: DjangoProject, kind: str) -> None:
    """Where its `default` is."""
    (url,) = show(project, "app.database.url.render_as_string()")
    if kind == "sqlite":
        assert url == f"sqlite:///{project.folder}/shop.sqlite3"
    else:
        variables = project.variables
        assert url == (
            f"postgresql+psycopg://{variables['POSTGRES_USER']}:***@:5432/{variables['POSTGRES_DB']}?host="
            + variables["POSTGRES_HOST"].replace("/", "%2F")
        )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"leese": 3, "LEESE": 3}', "settings.CONVENTIONS['leese']: write the name in capitals"),
        ('{"LEESE": 3}', "leese: no such setting"),
        ('{"LEASE": 1}', "CONVENTIONS_LEASE: must be"),
        ("[1]", 'settings.CONVENTIONS: write a dictionary, such as {"LEASE": 30}'),
        ('{"DATABASE_URL": "django://replica"}', "django://replica: DATABASES has no 'replica'; it has default"),
        ('{"DATABASE_URL": "django://"}', "django://: DATABASES has no ''"),
    ],
)
def test_faults_name_the_setting(sqlite_project: DjangoProject, said: str, expected: str) -> None:
    """At the first use."""
    sqlite_project.say(f"CONVENTIONS = {said}")
    assert expected in fault(sqlite_project, "app.settings, app.database")


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, "is seen by one connection alone; name a file"),
        ({"ENGINE": "django.db.backends.dummy"}, "our tables can be in PostgreSQL and SQLite, and this is unknown"),
    ],
)
def test_databases_that_cannot_have_our_tables(
    sqlite_project: DjangoProject, database: dict[str, str], expected: str
) -> None:
    """Named, with what to set."""
    sqlite_project.say(f'DATABASES = {{"default": {database!r}}}')
    assert expected in fault(sqlite_project, "app.database")


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ({"NAME": "a", "USER": "u", "PASSWORD": "p@/:", "HOST": "h", "PORT": "6000"}, "u:p%40%2F%3A@h:6000/a {}"),
        ({"NAME": "a"}, "/a {}"),
        ({"NAME": "a", "HOST": "::1"}, "[::1]/a {}"),
        (
            {"OPTIONS": {"service": "main", "passfile": ".pg", "prepare_threshold": None}},
            " {'passfile': '.pg', 'prepare_threshold': None, 'service': 'main'}",
        ),
        (
            {"NAME": "a", "OPTIONS": {"sslmode": "require", "pool": True, "isolation_level": 2, "connect_timeout": 3}},
            "/a {'connect_timeout': 3, 'sslmode': 'require'}",
        ),
        (
            {
                "NAME": "a",
                "OPTIONS": {"options": "-c search_path=jobs", "assume_role": "owner", "user": "u", "password": "p"},
            },
            "u:p@/a {'options': '-c search_path=jobs -c role=owner'}",
        ),
    ],
)
def test_addresses_of_postgresql(sqlite_project: DjangoProject, database: dict[str, object], expected: str) -> None:
    """All that the driver reads is given to it as Django gives it; what Django reads itself is not."""
    said = {"ENGINE": "django.db.backends.postgresql"} | database
    sqlite_project.say(f'DATABASES = {{"default": {said!r}}}')
    options = "dict(sorted(__import__('conventions.django.database_address').django.database_address.driver_options('default').items()))"
    url, found = show(sqlite_project, "app.database.url.render_as_string(hide_password=False)", options)
    assert f"{url.removeprefix('postgresql+psycopg://')} {found}" == expected


def test_a_database_of_production(sqlite_project: DjangoProject) -> None:
    """Django's own setting is looked at as an address is: verified TLS, or a host of a private network, and a good password."""
    project = sqlite_project
    project.variables["CONVENTIONS_ENVIRONMENT"] = "production"
    project.settings["broker_url"] = "redis://:k3-long-enough@127.0.0.1"
    said = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "a",
        "HOST": "db.example.com",
        "USER": "u",
        "PASSWORD": "hunter2",
    }
    project.say(f'DATABASES = {{"default": {said!r}}}')
    told = fault(project, "app.database")
    assert "django://default: the connection to db.example.com has no verified TLS: add ?sslmode=verify-full" in told
    assert "django://default: its password has 7 characters" in told
    assert "hunter2" not in told
    project.say('DATABASES["default"] |= {"PASSWORD": "k3-long-enough", "OPTIONS": {"sslmode": "verify-full"}}')
    assert show(project, "app.database.url.host") == ["db.example.com"]
    project.say('DATABASES["default"]["OPTIONS"] = {}\nCONVENTIONS["PLAINTEXT_HOSTS"] = ["db.example.com"]')
    assert show(project, "app.database.url.host") == ["db.example.com"]


def test_settings_of_celery_lie_over_ours(sqlite_project: DjangoProject) -> None:
    """What the project does not say stays as it is here: jobs are acknowledged late, whatever else it says."""
    sqlite_project.say("CELERY_WORKER_PREFETCH_MULTIPLIER = 2\nCELERY_TASK_ROUTES = {'f': {'queue': 'q'}}")
    found = show(
        sqlite_project,
        "app.conf.worker_prefetch_multiplier",
        "app.conf.beat_scheduler",
        "app.conf.worker_max_tasks_per_child",
        "app.conf.broker_transport_options['link'] is not None",
        "app.amqp.router.route({}, 'f')['queue'].name",
        "__import__('orders.jobs').jobs.ChargeOrder.registered.acks_late",
        "app.amqp.router.route({}, 'orders.jobs.ChargeOrder').get('queue')",
    )
    assert found[:5] == ["2", "conventions.schedules.scheduler:Scheduler", "1000", "True", "q"]
    assert found[5] == "True"
    assert "immediate" in found[6]


def test_a_broker_of_celery_s_settings(sqlite_project: DjangoProject) -> None:
    """It is ours, too, unless something says another one."""
    project = sqlite_project
    project.say('CELERY_BROKER_URL = "redis://of-celery:1/2"')
    assert show(project, "app.settings.broker_url") == [project.settings["broker_url"]]
    del project.settings["broker_url"]
    assert show(project, "app.settings.broker_url", "app.store.redis.connection_pool.connection_kwargs['db']") == [
        "redis://of-celery:1/2",
        "2",
    ]


BREAKS = {
    "TASK_SERIALIZER": "'pickle'",
    "ACCEPT_CONTENT": "['json', 'pickle']",
    "RESULT_SERIALIZER": "'yaml'",
    "TASK_COMPRESSION": "'gzip'",
    "TASK_PROTOCOL": "1",
    "BROKER_TRANSPORT": "'memory'",
    "BROKER_TRANSPORT_OPTIONS": "{'visibility_timeout': 3600}",
    "BROKER_USE_SSL": "{'a': 1}",
    "BROKER_CONNECTION_MAX_RETRIES": "3",
    "WORKER_CONSUMER": "'x:Y'",
    "BEAT_SCHEDULER": "'django_celery_beat.schedulers:DatabaseScheduler'",
    "RESULT_BACKEND": "'django-db'",
    "REDBEAT_LOCK_TIMEOUT": "3",
}


def test_what_would_break_a_promise_is_refused_by_name(sqlite_project: DjangoProject) -> None:
    """All at once, when the configuration is first read; the same values as ours are no fault."""
    for name, value in BREAKS.items():
        sqlite_project.say(f"CELERY_{name} = {value}")
    said = fault(sqlite_project, "app.conf.task_serializer")
    assert sorted(line.partition(":")[0] for line in said.splitlines()) == sorted(f"CELERY_{name}" for name in BREAKS)
    assert all("take it out" in line for line in said.splitlines())


def test_the_same_as_ours_is_no_fault(sqlite_project: DjangoProject) -> None:
    """As many projects say it."""
    project = sqlite_project
    project.settings["broker_url"] = "redis://server:6379/1"
    project.say(
        "CELERY_TASK_SERIALIZER = 'json'\nCELERY_ACCEPT_CONTENT = ['application/json']\nCELERY_ENABLE_UTC = True"
    )
    project.say("CELERY_RESULT_BACKEND = 'redis://server:6379/1'\nCELERY_TASK_ACKS_LATE = False")
    assert show(project, "app.conf.task_acks_late", "app.conf.result_backend") == ["False", "redis://server:6379/1"]


def test_another_namespace_is_another_configuration(sqlite_project: DjangoProject) -> None:
    """Nothing of the old application's is read, also not its names of before, which Celery reads with any namespace."""
    project = sqlite_project
    for name, value in BREAKS.items():
        project.say(f"CELERY_{name} = {value}")
    project.say(
        "BROKER_URL = 'redis://another:1/1'\nCELERYD_CONCURRENCY = 77\nCELERY_TIMEZONE = 'UTC'\nJOBS_WORKER_PREFETCH_MULTIPLIER = 2"
    )
    path = project.folder / "shop" / "celery.py"
    path.write_text(path.read_text().replace('namespace="CELERY"', 'namespace="JOBS_"'))
    names = ("worker_prefetch_multiplier", "task_serializer", "timezone", "worker_concurrency")
    assert show(project, *(f"app.conf.{name}" for name in names)) == ["2", "json", "Asia/Tokyo", "5"]
    assert show(project, "app.settings.broker_url") == [project.settings["broker_url"]]
    project.say("JOBS_TASK_SERIALIZER = 'pickle'")
    assert fault(project, "app.conf.timezone").startswith("JOBS_TASK_SERIALIZER: ")


CHANGES = {
    "app.conf.update(task_serializer='pickle')": "task_serializer",
    "app.conf.broker_url = 'redis://another:1/1'": "broker_url",
    "app.conf.result_backend = 'rpc://'": "result_backend",
    "app.conf.timezone = 'UTC'": "timezone",
    "app.conf.broker_connection_retry_on_startup = False": "broker_connection_retry_on_startup",
    "app.add_defaults({'accept_content': ['pickle', 'json']})": "accept_content",
    "app.conf.accept_content = 5": "accept_content",
}


def test_what_was_changed_since_is_refused(sqlite_project: DjangoProject) -> None:
    """When a command begins: whichever way it was changed. What says the same is no fault."""
    for change, name in CHANGES.items():
        if change.startswith("app.add_defaults"):  # it comes behind ours, and has no effect
            continue
        assert fault(sqlite_project, f"exec({change!r}) or app.load_tasks()").startswith(f"{name} of app.conf: ")
    program = "from shop import app\napp.conf.update(task_serializer='json', timezone='Asia/Tokyo', accept_content=['json'])\napp.load_tasks()"
    assert sqlite_project.python(program) == ""


def test_a_worker_takes_json_alone(sqlite_project: DjangoProject) -> None:
    """Whatever `add_defaults` says, which a worker cannot see in its configuration's changes."""
    program = (
        "from shop import app\napp.add_defaults({'accept_content': ['pickle', 'json']})\n"
        "with app.connection_for_read() as connection:\n"
        "    print(app.amqp.TaskConsumer(connection.default_channel, queues=[], accept=['pickle']).accept)"
    )
    assert "pickle" not in sqlite_project.python(program)


def test_an_application_that_was_pickled_has_its_configuration(sqlite_project: DjangoProject) -> None:
    """As a process of the pool that was not forked gets it."""
    sqlite_project.say("CELERY_WORKER_PREFETCH_MULTIPLIER = 7")
    program = (
        "import pickle\nfrom shop import app\nprint(pickle.loads(pickle.dumps(app)).conf.worker_prefetch_multiplier)"
    )
    assert sqlite_project.python(program) == "7\n"


def test_a_password_is_not_shown(sqlite_project: DjangoProject) -> None:
    """Also where it is an option of the driver."""
    options = {"password": "hunter2", "sslpassword": "hunter3"}
    sqlite_project.say(
        f"DATABASES['other'] = {{'ENGINE': 'django.db.backends.postgresql', 'NAME': 'x', 'OPTIONS': {options!r}}}"
    )
    said = sqlite_project.python(
        "from shop import app\nfrom conventions.django.database_address import place_fault\nprint(place_fault('other', app.database))"
    )
    assert "our tables are in sqlite " in said
    assert "this is postgresql x at localhost:5432" in said
    assert "hunter" not in said


@pytest.mark.parametrize("arguments", [("check",), ("worker", "-c", "1"), ("beat",)])
def test_a_command_says_it_in_lines(sqlite_project: DjangoProject, arguments: tuple[str, ...]) -> None:
    """Also for what `app.conf.update(...)` has changed; nothing starts, and there is no traceback."""
    with (sqlite_project.folder / "shop" / "celery.py").open("a") as file:
        file.write("\napp.conf.update(task_serializer='pickle')\n")
    ended = sqlite_project.run(*arguments, app="shop")
    assert ended.returncode != 0
    assert "task_serializer of app.conf: a message in another form than JSON" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_an_environment_without_django_s_package(tmp_path: Path) -> None:
    """`DJANGO_SETTINGS_MODULE` alone, as a shell may have it, changes nothing."""
    from tests.workers import Installation

    installation = Installation(tmp_path, ["installed"], broker_url="redis://localhost:1")
    (tmp_path / "django.py").write_text("raise ImportError('not here')", encoding="utf-8")
    hidden = "import os, sys, warnings\nos.environ['DJANGO_SETTINGS_MODULE'] = 'nowhere'\n"
    hidden += "warnings.simplefilter('ignore')\nsys.modules['django'] = None\n"
    program = f"{hidden}from installed import app\nprint(app.settings.lease)"
    assert installation.python(program, **{FRESH: "1"}) == "30.0\n"
