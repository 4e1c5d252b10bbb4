"""Copies of the business database, checked before they count."""

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL

from conventions import BusinessError
from tasks.files import atomic

TIME_LIMIT = 3600  # seconds for one dump
_PRIVATE = 0o600  # a backup holds addresses


def back_up_sqlite(url: URL, target: Path) -> None:
    """Copy an SQLite database while it is in use, and check the copy.

    Raises:
        BusinessError: the database is in memory only.
        RuntimeError: the copy is damaged.
        sqlite3.Error: it could not be read.
    """
    if not url.database or url.database == ":memory:":
        raise BusinessError("a database in memory cannot be backed up")
    source = f"{Path(url.database).absolute().as_uri()}?mode=ro"
    with atomic(target, _PRIVATE) as draft:
        with closing(sqlite3.connect(source, uri=True)) as live, closing(sqlite3.connect(draft)) as copy:
            # All pages in one step: with fewer, a writer in between makes the copy begin again.
            live.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, with no log beside it
            found = [row[0] for row in copy.execute("PRAGMA integrity_check")]
        if found != ["ok"]:
            raise RuntimeError(f"the copy of the database is damaged: {found[0]}")


def back_up_postgresql(url: URL, target: Path) -> None:
    """Dump a PostgreSQL database in pg_dump's custom format, and read the dump's contents back.

    The password goes through the environment, where other users of the machine cannot see it.

    Raises:
        BusinessError: pg_dump is not installed.
        RuntimeError: the dump failed or cannot be read.
    """
    # Made anew: `url.set(password=None)` would leave the password as it is.
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    address = bare.render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    with atomic(target, _PRIVATE) as draft:
        _call(["pg_dump", "--format=custom", "--no-password", f"--file={draft}", f"--dbname={address}"], environment)
        if not _call(["pg_restore", "--list", str(draft)], environment).strip():
            raise RuntimeError("the dump of the database is empty")


def keep_newest(files: list[Path], count: int) -> list[Path]:
    """Delete all but the last `count` in the order of their names; return those deleted."""
    old = sorted(files)[:-count]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def _call(command: list[str], environment: dict[str, str]) -> str:
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except FileNotFoundError:
        raise BusinessError(f"{command[0]} is not installed; install PostgreSQL's client programs") from None
    if ended.returncode:
        raise RuntimeError(f"{command[0]} ended with status {ended.returncode}: {ended.stderr.strip()[-500:]}")
    return ended.stdout
