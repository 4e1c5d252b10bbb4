"""`celery now` and the page Now say the same of real workers; when all of them are killed, both say so."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.metrics.worker_reports import SILENT_AFTER
from conventions.records.journal import Journal
from tests.console.flower_process import LOGINS, ROLES, flower
from tests.support import patient, wait_until
from tests.workers import Installation


class Fine(ImmediateTask):
    """Succeed."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        return number


class Short(ImmediateTask):
    """Takes less time than there is between two reports of a worker."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        time.sleep(0.2)
        return number


class Down(ImmediateTask):
    """What it calls is down."""

    queue_name = "payments"
    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(first_wait=600, max_wait=600)  # longer than the test

    def run(self, number: int) -> int:  # noqa: ARG002  # it tells jobs apart
        raise ConnectionRefusedError("payments.internal refused <b>4111</b>")


class Wrong(ImmediateTask):
    """End as a dead letter."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        raise BusinessError(f"no: {number}")


class Unheard(ImmediateTask):
    """Has no worker."""

    queue_name = "unheard"
    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Do nothing."""


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An installation of the test's own, with these tasks."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)


def now(installation: Installation) -> tuple[Any, int]:
    """What the command says, and its status."""
    ended = installation.run("now", "--json")
    return json.loads(ended.stdout), ended.returncode


@pytest.mark.everyday
def test_an_installation_without_a_worker(alone: Installation) -> None:
    """Nothing waits for anybody, and nothing would run: it says how to begin, and that nobody judges."""
    found, status = now(alone)
    assert ([one["rule"] for one in found["findings"]], found["absent"], found["judge"], status) == (
        ["no worker"],
        {},
        "",
        1,
    )
    assert {one["ready"] for one in found["queues"]} == {0}
    text = alone.run("now").stdout
    for said in (
        "1 thing is wrong",
        "no worker runs",
        "start one with `celery worker`",
        "nobody judges alerts",
        "no beat runs",
    ):
        assert said in text


@pytest.mark.everyday
def test_what_is_wrong_is_said_on_all_surfaces(alone: Installation) -> None:
    """The same numbers and words by command, as JSON, and on the page; values are hidden from viewers."""
    with alone.application() as app, alone.worker("--queues=immediate,payments", CONVENTIONS_RELEASE="r9"):
        Fine.enqueue_many([{"number": number} for number in range(60)])
        Down.enqueue_many([{"number": number} for number in range(40)])
        Wrong.enqueue_many([{"number": number} for number in range(25)])
        Unheard.delay(number=1)
        expected = {"succeeded": 60, "retried": 40, "dead": 25}

        def total() -> dict[str, int]:
            minutes = now(alone)[0]["minutes"]
            return {kind: sum(one[kind] for one in minutes) for kind in expected}

        wait_until(lambda: total() == expected)
        wait_until(lambda: Journal(app.store).length() == 0)
        found, status = now(alone)
        assert status == 1
        assert {(one["rule"], one["subject"]) for one in found["findings"]} == {
            ("failure rate", Wrong.name), ("retrying", Down.name), ("no consumer", "unheard"),
        }  # fmt: skip
        queues = {one["name"]: one for one in found["queues"]}
        assert (queues["payments"]["retrying"], queues["payments"]["delayed"], queues["payments"]["consumers"]) == (
            40,
            40,
            1,
        )
        causes = {one["error"]: one for one in found["causes"]}
        assert (causes["ConnectionRefusedError"]["retrying"], causes["ConnectionRefusedError"]["releases"]) == (
            40,
            {"r9": 40},
        )
        assert causes["BusinessError"]["dead"] == 25
        assert found["judge"] == ""
        assert total() == expected

        text = alone.run("now").stdout
        assert "Down: 40 messages are retrying" in text
        assert "payments.internal refused" in text
        with flower(alone, FLOWER_BASIC_AUTH=LOGINS, CONVENTIONS_CONSOLE_ROLES=ROLES) as address:
            pages = {
                name: httpx.get(f"{address}/", auth=(name, name[0]), timeout=patient(10)).text
                for name in ("alice", "vera")
            }
            assert httpx.get(f"{address}/", timeout=patient(10)).status_code == 401
            assert httpx.get(f"{address}/workers", auth=("alice", "a"), timeout=patient(10)).status_code == 200
        assert "Nobody judges alerts" in pages["vera"]
        assert "No beat runs." in pages["vera"]
        for one in found["findings"]:
            assert one["says"] in pages["alice"]
            assert one["says"] in pages["vera"]
        assert "payments.internal refused &lt;b&gt;4111&lt;/b&gt;" in pages["alice"]
        assert "4111" not in pages["vera"]
        assert re.search("Attempts by the minute: 60 succeeded, 40 retried, 25 dead", pages["alice"])


def test_short_jobs_keep_a_worker_busy(alone: Installation) -> None:
    """They have ended when somebody looks; what ran at the last report is said."""
    with alone.application(), alone.worker("--queues=immediate", "--concurrency=2"):
        Short.enqueue_many([{"number": number} for number in range(2000)])
        wait_until(lambda: [one["busy"] for one in now(alone)[0]["workers"]] == [{Short.name: 2}])


def test_all_workers_killed(alone: Installation) -> None:
    """A worker that ends in order takes its report away; one that is killed is missed."""
    with alone.application() as app, alone.workers([], ["--queues=payments"]) as (one, other):
        wait_until(lambda: len(now(alone)[0]["workers"]) == 2)
        one.kill()
        other.kill()
        Fine.delay(number=1)
        found = wait_until(
            lambda: (found := now(alone)[0]["findings"]) and len(found) == 4 and found,
            SILENT_AFTER + 15,
            "both are missed",
        )
        assert sorted(one["rule"] for one in found) == ["no consumer", "no worker", "worker silent", "worker silent"]
        assert {one["severity"] for one in found} == {"critical"}
        assert app.store


@pytest.mark.everyday
def test_watch_needs_a_terminal_and_no_json(alone: Installation) -> None:
    """A script that asks for both is told what to do."""
    ended = alone.run("now", "--watch", "--json")
    assert ended.returncode == 2
    assert "call it with --json as often as you need" in ended.stdout


@pytest.mark.everyday
def test_thresholds_are_settings(alone: Installation) -> None:
    """And one that does not exist is refused by its name."""
    ended = alone.run("now", "--json", CONVENTIONS_ALERTS='{"backlog": 1}')
    assert [one["rule"] for one in json.loads(ended.stdout)["findings"]] == ["no worker"]
    with alone.application():
        Fine.delay(number=1)
    found = json.loads(alone.run("now", "--json", CONVENTIONS_ALERTS='{"backlog": 1}').stdout)["findings"]
    assert [one["rule"] for one in found] == ["no worker", "no consumer"]
    refused = alone.run("now", CONVENTIONS_ALERTS='{"queues": {"mail": {"backlogg": 1}}}')
    assert refused.returncode == 2
    assert "CONVENTIONS_ALERTS: queues.mail.backlogg:" in refused.stdout
