"""The wait, the release and the cause of an execution."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """Their columns."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0002_outbox")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0007")]
