"""The audit of a real worker: sealed within seconds, whole after kills, and broken when somebody changes it (R22)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from conventions.broker.redis_broker import Sizes
from tests.support import at_most, wait_until
from tests.workers import Installation, Worker


class Count(ImmediateTask):
    """Counts."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        """Give it back."""
        return number


@pytest.fixture
def crew(module_installation: Installation) -> Iterator[tuple[ConventionsApp, Worker]]:
    """An application and a worker."""
    with module_installation.application() as app, module_installation.worker("-c", "2") as worker:
        app.load_tasks()
        yield app, worker


def verified(installation: Installation, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Status of `audit verify`, and what it says of each chain."""
    ended = installation.run("--quiet", "audit", "verify", "--json", *options)
    return ended.returncode, json.loads(ended.stdout[ended.stdout.index("[") :])


def waiting(app: ConventionsApp) -> int:
    """How many rows wait for their place."""
    with app.database.session(read_only=True) as session:
        query = "SELECT (SELECT count(*) FROM conventions_audit WHERE number IS NULL) + (SELECT count(*) FROM conventions_executions WHERE number IS NULL)"
        return int(session.execute(text(query)).scalar_one())


def test_from_a_job_to_its_proof(crew: tuple[ConventionsApp, Worker], module_installation: Installation) -> None:
    """Attempts and an action by a command; the worker is killed in between; then somebody changes a row."""
    app, worker = crew
    Count.enqueue_many([{"number": number} for number in range(300)])
    granted = module_installation.run("permissions", "grant", "clerk", "report:read", "--reason", "asked")
    assert granted.returncode == 0, granted.stdout
    with at_most(10):
        wait_until(lambda: waiting(app) == 0, 30, "the action is sealed")
    wait_until(lambda: "audit head actions:" in worker.output, 30, "the head is in the log")
    worker.kill()
    with module_installation.worker("-c", "2") as second:
        wait_until(lambda: "audit head executions:" in second.output, 60, "it leads, and has told a head")
        Count.enqueue_many([{"number": number} for number in range(300, 310)])
        wait_until(
            lambda: app.journal.length() == 0 and app.broker.sizes("immediate") == Sizes(0, 0, 0), 60, "all is recorded"
        )
        status, found = verified(module_installation)
        second.stop()
    assert status == 0, found
    assert [(one["chain"], one["whole"], one["waiting"]) for one in found] == [
        ("executions", True, 0),
        ("actions", True, 0),
    ]
    assert found[0]["rows"] >= 310
    assert [one["heads"] for one in found] == [1, 1], "those that Redis keeps"
    for one in found:
        assert f"audit head {one['head']}" in second.output, "the last heads, when it stopped"
    with app.database.session() as session:
        session.execute(text("UPDATE conventions_executions SET runtime = 0 WHERE number = 7"))
    status, found = verified(module_installation)
    assert (status, found[0]["fault"]["what"]) == (1, "edited")


def test_a_worker_in_production_needs_the_key(module_installation: Installation) -> None:
    """It says so, and does not start. Who only sends needs none."""
    variables = {
        "CONVENTIONS_AUDIT_KEYS": "", "CONVENTIONS_ENVIRONMENT": "production", "CONVENTIONS_CONSOLE_ROLES": "{}",
    }  # fmt: skip
    ended = module_installation.run("worker", "-c", "1", **variables)
    assert ended.returncode != 0
    assert "CONVENTIONS_AUDIT_KEYS is not set: a worker in production seals the audit" in ended.stdout
    sends = "from installed import app; app.load_tasks(); app.tasks['test_audit_proven.Count'].delay(number=1); print('sent')"
    assert "sent" in module_installation.python(sends, **variables)
