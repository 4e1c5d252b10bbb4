"""What the crash tests share: a server of their own, and a way to show figures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from conventions.app import ConventionsApp
from conventions.broker.rabbitmq_priorities import queues_of
from conventions.transport.rabbitmq_declare_queues import ARGUMENTS
from tests.crash import crash_tasks
from tests.crash.server import Breakable, Server
from tests.crash.set_ups import ONE_REDIS, RABBITMQ, TWO_REDIS
from tests.rabbitmq_servers import Rabbit
from tests.workers import Installation


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs every day runs on one set-up."""
    for item in items:
        where = getattr(item, "callspec", None)
        if where is not None and where.params.get("servers") in (TWO_REDIS, RABBITMQ):
            item.own_markers = [mark for mark in item.own_markers if mark.name != "everyday"]


QUEUES = ("immediate", "long", "nobody", "scheduled")  # of the tasks of these tests


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Valkey that the test may kill."""
    with Server(tmp_path_factory.mktemp("v")) as server:  # a short path: that of a socket has a limit
        yield server


@pytest.fixture
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second Valkey, for the claims of an application whose messages are elsewhere."""
    with Server(tmp_path_factory.mktemp("w")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_with_queues(rabbit_server: Rabbit) -> Rabbit:
    """A RabbitMQ that has the queues of these tests. One that is killed within seconds of a queue's first declaration may lose that queue for good."""
    with rabbit_server.connection() as connection:
        for name in (name for queue in QUEUES for name in queues_of(queue)):
            connection.channel().queue_declare(name, durable=True, auto_delete=False, arguments=dict(ARGUMENTS))
    rabbit_server.restart()
    return rabbit_server


@pytest.fixture
def rabbit(rabbit_with_queues: Rabbit) -> Iterator[Rabbit]:
    """A RabbitMQ that the test may kill."""
    yield rabbit_with_queues
    rabbit_with_queues.mend()


@pytest.fixture
def task_module() -> str:
    """The module whose tasks the workers run."""
    return crash_tasks.__name__


@pytest.fixture
def servers(request: pytest.FixtureRequest, server: Server) -> Sequence[Breakable]:
    """The server of the messages, and if it is another one, that of the claims.

    A test runs on each of the three set-ups with `@on_each_set_up`.
    """
    match getattr(request, "param", ONE_REDIS):
        case "two-redis":
            return (request.getfixturevalue("store_server"), server)
        case "rabbitmq":
            return (request.getfixturevalue("rabbit"), server)
        case _:
            return (server,)


@pytest.fixture
def installation(
    tmp_path: Path, servers: Sequence[Breakable], new_database: Callable[[Path], str], task_module: str
) -> Installation:
    """An application on these servers, with the platform's own intervals."""
    addresses = dict(zip(("broker_url", "redis_url"), (one.url for one in servers), strict=False))
    database = new_database(tmp_path)
    return Installation(tmp_path, [task_module], [Path(__file__).parent], **addresses, database_url=database)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The application in this process, which sends."""
    with installation.application() as app:
        yield app


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print figures, also of tests that pass."""

    def printed(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201  # the figures are part of the result

    return printed
