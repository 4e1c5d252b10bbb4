"""Clean-up and backup, on each database."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from conventions import BusinessError
from conventions.app import ConventionsApp
from conventions.storage.database import Database
from conventions.storage.tables import AttemptLogRow, AuditRow, DeadLetterRow, ExecutionRow, IdempotencyRow, RedriveRow
from tasks import maintenance
from tasks.backups import back_up_postgresql, back_up_sqlite, keep_newest
from tasks.maintenance import BackupDatabase, PurgeOldData
from tasks.tables import Contact, EmailLog
from tests.demo_settings import settings_of
from tests.postgres import programs

NOW = datetime.now(UTC)
OLDEST, OLD, YOUNG = (NOW - timedelta(days=days) for days in (366, 91, 89))


def fill(database: Database, moment: datetime, rows: int = 1) -> None:
    """Add as many rows of each kind, all of that time."""
    with database.session() as session:
        first = session.scalar(select(func.count()).select_from(EmailLog)) or 0
        for number in range(first, first + rows):
            session.add(
                EmailLog(
                    user_id=number,
                    template_id="welcome",
                    day=date(2026, 1, 5),
                    job_id="j",
                    recipient="a@example.com",
                    message_id="m",
                    sent_at=moment,
                )
            )
            session.add(
                DeadLetterRow(
                    id=f"id-{number}",
                    error="BusinessError",
                    error_message="",
                    traceback="",
                    fingerprint="f",
                    attempts=1,
                    actor="system",
                    state="dead",
                    arguments={},
                    headers={},
                    generation=0,
                    fence=0,
                    first_failed_at=moment,
                    last_failed_at=moment,
                )
            )
            session.add(
                ExecutionRow(
                    id=f"id-{number}",
                    message_id="m",
                    generation=0,
                    attempt=1,
                    kind="succeeded",
                    actor="system",
                    ended_at=moment,
                    fence=0,
                )
            )
            session.add(
                AttemptLogRow(
                    message_id=f"id-{number}", generation=0, attempt=1, token="t", lines="", left_out=0, at=moment
                )
            )
            session.add(
                AuditRow(
                    id=f"id-{number}",
                    at=moment,
                    actor="u-9",
                    action="dead-letters note",
                    target="g",
                    before=None,
                    after=None,
                )
            )
            session.add(redrive(f"id-{number}", moment))
            session.add(
                IdempotencyRow(task="t", key_hash=f"k{number}", fingerprint="f", message_id="m", created_at=moment)
            )


def redrive(id_: str, moment: datetime) -> RedriveRow:
    """A redrive that ended then."""
    return RedriveRow(
        id=id_, state="finished", actor="u-9", reason=None, selection={}, canary=5, rate=50, stop_at=10, again=False, total=1,
        sent=1, succeeded=1, failed=0, note="", created_at=moment, updated_at=moment, ended_at=moment,
    )  # fmt: skip


def counts(database: Database) -> list[int]:
    with database.session() as session:
        return [
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (EmailLog, ExecutionRow, AttemptLogRow, DeadLetterRow, IdempotencyRow, AuditRow, RedriveRow)
        ]


def test_what_is_older_than_the_retention_goes(
    make_app: Callable[..., ConventionsApp], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, of which each is a transaction; what is younger stays, and dead letters stay for a year, with what was done to them."""
    monkeypatch.setattr(maintenance, "BATCH", 10)
    app = make_app(database_url=database_url)
    fill(app.database, OLDEST, rows=21)
    fill(app.database, OLD, rows=4)
    fill(app.database, YOUNG, rows=3)
    deleted = PurgeOldData.apply().get()
    kept_for_a_year = {"dead_letters": 21, "redrives": 21, "audit": 21}
    assert (
        deleted == {"email_log": 25, "executions": 25, "attempt_logs": 25, "effects": 25, "files": 0} | kept_for_a_year
    )
    assert counts(app.database) == [3, 3, 3, 7, 3, 7, 7]


def test_dead_letters_have_a_retention_of_their_own(make_app: Callable[..., ConventionsApp]) -> None:
    """From their last failure; a short one leaves the executions alone."""
    app = make_app(dead_letter_retention=timedelta(days=90))
    fill(app.database, OLD, rows=2)
    fill(app.database, YOUNG)
    with app.database.session() as session:
        letter = session.get_one(DeadLetterRow, "id-0")
        letter.last_failed_at = YOUNG
    assert PurgeOldData.apply().get()["dead_letters"] == 1
    with app.database.session() as session:
        assert set(session.scalars(select(DeadLetterRow.id))) == {"id-0", "id-2"}


def test_records_of_effects_stay_as_long_as_claims_do(make_app: Callable[..., ConventionsApp]) -> None:
    """Without them an effect could happen a second time."""
    app = make_app(retention=timedelta(days=1), keep_result_for=timedelta(days=100))
    fill(app.database, OLD)
    assert PurgeOldData.apply().get()["effects"] == 0
    assert counts(app.database) == [0, 0, 0, 1, 1, 1, 1]


