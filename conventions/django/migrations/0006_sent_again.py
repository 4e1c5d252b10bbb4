"""How many letters of a redrive a later one has sent again."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """The column."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0005_redrive_priority")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0010")]
