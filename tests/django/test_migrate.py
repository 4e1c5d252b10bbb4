"""Our tables, by `manage.py migrate` and by `celery db upgrade`, in any order."""

import pytest

from conventions.storage.migrations.run import VERSION_TABLE
from conventions.storage.tables import Base
from tests.django_project import DjangoProject
from tests.prepared_python import FRESH

TABLES = {*Base.metadata.tables, VERSION_TABLE}
LATEST = """
from alembic.script import ScriptDirectory
from conventions.storage.migrations import run
from django.db.migrations.loader import MigrationLoader
from pathlib import Path
versions = ScriptDirectory(str(Path(run.__file__).parent)).get_heads()
names = sorted(name for app, name in MigrationLoader(None).disk_migrations if app == "conventions")
print(*versions, Path(run.__file__).parents[2].joinpath("django", "migrations", names[-1] + ".py").read_text().count(versions[0]))
"""


def tables(project: DjangoProject, alias: str = "default") -> set[str]:
    """The tables of the project's database."""
    return set(
        project.python(
            f"from django.db import connections\nprint(*connections[{alias!r}].introspection.table_names())"
        ).split()
    )


def test_migrate_makes_them(project: DjangoProject) -> None:
    """Once; `db upgrade` has nothing to do after it, and `check` finds them. `migrate conventions zero` takes them away, and no other table."""
    for _ in range(2):
        project.manage("migrate")
    assert tables(project) >= TABLES | {"orders_order"}
    assert "up to date" in project.run("db", "upgrade", app="shop").stdout
    assert '"database"' not in project.run("check", app="shop").stdout
    project.manage("migrate", "conventions", "zero")
    assert tables(project) & TABLES <= {VERSION_TABLE}
    assert "orders_order" in tables(project)
    project.manage("migrate")
    assert tables(project) >= TABLES


def test_db_upgrade_makes_them(project: DjangoProject) -> None:
    """It leaves Django's migrations alone, and says so; `migrate` has nothing to do for our tables after it."""
    path = project.folder / "shop" / "celery.py"
    path.write_text(path.read_text().replace("orders.jobs", "orders"))
    said = project.run("db", "upgrade", app="shop")
    assert said.returncode == 0, said.stdout
    assert (
        f"left alone: {project.folder}/orders/migrations: migrations of Django: run `manage.py migrate`" in said.stdout
    )
    assert tables(project) == TABLES
    project.manage("migrate")
    assert tables(project) > TABLES


def test_another_database_of_the_project_gets_none(sqlite_project: DjangoProject) -> None:
    """Also where `DATABASE_URL` names it, or a place outside of Django."""
    project = sqlite_project
    project.say('DATABASES["other"] = DATABASES["default"] | {"NAME": FOLDER / "other.sqlite3"}')
    project.manage("migrate", "--database", "other")
    assert tables(project, "other").isdisjoint(TABLES)
    project.say('CONVENTIONS["DATABASE_URL"] = "sqlite:///elsewhere.sqlite3"')
    project.manage("migrate")
    assert tables(project).isdisjoint(TABLES)
    assert not (project.folder / "elsewhere.sqlite3").exists()


def test_migrate_asks_for_no_broker(sqlite_project: DjangoProject) -> None:
    """Also in production, where the application has it of Celery's settings. Django starts without SQLAlchemy, which takes long to import."""
    project = sqlite_project
    del project.settings["broker_url"]
    project.variables["CONVENTIONS_ENVIRONMENT"] = "production"
    project.say("CELERY_BROKER_URL = 'rediss://:k3-long-enough@of-celery:1/2'")
    project.manage("migrate")
    assert tables(project) >= TABLES
    assert project.python("import sys\nprint('sqlalchemy' in sys.modules)", **{FRESH: "1"}) == "False\n"


def test_other_ones_see_what_it_does(sqlite_project: DjangoProject) -> None:
    """`sqlmigrate` says that there is no SQL to show, and `makemigrations` finds nothing to do."""
    assert "CANNOT BE WRITTEN AS SQL" in sqlite_project.manage("sqlmigrate", "conventions", "0001")
    assert "No changes detected" in sqlite_project.manage("makemigrations", "--check", "--dry-run")


def test_the_last_migration_is_the_last_version(sqlite_project: DjangoProject) -> None:
    """A version that Alembic has and Django's migrations have not would be forgotten by `manage.py migrate`."""
    version, count = sqlite_project.python(LATEST).split()
    assert count == "1", f"conventions/django/migrations/ needs a migration for {version}"


