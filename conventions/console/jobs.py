"""The pages of jobs: a search over those that run, wait or have ended, and one job's story, live (R9, R11, R22)."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from sqlalchemy.exc import SQLAlchemyError
from tornado import web

from conventions.console import display, hidden_values
from conventions.console.filtered_page import FilteredPage
from conventions.console.job_filter_in_url import JobQuery
from conventions.console.notice import Notice
from conventions.console.page import Page
from conventions.console.reveal_form import reveal
from conventions.core.actor import acting_as
from conventions.core.errors import JournalFull
from conventions.core.name_and_value import has_value, name_and_value
from conventions.core.sealed_mark import SHOWN
from conventions.core.value_bounds import fault_of_name
from conventions.execution.application import Application
from conventions.jobs.history import JobAttempt
from conventions.jobs.job import Job
from conventions.jobs.job_actions import JobAction
from conventions.jobs.message_parts import MessageParts, parts_of
from conventions.jobs.reveal import revealing
from conventions.metrics.worker_reports import WorkerNow
from conventions.now.cancel_or_end import cancel_or_end
from conventions.now.end_running import (
    BY_ITSELF,
    ForcedEnd,
    silence_of,
    silent_worker_of,
    worker_of,
)
from conventions.now.job_filter import STATES
from conventions.now.job_listing import list_jobs
from conventions.now.whole_id import LENGTH, SHORT, whole_ids
from conventions.storage.database import utc_now

ROWS = 100
LIVE = ("queued", "delayed", "retrying", "parked", "running", "unsent")  # states that change by themselves
RECORDED_WITHIN = timedelta(seconds=30)  # after its end, what was done to it is in SQL, and so on its page
SEEN_NOWHERE = "unknown"  # also of a job that waits or runs, where the broker shows no single messages
CANCELLED = {
    "queued": "It is cancelled: it will not run.",
    "running": "It runs, and is told at its next report of progress.",
    "too late": "It has ended, or was not sent yet.",
    "elsewhere": "It will not begin. If it runs, it is told at its next report of progress.",
    "batch": "Its chunks that wait will not run; those that run end by themselves.",
}


class JobList(FilteredPage):
    """`/jobs`: a search. `?q=` takes an id, a sender, or `argument=value`."""

    tab = "conventions-jobs"
    title = "Jobs"

    async def get(self) -> None:
        """List what matches; an id leads to its page."""
        try:
            if asked := self.parameter("q"):
                if has_value(asked):
                    self.sought((name_and_value(asked),))
                self.redirect(await self.address_of(asked), status=HTTPStatus.SEE_OTHER)
                return
            query = JobQuery.read(self.parameters, utc_now(), ZoneInfo(self.capp.settings.timezone))
            which = replace(query.filter, **self.sought(query.filter.arguments)._asdict())
        except ValueError as error:
            self.refuse(str(error))
            return
        found = await self.in_thread(list_jobs, self.capp, which, ROWS)
        self.show("conventions_jobs.html", query=query, fault="", found=found, **self._words())

    def refuse(self, fault: str) -> None:
        """Show what is wrong with the filter, to be corrected, and no jobs."""
        self.set_status(HTTPStatus.BAD_REQUEST)
        query = JobQuery.from_invalid(self.parameters)
        self.show("conventions_jobs.html", query=query, fault=fault, found=None, **self._words())

    def _words(self) -> dict[str, Any]:
        return {"states": STATES, "rows": ROWS, "length": display.runtime_text, "sees_values": self.visitor.sees_values}

    async def address_of(self, asked: str) -> str:
        """Where a search for an id, a sender or `argument=value` leads: to the page of a job, or to a list. Raises: HTTPError, ValueError: see `in_address`."""
        if has_value(asked):
            words = {"arg": self.in_address(asked)}
        elif fault_of_name(asked) is None and (known := await self.in_thread(known_id, self.capp, asked)):
            return str(self.reverse_url("conventions-job", known))
        else:
            words = {"actor": asked}
        return f"{self.reverse_url('conventions-jobs')}?{urlencode(words)}"


def known_id(app: Application, text: str) -> str:
    """The id of the job that is meant: the text, or the one id that begins so. Empty where nothing is known of one. Raises: RedisError, SQLAlchemyError."""
    if Job.of(text, app).state != "unknown":
        return text
    found = whole_ids(app, text)
    return found[0] if len(found) == 1 else ""


def changes(job: Job) -> bool:
    """Whether its page may say something else in a moment."""
    return job.state in LIVE or (job.ended_at is not None and utc_now() - job.ended_at < RECORDED_WITHIN)


class JobDetail(Page):
    """`/jobs/<id>`: where it is and why, its attempts with what they have logged, what comes before and after it, and what was done to it."""

    tab = "conventions-jobs"
    title = "Job"

    async def get(self, id_: str) -> None:
        """Show it."""
        self.check_id(id_)
        known = await self.in_thread(known_id, self.capp, id_) if len(id_) < LENGTH else id_
        if known and known != id_:
            self.redirect(self.reverse_url("conventions-job", known), status=HTTPStatus.SEE_OTHER)
            return
        short = "" if known else f"{SHORT[0].upper()}{SHORT[1:]}."
        await self.show_job(id_, said=Notice("warning", short) if short else None)

    def check_id(self, id_: str) -> None:
        """Raises: HTTPError: no job can have this id."""
        if fault := fault_of_name(id_):
            raise web.HTTPError(HTTPStatus.NOT_FOUND, f"No job can have this id: it {fault}.")

    async def show_job(self, id_: str, *, said: Notice | None = None, why: str = "") -> None:
        """Show it, with what is wrong with the form, if one was sent; `why`: what is sealed is revealed, for this reason."""
        found = await (self.in_thread(self._reveal, id_, why) if why else self.in_thread(self._find, id_))
        hidden = not self.visitor.sees_values
        self.show(
            "conventions_job.html",
            said=said,
            hidden=hidden,
            live=not found["revealed"] and (found["may_run"] or changes(found["job"])),
            can_open=self.capp.payload_keys is not None,
            length=display.runtime_text,
            short=display.short_duration,
            log_time=lambda text: display.log_time(text, self.capp.settings.timezone),
            arguments_text=lambda value: hidden_values.arguments_text(value, hidden=hidden),
            **found,
        )

    def _reveal(self, id_: str, why: str) -> dict[str, Any]:
        with revealing(self.capp, id_, self.visitor.name, why):
            return self._find(id_) | {"revealed": True}

    def _find(self, id_: str) -> dict[str, Any]:
        app, sees = self.capp, self.visitor.sees_values
        job = Job.of(id_, app)
        fault = ""
        parts: MessageParts | None
        actions: tuple[JobAction, ...] = ()
        runs_at, ran_at = self._workers(job)
        try:
            attempts, parts = job.history(logs=sees), parts_of(app, id_)
            actions = job.actions()
        except SQLAlchemyError as error:
            fault = f"The database does not answer ({type(error).__name__}): what it has of this job is missing here."
            attempts, parts = job.history(logs=sees, sql=False), parts_of(app, id_, sql=False)
        return {
            "job": job,
            "attempts": attempts,
            "parts": parts,
            "audit_entries": actions[::-1],
            "fault": fault,
            "runs_at": runs_at,
            "revealed": False,
            "sealed": (parts is not None and parts.sealed) or _shows_sealed(job, attempts),
            "silent": "" if ran_at is None else f"{ran_at.name}; {silence_of(ran_at)}",
            "may_run": runs_at is not None or (job.state == SEEN_NOWHERE and not self.capp.port.can.looks),
        }

    def _workers(self, job: Job) -> tuple[WorkerNow | None, WorkerNow | None]:
        """Which worker runs it; and if none says so, which silent one ran it."""
        runs_at = worker_of(self.capp, job.id) if job.state in ("running", SEEN_NOWHERE) else None
        asks = runs_at is None and job.state == "running"
        return runs_at, silent_worker_of(self.capp, job) if asks else None


def _shows_sealed(job: Job, attempts: Iterable[JobAttempt]) -> bool:
    """Whether something of it is sealed that would be here, else."""
    note = None if job.progress is None else job.progress.note
    return SHOWN in (job.result, note) or any(line.message == SHOWN for one in attempts for line in one.log)


class RevealJob(JobDetail):
    """`/jobs/<id>/reveal`: show what a sealed job holds, once; the audit has who looked, and why."""

    async def get(self, id_: str) -> None:
        """Lead back: this address only takes forms."""
        self.redirect(self.reverse_url("conventions-job", id_))

    async def post(self, id_: str) -> None:
        """Show it."""
        self.check_id(id_)
        await reveal(self, id_, self.show_job)


class CancelJob(JobDetail):
    """`/jobs/<id>/cancel`: keep it from running, or end it by force."""

    async def get(self, id_: str) -> None:
        """Lead back: this address only takes forms."""
        self.redirect(self.reverse_url("conventions-job", id_))

    async def post(self, id_: str) -> None:
        """Cancel it; with `force`, kill the process that runs it."""
        self.check_id(id_)
        reason, force = self.parameter("reason"), self.parameter("force") == "1"
        if not reason:
            self.set_status(HTTPStatus.UNPROCESSABLE_ENTITY)
            await self.show_job(id_, said=Notice("danger", "Nothing was changed: say why; the audit keeps it."))
            return
        notice = await self.in_thread(self._cancel, id_, reason, force)
        self.lead_to(self.reverse_url("conventions-job", id_), notice)

    def _cancel(self, id_: str, reason: str, force: bool) -> Notice:
        app, actor = self.capp, self.visitor.name
        try:
            with acting_as(actor):
                outcome = cancel_or_end(app, id_, actor, reason, force=force)
        except JournalFull as error:
            return Notice("danger", f"Nothing was changed: {error}.")
        answer = outcome.answer
        if answer is None:
            fault = "Nothing was changed: it is a batch; end its chunks, or cancel it on its own page."
            return Notice("warning", fault)
        if outcome.fault is not None:
            name = type(outcome.fault).__name__
            return Notice("danger", f"It is cancelled; whether its process was ended is not known: {name}.")
        if outcome.forced is not None:
            return _said(outcome.forced, answer)
        if answer == "too late":
            return Notice("warning", CANCELLED[answer])
        somewhere = answer == "queued" and not app.port.keeps_claims
        return Notice("success", CANCELLED["elsewhere" if somewhere else "batch" if outcome.is_batch else answer])


def _said(forced: ForcedEnd, answer: str) -> Notice:
    match forced.how:
        case "ended":
            return Notice("success", f"{forced.worker} has ended it by force.")
        case "in a thread":
            text = f"{forced.worker} runs it in a thread ({forced.pool}), which nobody can end: it is told at its next report of progress."
            return Notice("warning", text)
        case "goes on":
            stops = "it stops, and hears no remote control: the end of its grace ends the job"
            text = f"{forced.worker} has not ended it yet: {stops if forced.stops else 'look again in a moment'}."
            return Notice("warning", text)
        case _ if forced.state in BY_ITSELF:
            return Notice("warning", "It has ended by itself.")
        case _ if forced.state == SEEN_NOWHERE:
            return Notice("warning", "No worker says that it runs it. If it waits, it will not run.")
    return Notice("success", CANCELLED["queued"] if answer == "queued" else "No worker runs it.")
