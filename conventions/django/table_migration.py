"""`manage.py migrate` runs the versions that `db upgrade` runs, so that either of them makes our tables, in any order."""

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.db.migrations import RunPython
from django.db.migrations.recorder import MigrationRecorder

from conventions.core.errors import ConfigurationError
from conventions.core.settings import Settings
from conventions.django.database_address import database_of
from conventions.django.project_settings import NOBODY, alias_in, project_settings
from conventions.library_internals.django import tests_run
from conventions.storage.database import Database
from conventions.storage.tables import IdempotencyRow, OutboxRow

LABEL = "conventions"  # of our application of Django
OF_TESTS = (
    IdempotencyRow.__tablename__,
    OutboxRow.__tablename__,
)  # what `TransactionTestCase` leaves, since it empties models


def tables_of(version: str) -> RunPython:
    """The operation of a migration of Django: bring our tables to a version of Alembic, or take them all away.

    It does so in the database of our tables alone. Its migration must not be atomic, since SQLAlchemy has a connection of its own.
    """
    return RunPython(
        _in_our_database(lambda database: database.upgrade_ours(version)), _in_our_database(Database.drop_ours)
    )


def _in_our_database(change: Callable[[Database], None]) -> Callable[[Any, Any], None]:
    def run(_apps: Any, schema_editor: Any) -> None:
        alias = schema_editor.connection.alias
        if has_our_tables(alias):
            in_database(alias, change)

    return run


def look_after_tables(alias: str) -> None:
    """Make the tables that Django takes for made, and empty, as its own, what jobs of a test have left.

    Django notes a migration as done also where a router kept it from the database, where our tables were somewhere else then, and where
    `celery leave` has dropped them since.
    """
    if not has_our_tables(alias):
        return
    connection = connections[alias]
    applied = MigrationRecorder(connection).applied_migrations()
    if not any(app == LABEL for app, _ in applied):  # by `migrate conventions zero`
        return
    known = connection.introspection.table_names()
    if not tests_run() or OF_TESTS[0] not in known:
        in_database(alias, Database.upgrade_ours)
    elif not connection.in_atomic_block:
        with connection.cursor() as cursor:
            for table in OF_TESTS:
                if table in known:
                    cursor.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant


def has_our_tables(alias: str) -> bool:
    """Whether our tables are to be in this database of Django. Raises: ConfigurationError."""
    # The broker is no matter here, and may be said where only the application looks.
    settings = Settings.load(project_settings(), broker_url=NOBODY)
    return alias_in(settings.database_url) == alias


def in_database(alias: str, change: Callable[[Database], None]) -> None:
    """Change our tables in this database of Django, by a connection of our own. Raises: CommandError: it cannot be used."""
    database = database_of(alias)
    try:
        change(database)
    except ConfigurationError as error:  # `migrate` would print where it was raised
        raise CommandError(str(error)) from error
    finally:
        database.dispose()
