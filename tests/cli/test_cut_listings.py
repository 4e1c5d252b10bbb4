"""A listing that is cut says so on standard error; its JSON stays alone on standard output."""

import json
from collections.abc import Callable
from datetime import date
from typing import TypeAlias

import click
import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.batches.batch_state import Origin
from conventions.cli.audit import audit
from conventions.cli.batch import batch
from conventions.cli.dead_letters import dead_letters
from conventions.cli.jobs import jobs
from conventions.cli.lost import lost
from conventions.cli.messages import messages
from conventions.cli.pause import pause
from conventions.execution.waiting_selection import Search, Selection
from conventions.now.job_filter import JobFilter
from conventions.now.job_listing import list_jobs
from conventions.pauses.pause_actions import PauseActions
from conventions.pauses.pause_store import Target
from conventions.records import audit as audit_rows
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import utc_now
from tests.cli.command_tasks import Import, Send
from tests.failures import failure, record

Run: TypeAlias = Callable[..., Result]

CUT = "the first 2; --limit shows more"
LISTINGS: dict[str, tuple[click.Command, tuple[str, ...]]] = {
    "actions": (audit, ("list", "--of", "actions")),
    "executions": (audit, ("list", "--of", "executions", "--outcome", "dead")),
    "messages": (messages, ("list", "--queue", "mail")),
    "letters": (dead_letters, ("list",)),
    "groups": (dead_letters, ("groups",)),
    "lost": (lost, ()),
    "batches": (batch, ("list",)),
    "pauses": (pause, ("list",)),
}


@pytest.fixture
def three(commands_app: ConventionsApp) -> None:
    """Three of each."""
    actions = PauseActions(commands_app.store)
    with commands_app.database.session() as session:
        entries = [AuditEntry("u", "cancel", f"m{number}") for number in range(3)]
        audit_rows.record_once(session, [(one, utc_now()) for one in entries])
    for number, error in enumerate((ValueError("a"), KeyError("b"), LookupError("c"))):
        record(commands_app.database, failure(f"d{number}", error, task=str(Send.name)))
        record(commands_app.database, failure(f"l{number}", error, task=str(Send.name), kind="lost"))
        Send.apply_async(kwargs={"user_id": number, "day": date(2026, 1, 5)})
        commands_app.batches.create(f"b{number}", Origin(str(Import.name), {"path": "x"}, "u-42"))
        actions.pause(Target("queue", f"q{number}"), "u", "x", None)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("listing", LISTINGS)
def test_a_listing_that_is_cut(run: Run, listing: str) -> None:
    """As a table and as JSON; not where all are shown."""
    command, arguments = LISTINGS[listing]
    cut, whole = (run(command, *arguments, "--json", "--limit", limit) for limit in ("2", "3"))
    assert (cut.exit_code, len(json.loads(cut.stdout)), CUT in cut.stderr) == (0, 2, True), cut.stderr
    assert (whole.exit_code, len(json.loads(whole.stdout)), "--limit" in whole.stderr) == (0, 3, False), whole.stderr
    table = run(command, *arguments, "--limit", "2")
    assert CUT in table.stderr
    assert len(table.stdout.splitlines()) == 3


@pytest.mark.usefixtures("three")
def test_jobs_that_are_cut(run: Run) -> None:
    """Each kind of them by itself."""
    done = run(jobs, "list", "--limit", "2", "--task", "Send", "--json")
    found = json.loads(done.stdout)
    assert (done.stderr, len(found["lines"]), found["more"]) == (
        "the first 2 waiting jobs; --limit shows more\nthe first 2 ended jobs; --limit shows more\n",
        4,
        ["waiting jobs", "ended jobs"],
    )
    whole = run(jobs, "list", "--limit", "6", "--task", "Send")
    assert (whole.exit_code, whole.stderr) == (0, "")


@pytest.mark.usefixtures("three")
def test_how_many_were_looked_at(commands_app: ConventionsApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is said where more wait than may be looked at; not where a worker has taken one meanwhile."""
    some = list_jobs(commands_app, JobFilter(queue="mail"), 10, look_at=2)
    assert (some.is_partial, some.looked, some.waiting) == (True, 2, 3)
    assert not list_jobs(commands_app, JobFilter(queue="mail"), 10, look_at=3).is_partial
    search = Search(commands_app, Selection(("mail",)), 1)
    assert [one.queue for one in search] == ["mail"]
    assert search.is_cut
    begin = Search.__iter__

    def is_taken(search: Search) -> object:
        commands_app.broker.reserve(["mail"], 1)
        return begin(search)

    monkeypatch.setattr(Search, "__iter__", is_taken)
    taken = list_jobs(commands_app, JobFilter(queue="mail", state="queued"), 10)
    assert (len(taken.lines), taken.waiting, taken.is_partial) == (2, 3, False)