def test_old_output_files_go_and_backups_stay(app: ConventionsApp) -> None:
    """By the time they were written; a link is deleted, not what it leads to."""
    output = Path(settings_of(app).output_dir)
    elsewhere = Path("elsewhere.txt")
    elsewhere.touch()
    for name in (
        "reports/old.csv",
        "thumbnails/64/a/old.jpg",
        "imports/old.json",
        "backups/old.dump",
        "reports/new.csv",
    ):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).touch()
        if "old" in name:
            os.utime(output / name, (OLD.timestamp(), OLD.timestamp()))
    (output / "reports" / "link").symlink_to(elsewhere.absolute())
    os.utime(output / "reports" / "link", (OLD.timestamp(), OLD.timestamp()), follow_symlinks=False)
    assert PurgeOldData.apply().get()["files"] == 4
    left = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert left == ["backups/old.dump", "reports/new.csv"]
    assert elsewhere.exists()


def test_a_backup_of_sqlite_holds_what_was_committed(app: ConventionsApp, add_contact: Callable[..., int]) -> None:
    """It is one private file, which opens as a database."""
    add_contact(app.database, "hnd@example.com")
    path = Path(BackupDatabase.apply().get())
    assert path.parent == Path(settings_of(app).output_dir) / "backups"
    assert path.name.startswith("business-2")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]
    copy = Database(f"sqlite:///{path}")
    with copy.session() as session:
        assert session.scalars(select(Contact.email)).all() == ["hnd@example.com"]
    copy.dispose()


def test_a_backup_is_taken_while_others_write(app: ConventionsApp, add_contact: Callable[..., int]) -> None:
    """The copy is of one moment, and the writers are not stopped."""
    stop = threading.Event()
    written: list[int] = []

    def write() -> None:
        while not stop.is_set():
            written.append(add_contact(app.database, f"u{len(written)}@example.com"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        paths = [Path(BackupDatabase.apply().get()) for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    sizes = []
    for path in paths:
        with closing(sqlite3.connect(path)) as copy:
            sizes.append(copy.execute("SELECT count(*) FROM contacts").fetchone()[0])
    assert sizes == sorted(sizes)
    assert sizes[-1] <= len(written)


def test_a_backup_of_postgresql_can_be_restored(
    make_app: Callable[..., ConventionsApp],
    postgres_url: str,
    add_contact: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What pg_dump wrote, pg_restore reads."""
    monkeypatch.setenv("PATH", str(programs()), prepend=os.pathsep)
    app = make_app(database_url=postgres_url)
    add_contact(app.database, "hnd@example.com")
    path = Path(BackupDatabase.apply().get())
    assert path.suffix == ".dump"
    assert path.stat().st_mode & 0o777 == 0o600
    sql = subprocess.run(
        ["pg_restore", "--file=-", "--table=contacts", path], capture_output=True, text=True, check=True
    )
    assert "hnd@example.com" in sql.stdout


def test_the_password_of_postgresql_is_in_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of a machine can read the arguments of every process."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, body in (
        ("pg_dump", 'echo "$@ $PGPASSWORD" > said; echo x > "${3#--file=}"'),
        ("pg_restore", "echo list"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    back_up_postgresql(
        make_url("postgresql+psycopg://u:a-password@db.example.com:5433/shop?sslmode=require"), Path("a.dump")
    )
    said = (tmp_path / "said").read_text().split()
    assert said[-2:] == ["--dbname=postgresql://u@db.example.com:5433/shop?sslmode=require", "a-password"]


def test_a_dump_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what pg_dump said."""
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho 'connection refused' >&2\nexit 1\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="pg_dump ended with status 1: connection refused"):
        back_up_postgresql(make_url("postgresql://u@db/shop"), tmp_path / "backups" / "a.dump")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_missing_program_is_a_business_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No retry installs it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BusinessError, match="pg_dump is not installed"):
        back_up_postgresql(make_url("postgresql://u@db/shop"), tmp_path / "a.dump")


def test_a_database_in_memory_cannot_be_backed_up(tmp_path: Path) -> None:
    """There is nothing that another connection could read."""
    with pytest.raises(BusinessError, match="in memory"):
        back_up_sqlite(make_url("sqlite://"), tmp_path / "a.sqlite3")


def test_the_last_seven_backups_are_kept(app: ConventionsApp) -> None:
    """Those of another database are left alone."""
    folder = Path(settings_of(app).output_dir) / "backups"
    folder.mkdir(parents=True)
    other = folder / "other-20200101T000000000000Z.sqlite3"
    other.touch()
    paths = [Path(BackupDatabase.apply().get()) for _ in range(9)]
    assert sorted(folder.iterdir()) == sorted([*paths[2:], other])


def test_keeping_more_than_there_are_deletes_nothing(tmp_path: Path) -> None:
    """Few backups are no reason to delete any."""
    (tmp_path / "a").touch()
    assert keep_newest([tmp_path / "a"], 7) == []
    assert (tmp_path / "a").exists()
