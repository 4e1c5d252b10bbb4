"""The application of Django."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ConventionsConfig(AppConfig):
    """Has no models: `migrations/` makes the tables of SQL records by the versions that `db upgrade` runs."""

    name = "conventions.django"
    label = "conventions"
    verbose_name = "Celery conventions"

    def ready(self) -> None:
        """Look after our tables when Django has migrated, or has emptied a database after a test."""
        post_migrate.connect(_look_after_tables, sender=self)


def _look_after_tables(using: str, **_: Any) -> None:
    from conventions.django.table_migration import look_after_tables  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    look_after_tables(using)
