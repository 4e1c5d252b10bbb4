"""How urgent the messages of a redrive are."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """The column."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0004_attempt_logs")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0009")]
