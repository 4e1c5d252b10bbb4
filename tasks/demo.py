"""What `celery -A tasks demo` does: every kind of job once, on the real files in `examples/`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from sqlalchemy import func, select

from conventions import Progress as JobProgress
from conventions.app import ConventionsApp
from conventions.core.printable_text import printable
from conventions.dead_letters import letters as dead_letters
from conventions.dead_letters.filter import Filter
from conventions.demo import Outcome
from tasks.demo_servers import BUSY_ONCE, environment, received_events, received_mail
from tasks.emails import SendEmail
from tasks.files import file_digest
from tasks.images import MakeThumbnail
from tasks.imports import ImportContacts
from tasks.notifications import SendNotification
from tasks.reports import DailyReport
from tasks.tables import Contact, EmailLog

EXAMPLES = Path("examples")
LIMIT = 40.0  # seconds for each step; a step that takes longer has hung
POLL = 0.05  # seconds
EMAILS = 300
AGAIN = 50
EVENTS = 40
SIZES = (64, 128, 256, 512)
HEADLINE = {"headline": "The platform runs", "text": "This e-mail came by SMTP, one job for each reader."}

__all__ = ["environment", "scenario"]


def scenario(app: ConventionsApp, console: Console, folder: Path) -> Iterator[Outcome]:
    """Send the jobs, wait for them, and compare what the outside received with what was sent.

    Every run has keys of its own and writes to readers who have no newsletter of that day yet, so that it can be
    run again at any time.

    Raises:
        RuntimeError: a step did not end in time, or its effect is not what it must be.
    """
    demo = Demo(app, console, folder)
    yield demo.import_contacts()
    yield demo.send_emails()
    yield demo.send_again()
    yield demo.make_thumbnails()
    yield demo.notify()
    yield demo.fail()
    yield demo.report()


@dataclass
class Demo:
    """One run of the demo."""

    app: ConventionsApp
    console: Console
    folder: Path
    run: str = field(default_factory=lambda: uuid4().hex[:8])
    letters: dict[int, dict[str, Any]] = field(default_factory=dict)

    def import_contacts(self) -> Outcome:
        """Import the CSV file in chunks."""
        path = _example("contacts.csv")
        start = time.monotonic()
        batch = ImportContacts.apply_async(
            kwargs={"path": str(path), "sha256": file_digest(path)}, idempotency_key=f"demo-{self.run}-import"
        ).id
        with self._bar("import contacts", None) as (bar, row):
            while True:
                summary = self.app.batches.summary(batch)
                progress = JobProgress.of(batch, self.app.store)
                bar.update(row, total=progress.total, completed=progress.done + progress.failed)
                if summary is not None and summary.state in ("done", "dead"):
                    break
                _check_time(start, f"the import {batch}", f"{progress.done} of {progress.total} rows")
                time.sleep(POLL)
        chunks = summary.chunks or 0
        if summary.state == "dead" or summary.done != summary.total:
            raise RuntimeError(f"the import ended as {summary.state} with {summary.done} of {summary.total} rows")
        with self.app.database.session() as session:
            contacts = session.scalar(select(func.count()).select_from(Contact)) or 0
        self.console.print(f"  {summary.total:,} rows read, {contacts:,} contacts in the database", highlight=False)
        failed = len(summary.failed_chunks)
        return Outcome("import contacts, by chunks", chunks, chunks - failed, failed, 0, time.monotonic() - start)

    def send_emails(self) -> Outcome:
        """Send one e-mail to each of many contacts, and find each exactly once at the mail server."""
        day, users = self._readers()
        self.letters = {
            user: {"user_id": user, "template_id": "newsletter", "day": day, "template_vars": HEADLINE}
            for user in users
        }
        calls = [(SendEmail, letter, f"demo-{self.run}-mail-{user}") for user, letter in self.letters.items()]
        outcome, results = self._send("send e-mails", calls)
        received = received_mail(self.folder)
        wrong = [message_id for message_id in results if received[message_id] != 1]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(results)} e-mails were not received exactly once: {wrong[:3]}")
        return outcome

    def send_again(self) -> Outcome:
        """Send some of them again, half under the same keys and half under new ones: the mail server gets none."""
        before = received_mail(self.folder).total()
        calls = []
        for number, (user, letter) in enumerate(list(self.letters.items())[:AGAIN]):
            again = "" if number % 2 else "-again"
            calls.append((SendEmail, letter, f"demo-{self.run}-mail-{user}{again}"))
        outcome, _ = self._send("the same again: none sent", calls)
        sent = received_mail(self.folder).total() - before
        if sent:
            raise RuntimeError(f"{sent} e-mails were sent twice")
        return outcome

    def make_thumbnails(self) -> Outcome:
        """Make thumbnails of every picture in several sizes."""
        pictures = sorted(path for path in _example("pictures").iterdir() if path.suffix in (".jpg", ".png"))
        calls = [
            (MakeThumbnail, {"source": str(picture), "size": size}, None) for picture in pictures for size in SIZES
        ]
        outcome, results = self._send("make thumbnails", calls)
        missing = [path for path in results if not Path(path).is_file()]
        if missing:
            raise RuntimeError(f"thumbnails are missing: {missing}")
        return outcome

    def notify(self) -> Outcome:
        """Post events to the webhook; the first one is answered "503, come back in 2 s" and then taken."""
        ids = [f"{self.run}-{BUSY_ONCE if number == 0 else number}" for number in range(EVENTS)]
        calls = [
            (SendNotification, {"event_id": one, "event": "newsletter.sent", "data": {"run": self.run}}, None)
            for one in ids
        ]
        outcome, _ = self._send("notify by webhook", calls)
        received = received_events(self.folder)
        wrong = [one for one in ids if received[one] != 1]
        if wrong:
            raise RuntimeError(f"these events were not received exactly once: {wrong}")
        return outcome

    def fail(self) -> Outcome:
        """Write to a user that does not exist: no retry can mend that, so it is a dead letter at once."""
        with self.app.database.session() as session:
            nobody = (session.scalar(select(func.max(Contact.id))) or 0) + 1_000_000
        letter: dict[str, Any] = {
            "user_id": nobody,
            "template_id": "welcome",
            "day": self._today(),
            "template_vars": {},
        }
        key = f"demo-{self.run}-nobody"
        outcome, _ = self._send("e-mail to nobody", [(SendEmail, letter, key)], expected_failed=1)
        found = self._letter_of(nobody)
        self.console.print(f"  dead letter: {printable(found)}", markup=False, highlight=False, soft_wrap=True)
        return outcome

    def _letter_of(self, user_id: int) -> str:
        """The dead letter of an e-mail; it is in the database a moment after the job has ended."""
        start = time.monotonic()
        while True:
            with self.app.database.session(read_only=True) as session:
                for dead in dead_letters.listing(session, Filter(task=SendEmail.name), 100):
                    if dead.arguments.get("user_id") == user_id:
                        return f"{dead.error}: {dead.error_message} (attempt {dead.attempts}, id {dead.id})"
            _check_time(start, "e-mail to nobody", "its dead letter is not there")
            time.sleep(POLL)

    def report(self) -> Outcome:
        """Write today's report."""
        outcome, results = self._send("daily report", [(DailyReport, {"day": self._today()}, None)])
        for path in results[0]:
            self.console.print(f"  {path}", markup=False, highlight=False, soft_wrap=True)
        return outcome

    def _send(
        self, job: str, calls: Sequence[tuple[Any, Mapping[str, Any], str | None]], expected_failed: int = 0
    ) -> tuple[Outcome, list[Any]]:
        """Send one message a call, wait for all, and return the outcome and what the successful ones returned."""
        start = time.monotonic()
        with self._bar(job, len(calls)) as (bar, row):
            waiting = [
                task.apply_async(kwargs=arguments, idempotency_key=key, actor="demo", ignore_result=False)
                for task, arguments, key in calls
            ]
            done, failed, returned = 0, 0, []
            while waiting:
                ended = [one for one in waiting if one.ready()]
                waiting = [one for one in waiting if one not in ended]
                for one in ended:
                    done, failed = (done + 1, failed) if one.successful() else (done, failed + 1)
                    returned += [one.result] if one.successful() else []
                    one.forget()
                bar.update(row, completed=done + failed)
                if waiting:
                    _check_time(start, job, f"{done + failed} of {len(calls)} jobs")
                    time.sleep(POLL)
        return Outcome(job, len(calls), done, failed, expected_failed, time.monotonic() - start), returned

    def _readers(self) -> tuple[date, list[int]]:
        """A day, today if possible, and contacts who have no newsletter of that day."""
        day = self._today()
        while True:
            have = select(EmailLog.user_id).where(EmailLog.template_id == "newsletter", EmailLog.day == day)
            query = select(Contact.id).where(Contact.id.not_in(have)).order_by(Contact.id).limit(EMAILS)
            with self.app.database.session() as session:
                users = list(session.scalars(query))
            if len(users) == EMAILS:
                return day, users
            day += timedelta(days=1)

    def _today(self) -> date:
        return datetime.now(ZoneInfo(self.app.settings.timezone)).date()

    def _bar(self, job: str, total: int | None) -> "_Bar":
        return _Bar(self.console, job, total)


class _Bar:
    """One line with a bar; as a context manager it gives the display and its row."""

    def __init__(self, console: Console, job: str, total: int | None) -> None:
        columns = (
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._display = Progress(*columns, console=console)
        self._row = self._display.add_task(job, total=total)

    def __enter__(self) -> tuple[Progress, Any]:
        self._display.start()
        return self._display, self._row

    def __exit__(self, *_error: object) -> None:
        self._display.stop()


def _example(name: str) -> Path:
    path = EXAMPLES / name
    if not path.exists():
        raise RuntimeError(f"{path} is not here: run the demo in the folder that holds examples/")
    return path


def _check_time(start: float, what: str, state: str) -> None:
    if time.monotonic() - start > LIMIT:
        raise RuntimeError(f"{what} did not end within {LIMIT:g} s: {state}")
