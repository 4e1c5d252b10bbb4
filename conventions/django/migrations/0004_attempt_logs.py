"""The log lines of attempts."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """Their table."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0003_release_and_wait")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0008")]
