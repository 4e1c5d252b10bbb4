"""The address of a database of Django's `DATABASES`, as SQLAlchemy has it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from django.db import connections
from sqlalchemy import URL

from conventions.core.address_safety import faults_of_database
from conventions.core.errors import ConfigurationError
from conventions.library_internals.django import tests_run
from conventions.storage.database import Database, place_of, shown_place

# Options that Django reads itself; all others are for the driver. Ours has its own encoding, cursors and types.
_OF_DJANGO = frozenset(
    ["assume_role", "client_encoding", "context", "cursor_factory", "isolation_level", "pool", "server_side_binding"]
)
_OF_ADDRESS = frozenset(["dbname", "host", "password", "user"])


def address_of(alias: str) -> URL:
    """Where a database of Django is; that of tests, while Django's tests run.

    Raises:
        ConfigurationError: there is no such alias; or it is neither PostgreSQL nor SQLite, or a SQLite that only one connection sees.
    """
    if alias not in connections.settings:
        fault = f"DATABASES has no {alias!r}; it has {', '.join(connections.settings)}"
        raise ConfigurationError([f"django://{alias}: {fault}"])
    connection = connections[alias]
    settings: dict[str, Any] = connection.settings_dict
    if connection.vendor == "sqlite":
        return _sqlite(alias, str(settings["NAME"]))
    if connection.vendor == "postgresql":
        return _postgresql(settings)
    fault = f"our tables can be in PostgreSQL and SQLite, and this is {connection.display_name}"
    raise ConfigurationError([f"django://{alias}: {fault}; set CONVENTIONS_DATABASE_URL to a database of those"])


def place_fault(using: str, database: Database) -> str | None:
    """Why a write by this connection of Django and a write to our tables cannot be one commit; `None`: they can."""
    if using not in connections.settings:
        return f"DATABASES has no {using!r}; it has {', '.join(connections.settings)}"
    connection = connections[using]
    if connection.vendor not in {"postgresql", "sqlite"}:
        return f"it works on PostgreSQL and SQLite, and this is {connection.display_name}; write by a session of SQLAlchemy"
    ours, theirs = database.url, address_of(using)
    if place_of(ours) == place_of(theirs):
        return None
    return (
        f"our tables are in {shown_place(ours)}, and this is {shown_place(theirs)}; "
        f"one commit needs one database: set CONVENTIONS_DATABASE_URL=django://{using}"
    )


def moment_for(connection: Any, moment: datetime) -> datetime | str:
    """A moment in UTC as SQLAlchemy's type stores it; in SQLite that has no zone."""
    return moment if connection.vendor == "postgresql" else moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def _sqlite(alias: str, name: str) -> URL:
    if name.startswith("file:"):
        path, _, query = name.partition("?")
        return URL.create("sqlite", database=path, query=dict(parse_qsl(query)) | {"uri": "true"})
    if name in {"", ":memory:"}:
        raise ConfigurationError(
            [f"django://{alias}: a database in memory is seen by one connection alone; name a file"]
        )
    return URL.create("sqlite", database=str(Path(name).absolute()))


def _postgresql(settings: dict[str, Any]) -> URL:
    options = settings.get("OPTIONS", {})
    host = settings.get("HOST") or options.get("host") or None
    socket = {"host": host} if host and host.startswith("/") else {}  # a folder is no host of an address
    return URL.create(
        "postgresql+psycopg",
        username=settings.get("USER") or options.get("user") or None,
        password=settings.get("PASSWORD") or options.get("password") or None,
        host=None if socket else host,
        port=int(settings["PORT"]) if settings.get("PORT") else None,
        database=settings.get("NAME") or options.get("dbname") or None,
        query=socket,
    )


def driver_options(alias: str) -> dict[str, Any]:
    """What the driver of PostgreSQL gets beside the address, as Django gives it."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return {}
    said = connection.settings_dict.get("OPTIONS", {})
    options = {name: value for name, value in said.items() if name not in _OF_DJANGO | _OF_ADDRESS}
    if role := said.get("assume_role"):
        options["options"] = f"{options.get('options', '')} -c role={role}".strip()
    return options


def database_of(
    alias: str, migrations: Sequence[Path] = (), *, production: bool = False, plaintext_hosts: Collection[str] = ()
) -> Database:
    """A database of Django's, for our records. In Django's tests it keeps no connection, since the database is dropped at their end.

    Args:
        alias: in Django's `DATABASES`.
        migrations: folders of the team's own.
        production: whether it must have verified TLS, and a good password.
        plaintext_hosts: that need no TLS.

    Raises:
        ConfigurationError: as `address_of`; or it may not be used so in production.
    """
    address, options = address_of(alias), driver_options(alias)
    if production:
        named = {"sslmode": str(options["sslmode"])} if "sslmode" in options else {}
        text = address.update_query_dict(named).render_as_string(hide_password=False)
        if faults := faults_of_database(text, plaintext_hosts):
            raise ConfigurationError([f"django://{alias}: {fault}" for fault in faults])
    return Database(address, migrations, driver_options=options, keeps_connections=not tests_run())
