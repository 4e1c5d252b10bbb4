"""Raw messages of any headers and bodies to a worker with keys: none of them runs, and none takes the place of anything."""

# ruff: noqa: F811  # pytest passes fixtures as arguments of their names

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conventions.app import ConventionsApp
from conventions.storage.tables import ExecutionRow
from tests import raw_messages as raw
from tests.integration.poison_fixtures import app, worker  # noqa: F401  # fixtures
from tests.integration.poison_tasks import QUEUE, Good
from tests.integration.test_poison_fuzz import FUZZ, MESSAGES, written
from tests.recorded import contents
from tests.support import patient, wait_until
from tests.workers import KEYS, Worker, letters


@pytest.fixture(scope="module")
def keeper(valkey_url: str, new_database: Callable[[Any], str], tmp_path_factory: Any) -> Iterator[raw.Keeper]:
    """Runs the worker of these tests."""
    with raw.Keeper.at(tmp_path_factory.mktemp("signed"), valkey_url, new_database, message_keys=KEYS) as keeper:
        yield keeper


@FUZZ
@given(st.lists(MESSAGES, min_size=25, max_size=25))
def test_whatever_nobody_has_signed(app: ConventionsApp, worker: Worker, messages: list[tuple[Any, ...]]) -> None:
    """Each has a letter under an id of its own; no other row has the id that it names, and the good job among them runs."""
    sent = {str(uuid4()): message for message in messages}
    before = {one.id for one in letters(app, state=None)}
    for message_id, message in sent.items():
        raw.put(app, QUEUE, written(message, message_id))
    assert Good.delay(number := str(uuid4())).get(timeout=patient(20)) == number

    def new() -> set[str]:
        return {one.id for one in letters(app, state=None)} - before

    wait_until(lambda: len(new()) >= len(sent), 20, "each has a letter")
    assert all(one.startswith("unsigned-") for one in new()), new()
    assert not sent.keys() & {row["message_id"] for row in contents(app.database, ExecutionRow)}
    raw.check_unharmed(app, worker, QUEUE)
