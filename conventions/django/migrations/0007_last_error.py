"""The last error of a redrive that has ended."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """The column."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0006_sent_again")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0011")]
