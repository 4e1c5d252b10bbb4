"""pytest-celery's fixtures, with our image, our application, and servers that keep what they have.

A test that asks for `celery_setup` has a broker, a Redis for claims and results, a worker, and our application as the
sender. It runs once for each broker. What is made here of a name of pytest-celery takes the place of its own.
"""

from collections.abc import Iterator
from typing import Any

import docker
import pytest
import pytest_celery
from pytest_celery import (
    CELERY_RABBITMQ_BROKER,
    CELERY_REDIS_BROKER,
    CeleryBackendCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
)
from pytest_docker_tools import network, volume
from sqlalchemy import URL, text

from conventions.app import ConventionsApp
from conventions.storage.database import Database
from tests.docker.containers.components import (
    LOGIN,
    DurableRedis,
    OrderlyRabbitMQ,
    PostgreSQL,
    ProjectWorker,
    WorkerNode,
    built_image,
    server_container,
    worker_container,
)
from tests.docker.running_stack import why_not
from tests.postgres import administer, database_of, let_go
from tests.release_before import files_before
from tests.workers import application

TEMPLATE = "migrated"
LOGGED = 8000  # characters of what a container logged last


def pytest_configure(config: pytest.Config) -> None:
    """Take pytest-celery's fixtures, for this run alone: `addopts` keeps its plugin out."""
    config.option.reuse_containers = False  # of the plugin of pytest-docker-tools, which is kept out as well
    config.pluginmanager.register(pytest_celery, "components of pytest-celery")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show what every container logged, where a test has failed."""
    report = yield
    if report.failed:
        used = getattr(item, "funcargs", {})
        nodes = [node for node in used.values() if isinstance(node, CeleryTestWorker)]
        for cluster in ("worker_cluster", "broker_cluster", "backend_cluster"):
            nodes += getattr(used.get("celery_setup"), cluster, ())
        report.sections += [
            (f"{type(node.container).__name__} {node.hostname()}", node.logs()[-LOGGED:]) for node in nodes
        ]
    return report


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """The engine of this machine. Skips the test where there is none."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    client = docker.from_env()
    yield client
    client.close()


# Images.


@pytest.fixture(scope="session")
def our_image(docker_client: docker.DockerClient) -> Iterator[str]:
    """The files as they are."""
    with built_image() as name:
        yield name


@pytest.fixture(scope="session")
def image_before(docker_client: docker.DockerClient) -> Iterator[str]:
    """The release before this one."""
    with built_image(files_before()) as name:
        yield name


# Servers.

default_pytest_celery_network = network(scope="session")

valkey_volume, redis_volume, rabbitmq_volume = volume(), volume(), volume()
postgresql_volume = volume(scope="session")

# A broker and a store of different makers, so that both are tried.
default_redis_backend = server_container(
    "valkey",
    "/data",
    6379,
    image="valkey/valkey:9-alpine",
    command=DurableRedis.command(),
    wrapper_class=DurableRedis,
)
default_redis_broker = server_container(
    "redis",
    "/data",
    6379,
    image="redis:8-alpine",
    command=DurableRedis.command(),
    wrapper_class=DurableRedis,
)
default_rabbitmq_broker = server_container(
    "rabbitmq", "/var/lib/rabbitmq", 5672, image="rabbitmq:4", wrapper_class=OrderlyRabbitMQ
)
postgresql = server_container(
    "postgresql",
    "/var/lib/postgresql/data",
    5432,
    image="postgres:17-alpine",
    environment=LOGIN,
    wrapper_class=PostgreSQL,
    scope="session",
)


@pytest.fixture(params=[CELERY_REDIS_BROKER, CELERY_RABBITMQ_BROKER], ids=["redis", "rabbitmq"])
def celery_broker(request: pytest.FixtureRequest) -> CeleryTestBroker:
    """Each broker in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def celery_backend_cluster(celery_redis_backend: CeleryTestBackend) -> CeleryBackendCluster:
    """The Redis of claims and results, which is there beside every broker."""
    return CeleryBackendCluster(celery_redis_backend)


@pytest.fixture(scope="session")
def database_server(postgresql: PostgreSQL) -> Iterator[str]:
    """The address of the server that has the records, as this process sees it, with a database to copy."""
    host, port = postgresql.get_addr("5432/tcp")
    server = URL.create("postgresql", LOGIN["POSTGRES_USER"], LOGIN["POSTGRES_PASSWORD"], host, port, "postgres")
    address = server.render_as_string(hide_password=False)
    administer(address, f"CREATE DATABASE {TEMPLATE}")
    template = Database(server.set(database=TEMPLATE).render_as_string(hide_password=False))
    template.upgrade()
    with template.session() as session:
        session.execute(text("CREATE TABLE effects (name TEXT, worker TEXT)"))
    template.dispose()
    yield address
    let_go(address)


@pytest.fixture
def database(database_server: str) -> Iterator[Database]:
    """The records of one test, and the effects of its jobs."""
    with database_of(database_server, TEMPLATE) as url:
        database = Database(url)
        yield database
        database.dispose()


# Workers.


@pytest.fixture
def default_worker_cls() -> type[CeleryTestWorker]:
    """What a test has of a worker."""
    return WorkerNode


@pytest.fixture
def default_worker_container_cls() -> type[ProjectWorker]:
    """How our image is run."""
    return ProjectWorker


@pytest.fixture
def default_worker_env(
    celery_worker_cluster_config: dict[str, Any], database: Database, postgresql: PostgreSQL
) -> dict[str, str]:
    """The settings of every worker."""
    inside = database.url.set(host=postgresql.attrs["Config"]["Hostname"], port=5432)
    settings = {"DATABASE_URL": inside.render_as_string(hide_password=False)}
    return ProjectWorker.initial_env(celery_worker_cluster_config, settings)


default_worker_container = worker_container("our_image")
second_worker_container = worker_container("our_image")
worker_before_container = worker_container("image_before")


@pytest.fixture
def celery_worker_cluster(celery_setup_worker: CeleryTestWorker) -> CeleryWorkerCluster:
    """One worker; tests that need another one ask for it."""
    return CeleryWorkerCluster(celery_setup_worker)


@pytest.fixture
def second_worker(celery_setup: CeleryTestSetup, second_worker_container: ProjectWorker) -> WorkerNode:
    """A worker beside the one of `celery_setup`."""
    return WorkerNode(second_worker_container, celery_setup.app)


@pytest.fixture
def worker_before(celery_setup: CeleryTestSetup, worker_before_container: ProjectWorker) -> WorkerNode:
    """A worker of the release before this one, beside the one of `celery_setup`."""
    return WorkerNode(worker_before_container, celery_setup.app)


# The sender.


@pytest.fixture
def celery_setup_app(celery_setup_config: dict[str, Any], database: Database) -> Iterator[ConventionsApp]:
    """Our application in this process, with the same servers; the current one."""
    settings = {
        "broker_url": celery_setup_config["broker_url"],
        "redis_url": celery_setup_config["result_backend"],
        "database_url": database.url.render_as_string(hide_password=False),
    }
    with application(**settings) as app:
        yield app
