"""The outbox."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """Its table."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0001_tables")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0006")]
