"""`manage.py migrate` runs the versions that `db upgrade` runs, so that either of them makes our tables, in any order."""

from collections.abc import Callable
from typing import Any

from django.db.migrations import RunPython

from conventions.core.settings import Settings
from conventions.django.database_address import database_of
from conventions.django.project_settings import alias_in, project_settings
from conventions.storage.database import Database


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


def has_our_tables(alias: str) -> bool:
    """Whether our tables are to be in this database of Django. Raises: ConfigurationError."""
    return alias_in(Settings.load(project_settings()).database_url) == alias


def in_database(alias: str, change: Callable[[Database], None]) -> None:
    """Change our tables in this database of Django, by a connection of our own."""
    database = database_of(alias)
    try:
        change(database)
    finally:
        database.dispose()
