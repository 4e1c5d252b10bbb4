"""Attempts that have ended, as SQL has them; by an argument, which only letters keep, the dead letters."""

from typing import Any

from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.execution.application import Application
from conventions.metrics.state_now import SQL_WITHIN
from conventions.now.job_filter import JobFilter
from conventions.now.job_line import JobLine
from conventions.records import audit_listing
from conventions.records.audit_filter import AuditFilter
from conventions.storage.database import utc_now

LETTERS = 1000  # that are looked at for their sender


def ended_jobs(app: Application, which: JobFilter, limit: int) -> list[JobLine]:
    """Those that match, the latest first. Raises: SQLAlchemyError."""
    if not app.database.is_there:
        return []
    if which.by_arguments:
        return _letters(app, which, limit) if which.state in ("", "dead") else []
    words: dict[str, Any] = {
        name: getattr(which, name) or None for name in ("task", "queue", "worker", "release", "actor")
    }
    wanted = AuditFilter("executions", outcome=which.state or None, since=which.since, until=which.until, **words)
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        return [
            JobLine(
                one.id or "", one.task or "", one.outcome or "", one.queue or "", one.actor, one.worker, one.release, one.at, one.runtime,
                one.attempt or 0, one.error, one.error_message,
            )
            for one in audit_listing.listing(session, wanted, limit)
        ]  # fmt: skip


def _letters(app: Application, which: JobFilter, limit: int) -> list[JobLine]:
    if which.worker or which.release:  # a letter has neither
        return []
    now = utc_now()
    wanted = Filter(
        state="dead", task=which.task or None, queue=which.queue or None, arguments=which.arguments, codes=which.codes,
        newer_than=None if which.since is None else now - which.since, older_than=None if which.until is None else now - which.until,
    )  # fmt: skip
    most = LETTERS if which.actor else limit
    with app.database.session(read_only=True, within=SQL_WITHIN) as session:
        found = [
            one
            for one in dead_letters.listing(session, wanted, most, brief=True)
            if not which.actor or one.actor == which.actor
        ]
        return [
            JobLine(
                one.id, one.task or "", "dead", one.queue or "", one.actor, None, None, one.last_failed_at, None, one.attempts, one.error,
                one.error_message,
            )
            for one in found[:limit]
        ]  # fmt: skip
