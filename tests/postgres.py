"""A PostgreSQL server of our own, where its programs are on the machine."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: on the path, or where Debian puts them; `None` when there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def postgresql_server(
    bin_folder: Path, password: str = "", parent: Path | None = None, more: str = ""
) -> Iterator[str]:
    """Run a server that listens on a unix socket of its own alone; yields the address of its database `postgres`.

    `parent` is the folder below which it lives, the system's for temporary files unless given; `more` are options of
    its command line.
    """
    account = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    # Not below pytest's folder, which every start of pytest closes to other accounts.
    with tempfile.TemporaryDirectory(prefix="postgresql-", dir=parent) as name:
        folder = Path(name)
        if account:
            shutil.chown(folder, account)

        def call(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(bin_folder / program), "--pgdata", str(folder / "data"), *arguments],
                user=account,
                cwd=folder,
                env=os.environ | {"HOME": name},
                check=True,
                stdout=subprocess.DEVNULL,
            )

        secret = folder / "password"
        secret.write_text(password)
        secret.chmod(0o644)
        access = ("--auth", "scram-sha-256", "--pwfile", str(secret)) if password else ("--auth", "trust")
        call("initdb", "--username", "tests", *access, "--encoding", "UTF8", "--no-sync")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off {more}"
        call("pg_ctl", "--log", str(folder / "log"), "--wait", "--options", options, "start")
        try:
            yield f"postgresql://tests{f':{password}' if password else ''}@/postgres?host={folder}"
        finally:
            call("pg_ctl", "--mode", "immediate", "--wait", "stop")
