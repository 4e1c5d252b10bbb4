"""`celery -A <app> cancel ID`: keep a message from running."""

import click
from celery.bin.base import CeleryCommand

from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, one_line_errors, say
from conventions.execution.cancel import cancel as cancel_message
from conventions.records.audit_entry import CANCEL, AuditEntry

ANSWERS = {
    "queued": "queued; it will not run",
    "running": "running; it is told at its next report of progress",
    "too late": "too late; it has ended, or was not sent yet",
}


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option("--reason", help="Why; kept in the audit.")
@actor_option
@click.pass_context
@one_line_errors
def cancel(context: click.Context, *, id: str, reason: str | None, actor: str) -> None:  # noqa: A002  # the word of the glossary
    """Keep the message ID from running; status 1 when it has already ended.

    A running job learns it at its next report of progress.
    """
    app = app_of(context)
    answer = cancel_message(app, id)
    # The audit entry goes to the journal, so that a message can be cancelled while SQL is away.
    outcome = "failed" if answer == "too late" else "done"
    app.journal.note(AuditEntry(actor, CANCEL, id, reason, None, {"outcome": outcome, "answer": answer}))
    say(f"{id}: {ANSWERS[answer]}")
    context.exit(1 if answer == "too late" else 0)
