"""The services of docker-compose.yml under a project name and ports of their own, seen from the host."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conventions.storage.redis_store import Store

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OVERRIDE = Path(__file__).with_name("compose.override.yml")
PASSWORD = "p@ss/w:rd $1#é"  # every character that an address or a shell would trip over
LOGIN = ("me", "secret-enough-7")


def composed() -> dict[str, Any]:
    """`docker-compose.yml` as it is written: `services`, `secrets`, `volumes`."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def why_not() -> str | None:
    """Why no container can be started here, or `None`."""
    if shutil.which("docker") is None:
        return "no docker command"
    for command, missing in ((["info"], "no Docker engine answers"), (["compose", "version"], "no docker compose")):
        if subprocess.run(["docker", *command], capture_output=True, check=False).returncode:
            return missing
    return None


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@dataclass(frozen=True)
class RunningStack:
    """One project of `docker compose`.

    Args:
        project: its name, also that of its image.
        env_file: what `.env` would be.
        secrets: the folder of passwords and keys.
        valkey_port, postgres_port, flower_port: on 127.0.0.1.
    """

    project: str
    env_file: Path
    secrets: Path
    valkey_port: int
    postgres_port: int
    flower_port: int

    @property
    def store(self) -> Store:
        """The Redis of the stack."""
        return Store((self.secrets / "host" / "conventions_broker_url").read_text(), "conventions")

    def secret(self, name: str) -> str:
        """What a file has."""
        return (self.secrets / name).read_text(encoding="utf-8")

    def compose(self, *arguments: str) -> str:
        """Call `docker compose` and return its output. Raises: AssertionError with what it said."""
        files = ["-f", str(COMPOSE), "-f", str(OVERRIDE)]
        command = ["docker", "compose", "--env-file", str(self.env_file), "-p", self.project, *files, *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def lacks(self, *services: str) -> list[str]:
        """The images of these services that are neither on this machine nor in a registry that answers."""
        missing = []
        for image in self.compose("--profile", "*", "config", "--images", *services).split():
            for command in (["image", "inspect", image], ["pull", "--quiet", image]):
                if not subprocess.run(["docker", *command], capture_output=True, check=False).returncode:
                    break
            else:
                missing.append(image)
        return missing

    def on_host(self, code: str) -> str:
        """Run Python on the host, with what a program needs there to send, and return what it printed."""
        settings = {
            "CONVENTIONS_SECRETS_DIR": str(self.secrets / "host"),
            "CONVENTIONS_TASK_PACKAGES": "slow_jobs",
            "PYTHONPATH": str(OVERRIDE.parent),
        }
        code = f"from tasks import app\n{code}"
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT, env=_environment() | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def logs(self) -> str:
        """The last lines of every service."""
        return self.compose("logs", "--tail", "40")


def make_secrets(folder: Path, *, valkey_port: int = 6379) -> None:
    """Make the passwords and keys that are not there."""
    environment = _environment() | {"CONVENTIONS_VALKEY_PORT": str(valkey_port)}
    subprocess.run(
        ["sh", "deploy/make_secrets.sh", str(folder)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )


@contextmanager
def running_stack(folder: Path) -> Iterator[RunningStack]:
    """Build the image, `up --wait`, and take all of it away at the end."""
    ports = free_ports(5)
    project = f"conventions-test-{secrets.token_hex(4)}"
    env_file = folder / "test.env"
    secrets_folder = folder / "secrets"
    secrets_folder.mkdir()
    for name in ("postgres_owner_password", "postgres_app_password", "valkey_password"):
        (secrets_folder / name).write_text(f"{PASSWORD}\n", encoding="utf-8")
    (secrets_folder / "flower_basic_auth").write_text(":".join(LOGIN), encoding="utf-8")
    make_secrets(secrets_folder, valkey_port=ports[0])
    env_file.write_text(
        f"CONVENTIONS_SECRETS={secrets_folder}\nCONVENTIONS_IMAGE={project}\n"
        f"CONVENTIONS_VALKEY_PORT={ports[0]}\nCONVENTIONS_POSTGRES_PORT={ports[1]}\n"
        f"CONVENTIONS_FLOWER_PORT={ports[2]}\nCONVENTIONS_PROMETHEUS_PORT={ports[3]}\nCONVENTIONS_GRAFANA_PORT={ports[4]}\n"
        "CONVENTIONS_TASK_PACKAGES=slow_jobs\n",
        encoding="utf-8",
    )
    stack = RunningStack(project, env_file, secrets_folder, *ports[:3])
    try:
        try:
            stack.compose("up", "--build", "--wait", "--quiet-pull")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{stack.logs()}") from None
        yield stack
    finally:
        stack.compose("--profile", "metrics", "down", "--volumes", "--timeout", "20")
        subprocess.run(["docker", "image", "rm", project], capture_output=True, check=False)


def _environment() -> dict[str, str]:
    """The environment without what could change the stack."""
    ours = ("CONVENTIONS_", "COMPOSE_", "FLOWER_", "GRAFANA_", "POSTGRES_", "PG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
