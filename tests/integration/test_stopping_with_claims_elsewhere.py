"""How a worker stops where the claims are on another server than the messages: what its grace period does not let end goes back, uncounted."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from celery.signals import worker_init

from conventions.app import ConventionsApp
from conventions.idempotency.interrupted_start import STOPPED
from conventions.records import executions
from conventions.worker.request import Request
from tests.broker_set_ups import Brokers
from tests.integration.rabbitmq_tasks import Holds
from tests.support import patient, wait_until
from tests.workers import Installation, letters

DEATH_SEEN = "the death of its process was seen first"
STOPS = 4  # more than the starts that make a message poison

pytestmark = pytest.mark.processes


@worker_init.connect
def let_deaths_be_seen_first(sender: Any, **_: Any) -> None:
    """Where a test asks for it: claims are released only after Celery has seen the death of a process."""
    if "DEATH_FIRST" in os.environ:
        seen, claims, on_lost = Event(), sender.app.claims, Request.on_lost
        release_all = claims.release_all

        def on_lost_and_tell(self: Request, error: BaseException) -> None:
            on_lost(self, error)
            seen.set()

        def release_later(*arguments: Any) -> None:
            if seen.wait(20):
                logging.getLogger(__name__).warning(DEATH_SEEN)
            release_all(*arguments)

        Request.on_lost, claims.release_all = on_lost_and_tell, release_later  # type: ignore[method-assign]


@pytest.fixture
def installation(brokers: Brokers, new_database: Callable[[Path], str], tmp_path: Path) -> Installation:
    """An application without a worker."""
    # A short lease: the one that records ends with the worker that is stopped, and the next one waits for its lead.
    settings: dict[str, Any] = {"key_prefix": f"t{uuid4().hex[:8]}", "lease": 6} | brokers()
    packages = [__name__, "tests.integration.rabbitmq_tasks"]
    return Installation(tmp_path, packages, [Path(__file__).parent], database_url=new_database(tmp_path), **settings)


@pytest.fixture
def app(installation: Installation) -> Iterator[ConventionsApp]:
    """The sending side."""
    with installation.application() as app:
        yield app


def wait_for_starts(file: Path, number: int) -> None:
    """Wait until jobs have begun so many times."""
    wait_until(lambda: file.exists() and len(file.read_text().splitlines()) == number, 15, f"{number} starts")


def rows(app: ConventionsApp) -> list[tuple[str, int, str]]:
    """Kind, attempt and error of all that was recorded."""
    with app.database.session(read_only=True) as session:
        found = executions.latest(session, 100)
        return sorted((row.kind, row.attempt, row.error_message or "") for row in found)


@pytest.mark.parametrize("brokers", ["two redis", "rabbitmq"], indirect=True)
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_what_is_not_done_within_the_grace_period_goes_back(
    app: ConventionsApp, installation: Installation, tmp_path: Path, pool: str
) -> None:
    """It runs again at once, not after a lease, and no stop counts as a start of a job that ends its worker."""
    count = 1 if pool == "solo" else 2
    for number in range(count):
        Holds.delay(number)
    options = ("-Q", "immediate", "-P", pool, "-c", str(count))
    variables = {"CONVENTIONS_SHUTDOWN_GRACE": "0.5"} | ({"DEATH_FIRST": "1"} if pool == "prefork" else {})
    for number in range(1, STOPS + 1):
        with installation.worker(*options, **variables) as worker:
            wait_for_starts(tmp_path / "begun", number * count)
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(patient(10))
            assert f"stopped with {count} jobs unfinished" in worker.output
            assert (DEATH_SEEN in worker.output) == (pool == "prefork")
    (tmp_path / "go").touch()
    with installation.worker(*options):
        wait_until(lambda: rows(app).count(("succeeded", 1, "")) == count, 15, "they are done")
        wait_until(lambda: len(rows(app)) == (STOPS + 1) * count, 15, "each start is recorded")
    assert rows(app) == [("interrupted", 1, STOPPED)] * STOPS * count + [("succeeded", 1, "")] * count
    assert letters(app, state=None) == []
