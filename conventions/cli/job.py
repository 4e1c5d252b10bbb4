"""`celery -A <app> job ID`: what became of a job."""

from contextlib import suppress
from dataclasses import asdict, fields
from datetime import datetime
from textwrap import indent
from typing import Any

import click
from celery.bin.base import CeleryCommand
from sqlalchemy.exc import SQLAlchemyError

from conventions.app import ConventionsApp
from conventions.attempt_log.head_and_tail import LogLine
from conventions.broker.consumed_queues import ask_workers
from conventions.cli.base import app_of, json_of, one_line_errors, print_json, say, written
from conventions.cli.reveal_options import RevealedTo, reveal_options
from conventions.cli.shared_options import JSON
from conventions.core.error_text import first_line
from conventions.core.printable_text import printable
from conventions.core.sealed_mark import SHOWN
from conventions.jobs.facts import Facts
from conventions.jobs.history import RUNNING, JobAttempt
from conventions.jobs.job import Job
from conventions.jobs.job_actions import JobAction
from conventions.jobs.message_parts import MessageParts, parts_of
from conventions.jobs.result_backend import described
from conventions.jobs.reveal import revealing
from conventions.metrics.worker_reports import WorkerNow
from conventions.now.end_running import silence_of, silent_worker_of, worker_of
from conventions.now.whole_id import LENGTH, SHORT, whole_ids

INDENT = " " * 4
SHORT_ID = 8  # characters of the id of a redrive; `--redrive` takes them
FIELDS = tuple(one.name for one in fields(Facts))


@click.command(cls=CeleryCommand)
@click.argument("id")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait so long for its end; status 0 only if it went well.",
)
@click.option("--logs", is_flag=True, help="Also what each attempt has logged, and what a running one logs.")
@reveal_options
@JSON
@click.pass_context
@one_line_errors
def job(  # the options of the command
    context: click.Context,
    *,
    id: str,  # noqa: A002  # the word of the glossary
    wait: float | None,
    logs: bool,
    as_json: bool,
    revealed_to: RevealedTo | None,
) -> None:
    """Show what became of the job ID, why it waits, and its attempts. Status 1 if nothing is known of it.

    The beginning of an id will do, as lists and pages show it, where no other one begins so.
    """
    app = app_of(context)
    try:
        found = Job.of(id, app)
        if found.state == "unknown" and (whole := _whole(app, id)) is not None:
            id, found = whole, Job.of(whole, app)  # noqa: A001  # the same
        if wait is not None:
            with suppress(TimeoutError):
                found = found.wait(wait)
            if not found.ended:
                found = Job.of(id, app)
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from None
    if revealed_to is None:
        _tell(app, found, logs=logs, as_json=as_json)
    else:
        with revealing(app, id, *revealed_to):
            found = Job.of(id, app)
            _tell(app, found, logs=logs, as_json=as_json)
    context.exit(int(found.state == "unknown" if wait is None else not found.went_well))


def _tell(app: ConventionsApp, found: Job, *, logs: bool, as_json: bool) -> None:
    shown = {name: getattr(found, name) for name in FIELDS}
    worker = worker_of(app, found.id) if found.state in ("running", "unknown") else None
    if found.state == "running" and worker is None and (worker := silent_worker_of(app, found)) is not None:
        shown["waits_because"] = silence_of(worker)
    if worker is not None:
        shown["worker"] = worker.name
    shown["progress"] = None if found.progress is None else described(found.progress)
    if found.state == "queued":
        shown["waits_because"] = _with_consumers(app, found)
    _show(app, found, shown, worker, logs=logs, as_json=as_json)


def _whole(app: ConventionsApp, beginning: str) -> str | None:
    """The id of which this is the beginning, where there is one; what it may be is said."""
    found = whole_ids(app, beginning)
    if len(found) > 1:
        say(f"several ids begin with {beginning}: {', '.join(found)}", err=True)
    elif not found and len(beginning) < LENGTH:
        say(f"{beginning}: {SHORT}", err=True)
    return found[0] if len(found) == 1 else None


def _show(
    app: ConventionsApp, found: Job, shown: dict[str, Any], worker: WorkerNow | None, *, logs: bool, as_json: bool
) -> None:
    attempts, sql = _history(found, logs=logs)
    parts, actions = parts_of(app, found.id, sql=sql), found.actions() if sql else ()
    if as_json:
        made_of = {"message": None if parts is None else asdict(parts), "actions": [asdict(one) for one in actions]}
        print_json(shown | {"history": [_as_json(one, logs=logs) for one in attempts]} | made_of)
    else:
        for name, value in shown.items():
            if (text := _text(name, value, found)) is not None:
                say(f"{name.replace('_', ' '):<14} {text}")
        if worker is not None and worker.report.release and not any(one.outcome == RUNNING for one in attempts):
            say(f"{'release':<14} {printable(worker.report.release)}")  # else its attempt has it
        if parts is not None:
            _say_parts(parts)
        for one in attempts:
            _say_attempt(one)
        for action in actions:
            _say_action(action)
        if more := _more(found):
            say(f"more{' ' * 10} celery -A {app.main} {more}")


