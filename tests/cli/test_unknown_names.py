"""A listing that finds nothing says which of its names are not known: on standard error, with status 0, as nothing is refused."""

from collections.abc import Callable
from datetime import date
from typing import TypeAlias

import click
import pytest
from click.testing import Result

from conventions.app import ConventionsApp
from conventions.cli.audit import audit
from conventions.cli.jobs import jobs
from conventions.cli.messages import messages
from conventions.records import audit as audit_rows
from conventions.records.audit_entry import AuditEntry
from conventions.storage.database import utc_now
from tests.cli.command_tasks import Send
from tests.failures import failure, record

Run: TypeAlias = Callable[..., Result]

NO_TASK = f"there is no task Sned here (did you mean {Send.name}?)\n"
NO_QUEUE = "there is no queue mial here (did you mean mail?)\n"


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (jobs, ("list", "--task", "Sned"), NO_TASK),
        (jobs, ("list", "--task", "Sned", "--queue", "mial", "--json"), NO_TASK + NO_QUEUE),
        (jobs, ("list", "--arg", "usr_id=1"), "no task here takes an argument usr_id (did you mean user_id?)\n"),
        (messages, ("list", "--task", "Sned", "--json"), NO_TASK),
        (messages, ("count", "--task", "Sned"), NO_TASK),
        (messages, ("count", "--task", "Send", "--arg", "usr_id=1"), "the task Send takes no argument usr_id (did you mean user_id?)\n"),
        (audit, ("list", "--task", "Sned", "--queue", "mial"), NO_TASK + NO_QUEUE),
        (audit, ("list", "--action", "batch cancle", "--json"), "the audit has no action batch cancle (did you mean batch cancel?); it has: batch cancel, cancel\n"),
        (audit, ("list", "--action", "xyz"), "the audit has no action xyz; it has: batch cancel, cancel\n"),
        (audit, ("list", "--action", "batch", "--actor", "nobody"), ""),
        (jobs, ("list", "--task", "Charge", "--queue", "mail"), ""),
    ],
)  # fmt: skip
def test_a_name_that_is_not_known(
    run: Run, commands_app: ConventionsApp, command: click.Command, arguments: tuple[str, ...], said: str
) -> None:
    """With what may be meant."""
    Send.delay(user_id=7, day=date(2026, 1, 5))
    with commands_app.database.session() as session:
        entries = [AuditEntry("u", action, "b1") for action in ("batch cancel", "cancel")]
        audit_rows.record_once(session, [(one, utc_now()) for one in entries])
    done = run(command, *arguments)
    assert (done.exit_code, done.stderr) == (0, said)
    assert done.stdout.strip() in ("nothing found", "[]", "nothing found\n0 messages") or '"lines": []' in done.stdout


def test_a_change_of_what_there_is_not(run: Run) -> None:
    """It says that nothing matches, with status 1, and why that may be."""
    for command in ("cancel", "move"):
        more = ("--to", "mail") if command == "move" else ()
        done = run(messages, command, "--task", "Sned", *more, "--reason", "x", "--yes")
        assert (done.exit_code, done.stderr) == (1, f"no message that waits matches\n{NO_TASK}")


def test_a_task_that_is_gone_has_records(run: Run, commands_app: ConventionsApp) -> None:
    """Nothing is said of a name under which something was found."""
    record(commands_app.database, failure("m1", ValueError("x"), task="old.Sned"))
    for command in (jobs, audit):
        done = run(command, "list", "--task", "Sned")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "m1" in done.stdout
