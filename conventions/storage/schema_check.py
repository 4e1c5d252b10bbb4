"""Whether the tables are those of this release."""

from sqlalchemy import Connection, inspect

from conventions.storage.tables import Base


def missing_parts(connection: Connection) -> list[str]:
    """The tables that are missing, and the columns as `table.column`. More than we need does no harm. Raises: SQLAlchemyError."""
    found = inspect(connection)
    there = set(found.get_table_names())
    missing = []
    for name, table in Base.metadata.tables.items():
        if name not in there:
            missing.append(name)
            continue
        columns = {column["name"] for column in found.get_columns(name)}
        missing += [f"{name}.{column.name}" for column in table.columns if column.name not in columns]
    return missing
