"""Each service of docker-compose.yml starts in production with the secrets that are named for it, and no others (R21)."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from conventions.storage.redis_store import Store
from tests.docker.running_stack import ROOT, composed, make_secrets
from tests.redis_servers import free_port
from tests.support import patient, wait_until
from tests.workers import forget

OURS: dict[str, Any] = {
    name: service for name, service in composed()["services"].items() if "celery -A" in str(service.get("command"))
}
PREFIX = f"t{uuid4().hex[:8]}"
ADDRESSES = {"conventions_broker_url", "conventions_database_url", "owner_database_url"}


class Service:
    """A service of the file, without its container: its command, its secrets, its health check.

    Args:
        name: in the file.
        folder: for its secrets and its files.
        made: the folder with all secrets.
    """

    def __init__(self, name: str, folder: Path, made: Path) -> None:
        self._service, self._folder = OURS[name], folder
        self._secrets = folder / "secrets"
        self._secrets.mkdir()
        for one in self._service["secrets"]:
            source, target = (one["source"], one["target"]) if isinstance(one, dict) else (one, one)
            (self._secrets / target).write_text((made / source).read_text())
        self._port = free_port()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CONVENTIONS_")
        } | {
            "CONVENTIONS_ENVIRONMENT": "production",
            "CONVENTIONS_SECRETS_DIR": str(self._secrets),
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "CONVENTIONS_KEY_PREFIX": PREFIX,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
        }

    def command(self) -> list[str]:
        """What it runs."""
        told = self._service["command"]
        return [self._here(part) for part in (shlex.split(told) if isinstance(told, str) else told)]

    def is_healthy(self) -> bool:
        """What its health check says."""
        kind, *told = self._service["healthcheck"]["test"]
        command = [self._here(part) for part in told]
        ended = subprocess.run(
            ["sh", "-c", *command] if kind == "CMD-SHELL" else command,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        return ended.returncode == 0

    def _here(self, part: str) -> str:
        """As the shell of the container has it, with a folder and a port of this test."""
        part = part.replace("/tmp/", f"{self._folder}/").replace("$$", "$").replace("/run/secrets", str(self._secrets))
        return part.replace("0.0.0.0", "127.0.0.1").replace("5555", str(self._port)).replace("9808", str(self._port))


@pytest.fixture
def made(tmp_path: Path, valkey_url: str, new_database: Callable[[Path], str]) -> Iterator[Path]:
    """All secrets, with the addresses of the tests' own servers."""
    folder = tmp_path / "made"
    folder.mkdir()
    make_secrets(folder)
    database = new_database(tmp_path)
    for name in ADDRESSES:
        (folder / name).write_text(valkey_url if "broker" in name else database)
    yield folder
    store = Store(valkey_url, PREFIX)
    forget(store)
    store.redis.close()


def test_these_are_the_services() -> None:
    """None is left out below."""
    assert OURS.keys() == {"migrate", "worker", "worker-long", "beat", "flower", "metrics"}


@pytest.mark.parametrize("name", sorted(OURS.keys() - {"migrate"}))
def test_a_service_starts_and_is_healthy(name: str, tmp_path: Path, made: Path) -> None:
    """It lives, and its own health check passes."""
    service = Service(name, tmp_path, made)
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            service.command(), cwd=tmp_path, env=service.environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: running.poll() is not None or service.is_healthy(), 60, f"{name} is healthy")
        assert running.poll() is None, (tmp_path / "log").read_text()
    finally:
        running.terminate()
        try:
            running.wait(patient(30))
        finally:
            running.kill()
            running.wait()


def test_the_migration_ends_well(tmp_path: Path, made: Path) -> None:
    """It has no key of payloads and of the audit, and needs none."""
    service = Service("migrate", tmp_path, made)
    ended = subprocess.run(
        service.command(), cwd=tmp_path, env=service.environment, text=True, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended
    assert "up to date" in ended.stdout + ended.stderr
