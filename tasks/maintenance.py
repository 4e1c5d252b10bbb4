"""Clean-up and backup (R10)."""

import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import ColumnElement, delete, inspect, select, tuple_
from sqlalchemy.orm import DeclarativeBase

from conventions import ScheduledTask
from conventions.records.delete_old_audit import purge
from conventions.storage.tables import AttemptLogRow, DeadLetterRow, IdempotencyRow, RedriveRow
from tasks.backups import back_up_postgresql, back_up_sqlite, keep_newest
from tasks.files import slug
from tasks.tables import EmailLog

logger = logging.getLogger(__name__)

BATCH = 1000  # rows deleted in one transaction
FOLDERS = ("reports", "thumbnails", "imports")  # below the output folder
KEEP = 7  # backups


class PurgeOldData(ScheduledTask):
    """Delete executions, log lines of attempts, log rows of sent e-mails and output files older than the setting `retention`.

    Rows go a thousand at a time, each thousand in its own transaction, so that others are never kept waiting and
    a stopped run loses nothing: the next one goes on. Backups have a rule of their own (`BackupDatabase`). Dead
    letters stay for `dead_letter_retention` from their last failure, in any state: one that nobody worked on for so
    long is given up, which the log says; its earlier attempts go with the executions. Redrives and the audit stay as
    long as dead letters. Executions and the audit go by whole segments of their chains, a day at most. The records of committed effects
    go after `retention`, but never before `keep_result_for`.
    """

    def run(self) -> dict[str, int]:
        """Delete, and return how many of each kind."""
        settings, now = self.app.settings, datetime.now(UTC)
        limit = now - settings.retention
        given_up = now - settings.dead_letter_retention
        safe = now - max(settings.retention, settings.keep_result_for)
        records = purge(self.app.database, self.app.audit_keys, limit, given_up, batch=BATCH)
        deleted = {
            "email_log": self._delete(EmailLog, EmailLog.sent_at < limit),
            "executions": records.executions,
            "attempt_logs": self._delete(AttemptLogRow, AttemptLogRow.at < limit),
            "dead_letters": self._delete(DeadLetterRow, DeadLetterRow.last_failed_at < given_up),
            "redrives": self._delete(RedriveRow, RedriveRow.ended_at < given_up),
            "audit": records.actions,
            "effects": self._delete(IdempotencyRow, IdempotencyRow.created_at < safe),
            "files": self._delete_files(Path(settings.output_dir), limit.timestamp()),
        }
        logger.info(
            "deleted what was older than %s, and dead letters older than %s: %s",
            limit.isoformat(timespec="seconds"),
            given_up.isoformat(timespec="seconds"),
            deleted,
        )
        return deleted

    def _delete(self, table: type[DeclarativeBase], condition: ColumnElement[bool]) -> int:
        key = inspect(table).primary_key
        deleted = 0
        while True:
            with self.app.database.session() as session:
                found = session.execute(select(*key).where(condition).limit(BATCH)).all()
                if found:
                    session.execute(delete(table).where(tuple_(*key).in_([tuple(row) for row in found])))
            deleted += len(found)
            if len(found) < BATCH:
                return deleted

    def _delete_files(self, output: Path, limit: float) -> int:
        deleted = 0
        for name in FOLDERS:
            for path in _files_below(output / name):
                if path.lstat().st_mtime < limit:
                    path.unlink(missing_ok=True)
                    deleted += 1
        return deleted


class BackupDatabase(ScheduledTask):
    """Copy the business database to `backups/<name>-<UTC time>` below the output folder, and keep the last seven.

    SQLite is copied by its online backup, PostgreSQL by `pg_dump --format=custom`. A copy gets its name after it
    was checked, and only then is an old one deleted.

    Raises:
        BusinessError: the database is in memory, or pg_dump is not installed.
        RuntimeError: the copy could not be made or is damaged; it is tried again.
    """

    def run(self) -> str:
        """Make one copy and return its path."""
        url, database = self.app.database.url, self.app.database
        suffix, back_up = (".sqlite3", back_up_sqlite) if database.is_sqlite else (".dump", back_up_postgresql)
        name = slug(Path(url.database or "database").stem)
        folder = Path(self.app.settings.output_dir) / "backups"
        target = folder / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}{suffix}"
        back_up(url, target)
        for path in keep_newest(list(folder.glob(f"{name}-[0-9]*T[0-9]*Z{suffix}")), KEEP):
            logger.info("deleted the old backup %s", path)
        return str(target)


def _files_below(folder: Path) -> Iterator[Path]:
    """Every file and link in the folder and its folders; links are not followed."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent) / name for name in names)
