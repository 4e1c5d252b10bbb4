"""Roles of actors, and their permissions."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """Their tables."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0007_last_error")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0012")]
