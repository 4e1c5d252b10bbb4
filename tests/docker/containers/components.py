"""pytest-celery's components as they are here: workers of our image, and servers that keep what they have."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pytest_celery import CeleryTestWorker, CeleryWorkerContainer, RabbitMQContainer, RedisContainer
from pytest_docker_tools import container, fxtr
from pytest_docker_tools.wrappers import Container

from tests.docker.containers import gated_jobs
from tests.redis_servers import free_port
from tests.workers import ROOT

JOBS = gated_jobs.__name__
LEASE = 6  # seconds: a killed worker's jobs run again within 9
LOGIN = {"POSTGRES_USER": "tests", "POSTGRES_PASSWORD": "a-password"}


class ProjectWorker(CeleryWorkerContainer):
    """A worker of our image, which runs one job at a time."""

    @classmethod
    def worker_name(cls) -> str:
        """Its name, before that of the host."""
        return "worker"

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """The command line of its process."""
        name = f"--hostname={cls.worker_name()}@%h"
        return ["celery", "-A", "tasks", "worker", "--loglevel=INFO", "--concurrency=1", name, *args]

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Our settings, from what the servers say of themselves."""
        (broker,) = celery_worker_cluster_config["celery_broker_cluster_config"]["urls"]
        (store,) = celery_worker_cluster_config["celery_backend_cluster_config"]["urls"]
        addresses = {"BROKER_URL": broker, "REDIS_URL": store}
        settings = addresses | {"TASK_PACKAGES": JOBS, "LEASE": str(LEASE)}
        limits = {"SOFT_TIME_LIMIT": "280", "TIME_LIMIT": "300"}  # a job waits as long for a test
        return {f"CONVENTIONS_{name}": value for name, value in (settings | limits | (initial or {})).items()}


class WorkerNode(CeleryTestWorker):
    """A worker that sends, and says how it has ended."""

    def send(self, names: list[str]) -> list[str]:
        """Send a job for each name with the code that the worker has; returns the ids of the messages."""
        code = f"import json; import tasks; from {JOBS} import Gated; print(json.dumps([Gated.delay(n).id for n in {names}]))"
        status, output = self.container.exec_run(["python", "-c", code])
        assert status == 0, output.decode()
        return list(json.loads(output))

    def has_ended(self) -> bool:
        """Whether its container has ended."""
        self.container.reload()
        return bool(self.container.status == "exited")

    def exit_status(self) -> int:
        """What its main process ended with, when it last ended."""
        return int(self.container.attrs["State"]["ExitCode"])


class DurableRedis(RedisContainer):
    """A server that keeps what it has when it is restarted, as in docker-compose.yml; pytest-celery's own one does not."""

    @classmethod
    def command(cls, *args: str, **_: Any) -> list[str]:
        """Its command line."""
        options = {"dir": "/data", "appendonly": "yes", "maxmemory-policy": "noeviction", "protected-mode": "no"}
        return ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value)), *args]


class OrderlyRabbitMQ(RabbitMQContainer):
    """A server that ends in good order when it is restarted."""

    def restart(self, timeout: int = 10) -> None:
        """Stop it, unless it has ended, and start it again."""
        if self.status == "running":
            self.exec_run(["rabbitmqctl", "stop"])  # not every image hands on the signal of `docker stop`
        super().restart(timeout)


class PostgreSQL(Container):
    """A server for the records of all tests."""

    def ready(self) -> bool:
        """Whether it answers by TCP: while the image sets itself up, a server of its own answers on the socket."""
        ask = ["pg_isready", "--host=127.0.0.1", f"--username={LOGIN['POSTGRES_USER']}"]
        return bool(super().ready()) and self.exec_run(ask)[0] == 0


def worker_container(image: str) -> Any:
    """A fixture: a running worker of the image that the fixture of this name builds, with the rights that docker-compose.yml gives it."""
    jobs = f"{JOBS.replace('.', '/')}.py"
    return container(
        image=f"{{{image}}}",
        environment=fxtr("default_worker_env"),
        network="{default_pytest_celery_network.name}",
        command=fxtr("default_worker_command"),
        volumes={str(ROOT / jobs): {"bind": f"/app/{jobs}", "mode": "ro"}},
        wrapper_class=ProjectWorker,
        init=True,
        read_only=True,
        tmpfs={"/tmp": "rw"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        timeout=120,
    )


def server_container(kind: str, folder: str, port: int, **options: Any) -> Any:
    """A fixture: a running server with a volume of its own, which the fixture `<kind>_volume` makes."""
    return container(
        network="{default_pytest_celery_network.name}",
        volumes={f"{{{kind}_volume.name}}": {"bind": folder, "mode": "rw"}},
        # One that stays the same when it is restarted.
        ports=lambda: {f"{port}/tcp": ("127.0.0.1", free_port())},
        timeout=120,
        **options,
    )


@contextmanager
def built_image(archive: bytes | None = None) -> Iterator[str]:
    """Build our image, of the files as they are or of an archive of others, and yield its name.

    Nothing is left of it but the cache. Raises: AssertionError with what the build said.
    """
    name = f"conventions-test-{uuid4().hex[:8]}"
    command = ["docker", "build", "--tag", name, str(ROOT) if archive is None else "-"]
    built = subprocess.run(command, input=archive, capture_output=True, check=False)
    assert built.returncode == 0, built.stderr.decode()
    try:
        yield name
    finally:
        subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)