def test_the_tests_of_the_project(project: DjangoProject) -> None:
    """`manage.py test`: jobs in a `TestCase`, on either kind, without a broker."""
    del project.settings["broker_url"]
    if project.variables.get("POSTGRES_HOST") is None:
        project.say(
            'DATABASES["default"].pop("OPTIONS")'
        )  # as most projects have it; nobody writes at the same time there
    assert "OK" in project.manage("test")


ROUTER = """

class Router:
    def allow_migrate(self, db, app_label, **hints):
        return app_label in {"orders", "contenttypes"}
"""


def test_tables_that_django_takes_for_made(project: DjangoProject) -> None:
    """Dropped since, or kept away by a router, which knows no application of this name: `migrate` makes them all the same."""
    project.manage("migrate")
    project.python("from shop import app\napp.database.drop_ours()")
    assert "conventions_executions" not in tables(project)
    project.manage("migrate")
    assert tables(project) >= TABLES
    project.manage("migrate", "conventions", "zero")
    (project.folder / "shop" / "router.py").write_text(ROUTER, encoding="utf-8")
    project.say('DATABASE_ROUTERS = ["shop.router.Router"]')
    project.manage("migrate")
    assert tables(project) >= TABLES


MORE_TESTS = """

from django.test import TransactionTestCase
from conventions import EVERY_ARGUMENT, ImmediateTask


class Log(ImmediateTask):
    '''Write by a session.'''

    idempotent_on = EVERY_ARGUMENT

    def run(self, text: str) -> None:
        with self.transaction() as session:
            session.connection()


class Committed(TransactionTestCase):
    reset_sequences = True

    def charge(self) -> None:
        order = Order.objects.create(customer="ann", amount=1200)
        ChargeOrder.apply(kwargs={"order_id": order.pk}).get()
        ChargeOrder.delay_on_commit(order_id=order.pk)
        Log.apply(kwargs={"text": "a"}).get()
        assert Receipt.objects.count() == 1

    def test_one(self) -> None:
        self.charge()

    def test_another_of_the_same_key(self) -> None:
        self.charge()


class OnCommit(TestCase):
    def test_nothing_of_ours_waits_for_the_commit(self) -> None:
        order = Order.objects.create(customer="ann", amount=1200)
        with self.captureOnCommitCallbacks() as callbacks:
            ChargeOrder.apply(kwargs={"order_id": order.pk}).get()
        assert callbacks == []
"""


def test_records_do_not_outlive_a_test(project: DjangoProject) -> None:
    """Of a `TransactionTestCase`, which commits; and no connection of ours keeps its database from being dropped."""
    with (project.folder / "orders" / "tests.py").open("a") as file:
        file.write(MORE_TESTS)
    del project.settings["broker_url"]
    assert "OK" in project.manage("test", "--keepdb")
    assert "OK" in project.manage("test", "--noinput")


def test_in_tests_the_broker_of_the_project_counts(sqlite_project: DjangoProject) -> None:
    """Where it names one; a mail that was sent to memory makes no test."""
    project = sqlite_project
    del project.settings["broker_url"]
    tests = "from shop import app\n\n\nclass Broker(TestCase):\n    def test_it(self) -> None:\n        assert app.settings.broker_url == {!r}\n"
    path = project.folder / "orders" / "tests.py"
    text = path.read_text()
    for said, expected in (
        ("", "unix:///no-broker-in-tests-of-django"),
        ("CELERY_BROKER_URL = 'redis://h'", "redis://h"),
    ):
        project.say(said)
        path.write_text(text + "\n\n" + tests.format(expected))
        assert "OK" in project.manage("test")
    project.say("EMAIL_BACKEND = 'django.core.mail.backends.locmem.EmailBackend'")
    mail = "from django.core.mail import send_mail\nsend_mail('a', 'b', 'c@example.com', ['d@example.com'])\n"
    assert project.python(f"{mail}from shop import app\nprint(app.settings.broker_url)") == "redis://h\n"


@pytest.mark.parametrize("fault", ["record.result = 1\n            fail()", "transaction.set_rollback(True)"])
def test_a_test_case_sees_what_a_worker_would(sqlite_project: DjangoProject, fault: str) -> None:
    """A job whose block was rolled back fails there, too."""
    path = sqlite_project.folder / "orders" / "jobs.py"
    text = path.read_text().replace("            record.result =", f"            {fault}\n            record.result =")
    path.write_text(text + "\n\nfrom django.db import transaction\n\n\ndef fail() -> None:\n    raise ValueError\n")
    assert "FAILED (errors=2)" in sqlite_project.manage("test", fails=True)
