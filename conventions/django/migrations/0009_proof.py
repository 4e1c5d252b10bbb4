"""Rows of the audit have their place in a chain."""

from typing import ClassVar

from django.db import migrations

from conventions.django.table_migration import tables_of


class Migration(migrations.Migration):
    """Their columns and tables."""

    atomic = False
    dependencies: ClassVar[list[tuple[str, str]]] = [("conventions", "0008_roles")]
    operations: ClassVar[list[migrations.RunPython]] = [tables_of("conventions_0013")]
