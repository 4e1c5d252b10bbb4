"""An application whose tasks are those of `command_tasks`, and its sub-commands run in this process."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import click
import pytest
from click.testing import CliRunner, Result

from conventions.app import ConventionsApp
from conventions.broker import consumed_queues
from conventions.storage.redis_store import Store
from tests.failures import failure, record
from tests.workers import application

Run: TypeAlias = Callable[..., Result]


@pytest.fixture(autouse=True)
def _short_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker lives here: to wait a second for its answer takes half of the time of these tests."""
    monkeypatch.setattr(consumed_queues, "ASK_WITHIN", 0.1)


@pytest.fixture
def commands_app(store: Store, new_database: Callable[[Path], str], tmp_path: Path) -> Iterator[ConventionsApp]:
    """An application of the test's own, the current one; no worker runs its messages."""
    with application(
        ["tests.cli.command_tasks"], broker_url=store.url, key_prefix=store.prefix, database_url=new_database(tmp_path)
    ) as app:
        yield app


@pytest.fixture
def run(commands_app: ConventionsApp) -> Run:
    """Run a sub-command as `celery -A` does, with errors as a shell would see them."""

    def run(command: click.Command, *arguments: str, app: object = commands_app) -> Result:
        return CliRunner().invoke(command, arguments, obj=SimpleNamespace(app=app), catch_exceptions=False)

    return run


@pytest.fixture
def bury(commands_app: ConventionsApp) -> Callable[..., None]:
    """Make a dead letter."""

    def bury(
        message_id: str = "m1", error: BaseException | None = None, at: datetime | None = None, **values: Any
    ) -> None:
        defaults: dict[str, Any] = {
            "task": "tests.cli.command_tasks.Send",
            "arguments": {"user_id": 7, "day": "2026-01-05"},
            "headers": {"x_key": "the-key", "x_fingerprint": "f", "x_actor": "u-42", "x_counts": {"other": 5}},
        }
        record(commands_app.database, failure(message_id, error or ValueError("it broke"), at=at, **defaults | values))

    return bury
