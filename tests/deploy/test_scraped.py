"""A real Prometheus reads `celery metrics --port` of a real application, with a worker, and its alerts fire."""

from collections.abc import Callable
from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask
from tests.deploy.dashboard import expressions
from tests.deploy.expressions import with_values
from tests.deploy.prometheus_server import prometheus
from tests.side_process import beside
from tests.support import wait_until
from tests.workers import Installation

BACKLOG, FEWEST = 1000, 20  # the thresholds of two alerts


class Stays(ImmediateTask):
    """Has no worker."""

    queue_name = "stays"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


class Fails(ImmediateTask):
    """Fail for good for number 0."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        if number == 0:
            raise BusinessError("no")


class Succeeds(Fails):
    """As that, but is sent without a 0."""

    idempotent_on = EVERY_ARGUMENT


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An installation of the test's own, with these tasks."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)


def test_alerts_fire(alone: Installation) -> None:
    """At 1,000 waiting messages, and at one dead job of 20; not below; and the rest says that all is well."""
    with (
        alone.application(),
        alone.worker("--queues=immediate,scheduled,long"),
        beside(alone, "metrics", "--port=0") as metrics,
        prometheus(alone.folder, metrics.serves()) as server,
    ):
        wait_until(lambda: server.query(f'conventions_attempts_total{{task="{Fails.name}"}} == 0'), 30, "it scrapes")
        wait_until(lambda: server.query("up == 1"), 30, "it still does")
        Stays.enqueue_many([{"number": number} for number in range(BACKLOG - 1)])
        Fails.enqueue_many([{"number": number} for number in range(FEWEST)])
        Succeeds.enqueue_many([{"number": number} for number in range(1, FEWEST + 1)])
        ended = "sum(conventions:attempts:new5m)"
        wait_until(lambda: server.query(f"{ended} == {2 * FEWEST}"), 60, "it sees all jobs")
        waiting = 'conventions_queue_messages{queue="stays",state="ready"}'
        wait_until(lambda: server.query(f"{waiting} == {BACKLOG - 1}"), 30, "it sees the messages")
        wait_until(
            lambda: ("FailureRate", "immediate", Fails.name) in server.alerts("pending"), 30, "a rate is noticed"
        )
        assert "Backlog" not in {name for name, *_ in server.alerts("pending")}

        Stays.delay(number=BACKLOG)
        wait_until(lambda: ("Backlog", "stays", "") in server.alerts("pending"), 30, "a backlog is noticed")
        expected = {("Backlog", "stays", ""), ("FailureRate", "immediate", Fails.name), ("Watchdog", "", "")}
        wait_until(lambda: server.alerts("firing") >= expected, 90, "both fire")
        others = server.alerts("firing") - expected
        # The messages wait, and nobody takes them: on a slow machine for minutes.
        assert others <= {("QueueWithoutConsumer", "stays", ""), ("OldestMessage", "stays", "")}

        rules = [one for group in server.ask("rules")["groups"] for one in group["rules"]]
        assert {one["health"] for one in rules} == {"ok"}, [one for one in rules if one["health"] != "ok"]
        for expression in expressions():
            server.query(with_values(expression))  # it understands each
