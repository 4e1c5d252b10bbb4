"""The application of Django."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.signals import post_migrate

from conventions.library_internals.django import tests_run
from conventions.storage.database import Database
from conventions.storage.tables import IdempotencyRow, OutboxRow

OF_TESTS = (IdempotencyRow.__tablename__, OutboxRow.__tablename__)


class ConventionsConfig(AppConfig):
    """Has no models: `migrations/` makes the tables of SQL records by the versions that `db upgrade` runs."""

    name = "conventions.django"
    label = "conventions"
    verbose_name = "Celery conventions"

    def ready(self) -> None:
        """Look after our tables when Django has migrated, or has emptied a database after a test."""
        post_migrate.connect(_look_after_tables, sender=self)


def _look_after_tables(using: str, **_: Any) -> None:
    """Make the tables that Django takes for made, and empty, as its own, what jobs of a test have left.

    Django notes a migration as done also where a router kept it from the database, where our tables were somewhere else then, and where
    `celery leave` has dropped them since.
    """
    from conventions.django.table_migration import has_our_tables, in_database  # noqa: PLC0415  # Alembic takes 0.2 s to import

    if not has_our_tables(using):
        return
    connection = connections[using]
    known = connection.introspection.table_names()
    applied = MigrationRecorder(connection).applied_migrations()
    if not any(app == ConventionsConfig.label for app, _ in applied):  # by `migrate conventions zero`
        return
    if not tests_run() or OF_TESTS[0] not in known:
        in_database(using, Database.upgrade_ours)
    elif not connection.in_atomic_block:
        with connection.cursor() as cursor:
            for table in OF_TESTS:
                if table in known:
                    cursor.execute(f"DELETE FROM {table}")  # noqa: S608  # a constant
