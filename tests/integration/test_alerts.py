"""Alerts outside the workers: a real beat tells when all of them are killed; the commands show, test and silence."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.alerts.alert_store import AlertStore
from conventions.alerts.episode import HOLDS_FOR, Episode
from conventions.alerts.evaluator import EVERY
from conventions.alerts.finding import Finding
from conventions.metrics.worker_reports import SILENT_AFTER, WorkerReports
from tests.alerts.test_evaluator import receiving
from tests.side_process import beside
from tests.support import wait_until
from tests.workers import Installation


class Fine(ImmediateTask):
    """Succeed."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> int:
        return number


@pytest.fixture
def alone(
    request: pytest.FixtureRequest, valkey_url: str, new_database: Callable[[Path], str], tmp_path: Path
) -> Installation:
    """An installation of the test's own, with these tasks."""
    settings = {"broker_url": valkey_url, "database_url": new_database(tmp_path)}
    return Installation(tmp_path, [request.module.__name__], [request.path.parent], **settings)


@pytest.mark.parametrize("command", [("beat", "--loglevel=INFO"), ("metrics", "--port=0")], ids=["beat", "metrics"])
def test_all_workers_killed(alone: Installation, command: tuple[str, ...]) -> None:
    """The alert arrives by a beat, and by `metrics --port`; no worker is needed for it. The heartbeat arrives, too."""
    with receiving() as alerts, receiving() as heart, alone.application() as app:
        told = {"CONVENTIONS_ALERT_WEBHOOK": alerts.address, "CONVENTIONS_HEARTBEAT_URL": heart.address}
        with beside(alone, *command, **told), alone.workers([], []) as (one, other):
            wait_until(lambda: AlertStore(app.store).leader(), 30, "one judges")
            wait_until(lambda: heart.bodies, 30, "the heartbeat")
            wait_until(lambda: len(WorkerReports(app.store).listing()) == 2, 30, "both have reported")
            one.kill()
            other.kill()
            within = SILENT_AFTER + HOLDS_FOR + 3 * EVERY + 10
            wait_until(lambda: len(alerts.bodies) == 3, within, "both are told of, and that no other runs")
            assert alerts.told == [("firing", "worker silent")] * 2 + [("firing", "no worker")]
            assert {body["severity"] for body in alerts.bodies} <= {"critical", "warning"}
            listed = json.loads(alone.run("alerts", "list", "--json").stdout)
            assert {(row["state"], row["severity"], row["rule"]) for row in listed} == {
                ("firing", "critical", "worker silent"), ("firing", "critical", "no worker"),
            }  # fmt: skip


@pytest.mark.everyday
def test_the_commands(alone: Installation) -> None:
    """An empty list; a test that arrives, and one that does not; a silence, and its end."""
    assert json.loads(alone.run("alerts", "list", "--json").stdout.partition("\n")[2] or "[]") == []
    none = alone.run("alerts", "test")
    assert (none.returncode, "CONVENTIONS_ALERT_WEBHOOK" in none.stdout) == (2, True)
    with receiving() as receiver:
        sent = alone.run("alerts", "test", CONVENTIONS_ALERT_WEBHOOK=receiver.address)
        assert (sent.returncode, sent.stdout.strip()) == (0, "webhook: delivered")
        assert receiver.told == [("test", "test")]
    refused = alone.run("alerts", "test", CONVENTIONS_ALERT_WEBHOOK="http://127.0.0.1:1/x")
    assert refused.returncode == 1
    assert "not delivered" in refused.stdout
    assert alone.run("alerts", "silence", "nonsense", "--until", "2h", "--reason", "x").returncode == 2
    with alone.application() as app:
        store, finding = AlertStore(app.store), Finding("backlog", "q", "warning", "it waits", "look", "/", since=60.0)
        assert store.lead("beat@h", 60)
        assert store.save("beat@h", 60, {finding.key: Episode("1", finding, 120.0, 180.0, 240.0)}, [], [])
        (row,) = json.loads(alone.run("alerts", "list", "--json").stdout)
        times = [datetime.fromisoformat(row[name]).timestamp() for name in ("since", "began", "fired", "away_since")]
        assert times == [60, 120, 180, 240]
        assert store.save("beat@h", 60, {}, [], [])
        store.leave("beat@h")
    silent = alone.run(
        "alerts", "silence", "backlog", "--subject", "mial", "--until", "2h", "--reason", "known", "--actor", "ann"
    )
    assert "nobody is told of 'backlog mial' until" in silent.stdout
    assert "this silences nothing now: no queue 'mial' is known; did you mean 'mail'?" in silent.stdout
    listed = alone.run("alerts", "list").stdout
    assert all(said in listed for said in ("backlog mial", "known", "ann"))
    (row,) = json.loads(alone.run("alerts", "list", "--json").stdout.partition("\n")[2])
    assert (row["state"], row["rule"], row["subject"], row["by"], row["reason"]) == (
        "silence", "backlog", "mial", "ann", "known",
    )  # fmt: skip
    task = alone.run("alerts", "silence", "dead letters", "--subject", "Fine", "--until", "2h", "--reason", "known")
    assert f"nobody is told of 'dead letters {Fine.name}' until" in task.stdout
    assert "silences nothing" not in task.stdout
    assert alone.run("alerts", "unsilence", "dead letters", "--subject", "Fine").returncode == 0
    with alone.application() as app:
        (one,) = AlertStore(app.store).silences(datetime.now(UTC))
        assert (one.key, one.reason, one.actor) == ("backlog mial", "known", "ann")
    assert alone.run("alerts", "unsilence", "backlog", "--subject", "mial").returncode == 0
    assert alone.run("alerts", "unsilence", "backlog", "--subject", "mial").returncode == 1


@pytest.mark.everyday
def test_a_beat_refuses_a_receiver_that_cannot_work(alone: Installation) -> None:
    """At its start, in one line; no address is shown."""
    ended = alone.run("beat", CONVENTIONS_ALERT_URLS="nothing://hunter2@x")
    assert ended.returncode == 2
    assert "apprise does not know the address number 1" in ended.stdout
    assert "hunter2" not in ended.stdout
    assert "Traceback" not in ended.stdout
