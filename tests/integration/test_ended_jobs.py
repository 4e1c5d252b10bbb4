"""What a job has ended with is kept: a dead one that is sent again, and one whose result is too large (protocol 4)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, computed_field

from conventions import EVERY_ARGUMENT, BusinessError, ImmediateTask, RetryPolicy
from conventions.app import ConventionsApp
from conventions.records import executions
from tests.support import wait_until
from tests.workers import Installation, letters, wait_for_letter, wait_until_empty

LIMIT = 200_000


class Refuse(ImmediateTask):
    """Fail for good in the attempt of this number."""

    idempotent_on = EVERY_ARGUMENT
    retry_policy = RetryPolicy(first_wait=0.01, max_wait=0.05)

    def run(self, attempt: int) -> None:
        if self.attempt < attempt:
            raise ConnectionError("not yet")
        raise BusinessError("no")


class Fetch(ImmediateTask):
    """Write a line, and return as much as is asked for."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path, kind: str, size: int) -> Any:
        with (folder / kind).open("a") as lines:
            lines.write("fetched\n")
        text = "x" * size
        return {"text": text, "nested": [{"text": text}], "deep": _nested(size)}[kind]


class Summary(BaseModel):
    """A result that its own code cannot make JSON."""

    rates: dict[str, int]

    @computed_field  # type: ignore[prop-decorator]  # pydantic's way
    @property
    def rate(self) -> int:
        """There is none."""
        return self.rates["EUR"]


class Summarize(ImmediateTask):
    """Write a line, and return what cannot be written."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, folder: Path) -> Summary:
        with (folder / "summary").open("a") as lines:
            lines.write("fetched\n")
        return Summary(rates={})


def _nested(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.fixture(scope="module", params=["prefork", "threads"])
def live(
    request: pytest.FixtureRequest,
    valkey_url: str,
    new_database: Callable[[Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ConventionsApp]:
    """An application, and a worker that runs its messages."""
    folder = tmp_path_factory.mktemp("ended")
    settings: dict[str, Any] = {"broker_url": valkey_url, "database_url": new_database(folder), "result_limit": LIMIT}
    installation = Installation(folder, [__name__], [request.path.parent], **settings)
    with installation.application() as app, installation.worker("--pool", request.param, "-c", "2"):
        yield app


def kinds(app: ConventionsApp, message_id: str) -> list[str]:
    """How the attempts of a message ended."""
    wait_until(lambda: app.journal.length() == 0, description="everything is recorded")
    with app.database.session() as session:
        return [row.kind for row in executions.of_message(session, message_id)]


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_dead_job_that_is_sent_again_ends(live: ConventionsApp, attempt: int) -> None:
    """At once, under its id: its letter is there, and stays the only one."""
    sent = Refuse.delay(attempt)
    letter = wait_for_letter(live, sent.id)
    before = kinds(live, sent.id)
    for countdown in (None, 0.1):
        Refuse.apply_async((attempt,), task_id=sent.id, countdown=countdown)
        wait_until_empty(live)
    assert kinds(live, sent.id) == before
    assert [(one.error, one.attempts) for one in letters(live, state=None) if one.id == sent.id] == [
        (letter.error, letter.attempts)
    ]


@pytest.mark.parametrize(
    ("kind", "size", "says"),
    [
        ("text", LIMIT + 1, "the limit is 200,000"),
        ("nested", LIMIT + 1, "the limit is 200,000"),
        ("deep", LIMIT // 2, "cannot be written as JSON"),
    ],
)
def test_a_result_that_cannot_be_kept_repeats_nothing(
    live: ConventionsApp, tmp_path: Path, kind: str, size: int, says: str
) -> None:
    """It is a dead letter that says why, at once: the job has done its work."""
    sent = Fetch.delay(tmp_path, kind, size)
    letter = wait_for_letter(live, sent.id)
    assert (letter.error, letter.attempts) == ("PayloadError", 1)
    assert says in letter.error_message
    assert (tmp_path / kind).read_text() == "fetched\n"


def test_a_result_whose_own_code_fails_repeats_nothing(live: ConventionsApp, tmp_path: Path) -> None:
    """It is a dead letter like any other whose result cannot be written."""
    letter = wait_for_letter(live, Summarize.delay(tmp_path).id)
    assert (letter.error, letter.attempts) == ("PayloadError", 1)
    assert "cannot be written as JSON (KeyError: 'EUR')" in letter.error_message
    assert (tmp_path / "summary").read_text() == "fetched\n"


def test_a_result_within_the_limit(live: ConventionsApp, tmp_path: Path) -> None:
    """It is no fault."""
    sent = Fetch.delay(tmp_path, "text", LIMIT - 2)
    wait_until(lambda: kinds(live, sent.id) == ["succeeded"])
