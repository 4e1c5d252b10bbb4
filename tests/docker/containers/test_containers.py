"""Workers and brokers as containers that are killed and restarted, and two versions side by side: each job ends once."""

from collections import Counter
from typing import Any

import pytest
from pytest_celery import CELERY_REDIS_BROKER, CeleryTestSetup, RabbitMQTestBroker
from sqlalchemy import select, text

from conventions.storage.database import Database
from conventions.storage.redis_store import Store
from conventions.storage.tables import ExecutionRow
from tests.docker.containers.components import LEASE, WorkerNode
from tests.docker.containers.gated_jobs import Gated
from tests.support import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # the first one builds the image

SOON = 60  # seconds within which a machine with much to do starts a job
WAITING = [f"waiting {number}" for number in range(30)]


class Evidence:
    """What jobs have left behind."""

    def __init__(self, store: Store, database: Database) -> None:
        self._store, self._database = store, database

    def starts(self, name: str) -> list[str]:
        """The workers that started the job of this name, in order."""
        found: Any = self._store.redis.lrange(self._store.key("starts", name), 0, -1)
        return [worker.decode() for worker in found]

    def open_gate(self) -> None:
        """Let jobs end."""
        self._store.redis.set(self._store.key("gate"), "open")

    def effects(self) -> Counter[str]:
        """How often each job had its effect."""
        with self._database.session() as session:
            return Counter(session.scalars(text("SELECT name FROM effects")).all())

    def records(self) -> dict[str, list[str]]:
        """How the attempts at each message ended; a start without an outcome is no end."""
        found: dict[str, list[str]] = {}
        with self._database.session() as session:
            for row in session.scalars(select(ExecutionRow).where(ExecutionRow.kind != "interrupted")):
                found.setdefault(row.message_id, []).append(row.kind)
        return found

    def expect(self, ids: list[str], names: list[str]) -> None:
        """Wait until each job is recorded; each has then had its effect once, and has one record."""
        wait_until(lambda: self.records().keys() >= set(ids), SOON, "every job is recorded")
        assert self.effects() == Counter(names)
        assert self.records() == {message_id: ["succeeded"] for message_id in ids}


@pytest.fixture
def evidence(celery_setup: CeleryTestSetup, database: Database) -> Evidence:
    return Evidence(celery_setup.app.store, database)


def test_a_job_runs_once(celery_setup: CeleryTestSetup, evidence: Evidence) -> None:
    """It has its effect, and one record."""
    evidence.open_gate()
    sent = Gated.delay("one")
    evidence.expect([sent.id], ["one"])
    assert evidence.starts("one") == [celery_setup.worker.hostname()]


def test_a_killed_workers_job_runs_in_another_one(
    celery_setup: CeleryTestSetup, second_worker: WorkerNode, evidence: Evidence
) -> None:
    """All processes of its container die in the middle of the job, which has its effect once."""
    workers = {worker.hostname(): worker for worker in (celery_setup.worker, second_worker)}
    sent = Gated.delay("killed")
    (first,) = wait_until(lambda: evidence.starts("killed"), SOON, "the job starts")
    workers.pop(first).kill()
    (other,) = workers
    wait_until(lambda: evidence.starts("killed") == [first, other], LEASE + SOON, "the job starts in the other worker")
    evidence.open_gate()
    evidence.expect([sent.id], ["killed"])


def test_a_worker_is_restarted_while_jobs_wait(celery_setup: CeleryTestSetup, evidence: Evidence) -> None:
    """It ends the job that it has begun and no other one, and takes the others when it is back."""
    worker: WorkerNode = celery_setup.worker
    ids = [Gated.delay(name).id for name in ("running", *WAITING)]
    wait_until(lambda: evidence.starts("running"), SOON, "the first job starts")
    worker.kill("SIGTERM")
    worker.wait_for_log("Warm shutdown")
    evidence.open_gate()
    wait_until(worker.has_ended, SOON, "the worker ends")
    assert worker.exit_status() == 0
    assert evidence.effects() == Counter(["running"])
    worker.restart()
    evidence.expect(ids, ["running", *WAITING])
    assert len(evidence.starts("running")) == 1


def test_the_broker_is_restarted_and_killed_while_jobs_wait(celery_setup: CeleryTestSetup, evidence: Evidence) -> None:
    """Nothing is lost: neither what waits, nor the job that runs meanwhile."""
    broker, worker = celery_setup.broker, celery_setup.worker
    ids = [Gated.delay(name).id for name in ("running", *WAITING)]
    wait_until(lambda: evidence.starts("running"), SOON, "the first job starts")

    def restart(number: int) -> None:
        broker.restart()
        if isinstance(broker, RabbitMQTestBroker):  # it hands out again what was not acknowledged
            received = f"[{ids[0]}] received"
            wait_until(lambda: worker.logs().count(received) > number, SOON, "the running job's message comes again")
        ids.append(Gated.delay(f"sent after restart {number}").id)

    restart(1)  # in good order: a RabbitMQ that is killed within a second after a queue was made may lose the queue
    broker.kill()
    restart(2)
    evidence.open_gate()
    evidence.expect(ids, ["running", *WAITING, "sent after restart 1", "sent after restart 2"])


# RabbitMQ is no broker of the release before.
@pytest.mark.parametrize("celery_broker", [CELERY_REDIS_BROKER], ids=["redis"], indirect=True)
def test_a_release_takes_the_place_of_the_one_before(
    celery_setup: CeleryTestSetup, worker_before: WorkerNode, evidence: Evidence
) -> None:
    """Both share a queue, and run what either of them sends; then the one before is stopped while jobs wait."""
    names = [f"sent by this release {number}" for number in range(10)]
    ids = [Gated.delay(name).id for name in names]
    before = [f"sent by the one before {number}" for number in range(10)]
    ids += worker_before.send(before)
    names += before
    both = {celery_setup.worker.hostname(), worker_before.hostname()}
    wait_until(lambda: {worker for name in names for worker in evidence.starts(name)} == both, SOON, "both run a job")
    worker_before.kill("SIGTERM")
    worker_before.wait_for_log("Warm shutdown")
    evidence.open_gate()
    wait_until(worker_before.has_ended, SOON, "the worker of before ends")
    assert worker_before.exit_status() == 0
    evidence.expect(ids, names)