def _history(found: Job, *, logs: bool) -> tuple[tuple[JobAttempt, ...], bool]:
    """Its attempts, and whether SQL answers; if not, those that it need not be asked for: the state is known without it."""
    try:
        return found.history(logs=logs), True
    except SQLAlchemyError as error:
        say(f"what SQL has of it is not shown: {first_line(error)}", err=True)
        return found.history(logs=logs, sql=False), False


def _say_action(one: JobAction) -> None:
    redrive = f" {one.redrive[:SHORT_ID]}" if one.redrive else ""
    why = f": {one.reason}" if one.reason else ""
    say(f"{'done to it':<14} {printable(f'{one.action}{redrive} by {one.actor}')}, {written(one.at)}{printable(why)}")


def _say_parts(parts: MessageParts) -> None:
    if parts.sealed and parts.arguments is None:
        say(f"{'arguments':<14} {SHOWN}: --reveal opens them, where the key is")
    if parts.arguments is not None:
        say(f"{'arguments':<14} {printable(json_of(parts.arguments))}")
    for name, id_ in (("sent by the job", parts.parent), ("first of all", parts.root), ("chunk of batch", parts.batch)):
        if id_ and (name != "first of all" or id_ != parts.parent):
            say(f"{name:<14} {printable(id_)}")
    for step in parts.following:
        say(f"{'then':<14} {printable(' '.join(step).strip())}")


def _as_json(attempt: JobAttempt, *, logs: bool) -> dict[str, Any]:
    values = {one.name: getattr(attempt, one.name) for one in fields(JobAttempt)}
    lines = values.pop("log")
    return values | {"log": [_line_as_json(line) for line in lines]} if logs else values


def _line_as_json(line: LogLine) -> dict[str, Any]:
    """Those fields that it has: one that stands for others has its message and their number."""
    found = {one.name: getattr(line, one.name) for one in fields(LogLine)}
    always = ("left_out", "message") if line.left_out else ("time", "level", "logger", "message")
    return {name: value for name, value in found.items() if name in always or value}


def _say_attempt(attempt: JobAttempt) -> None:
    """One attempt in a line, its error in the next one, then what it has logged."""
    number = f"attempt {attempt.attempt}" if attempt.attempt else "from outside"
    name = f"redrive {attempt.redrive}, {number}" if attempt.redrive else number
    parts = [attempt.outcome or "no outcome recorded"]
    if attempt.started_at:
        parts.append(f"began {written(attempt.started_at)}")
    if attempt.wait is not None:
        parts.append(f"waited {attempt.wait:.3f} s")
    if attempt.runtime is not None:
        parts.append(f"ran {attempt.runtime:.3f} s")
    parts += [f"worker {attempt.worker}"] if attempt.worker else []
    parts += [f"release {attempt.release}"] if attempt.release else []
    say(f"{name:<14} {', '.join(map(printable, parts))}")
    if attempt.error:
        cause = f" (cause {attempt.fingerprint})" if attempt.fingerprint else ""
        say(f"{INDENT}{printable(f'{attempt.error}: {attempt.error_message}')}{cause}")
    for line in attempt.log:
        say(f"{INDENT}{_log_text(line)}")


def _log_text(line: LogLine) -> str:
    """A line of the log; a traceback below it."""
    said = printable(" ".join(part for part in (line.time, line.level, line.logger, line.message) if part))
    return said + indent(f"\n{line.exception}", 2 * INDENT) if line.exception else said


def _with_consumers(app: ConventionsApp, found: Job) -> str:
    """Why it waits, with whether anybody reads its queue, which only the workers themselves can tell."""
    consumers = ask_workers(app.store, app.control)
    if found.queue in consumers.known or consumers.silent:
        return found.waits_because
    return f"{found.waits_because}; no worker consumes the queue {found.queue}"


def _text(name: str, value: Any, found: Job) -> str | None:
    """A field for people; `None`: there is nothing to show."""
    if name in ("has_result", "is_batch", "traceback") or (name == "redrives" and not value):
        return None
    if name == "result":
        return repr(value) if found.has_result else None
    if name == "progress" and value is not None:
        return _progress(value)
    if isinstance(value, datetime):
        return written(value)
    text = f"{value:.3f} s" if isinstance(value, float) else str(value)
    return None if value in (None, "") else text


def _progress(value: dict[str, Any]) -> str:
    total = "" if value["total"] is None else f" of {value['total']:,}, {value['percent']} %"
    failed = f", {value['failed']:,} failed" if value["failed"] else ""
    note = f", {value['note']}" if value["note"] else ""
    return f"{value['done']:,}{total}{failed}{note}" + (", stalled" if value["stalled"] else "")


def _more(found: Job) -> str | None:
    """The command that shows more of it."""
    if found.is_batch:
        return f"batch show {found.id}"
    return f"dead-letters show {found.id}" if found.state in ("dead", "discarded") else None
