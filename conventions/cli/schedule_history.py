"""`celery -A <app> schedule history`: what became of a schedule's slots."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from conventions.app import ConventionsApp
from conventions.cli.base import one_line_errors, output_options, say
from conventions.cli.dead_letters import say_what_waits
from conventions.cli.schedule_options import NAME, Listed, emit_local, local, on_the_wall, seconds
from conventions.schedules.catch_up import MOST
from conventions.schedules.run_history import RunOutcome, outcomes_of
from conventions.schedules.schedule_state import Run
from conventions.schedules.schedule_store import Schedules

HISTORY = ("planned_at", "sent_at", "late", "outcome", "runtime", "note", "id", "actor")


@click.command(cls=CeleryCommand)
@NAME
@output_options
@click.pass_context
@one_line_errors
def history(context: click.Context, name: str, as_json: bool, limit: int) -> None:
    """List what became of a schedule's slots, the newest first; `late` and `runtime` are in seconds."""
    listed = Listed(context)
    runs = Schedules(listed.app.store).history(name, limit + 1)
    if not runs:
        listed.find(name)  # the history of a removed schedule is kept for a month
    outcomes = read_outcomes(context, listed.app, runs)
    rows = [_run_row(run, outcome, listed.zone) for run, outcome in zip(runs, outcomes, strict=True)]
    if not as_json:
        rows = [row | {"note": _note(run, row["note"], listed.zone)} for run, row in zip(runs, rows, strict=True)]
    emit_local(rows, HISTORY, listed.zone, as_json=as_json, limit=limit)


def read_outcomes(context: click.Context, app: ConventionsApp, runs: Sequence[Run]) -> list[RunOutcome]:
    """The outcomes of runs. If SQL or the broker does not answer, some are unknown, and a line says so."""
    try:
        with app.database.session(read_only=True) as session:
            found = _outcomes_with(app, runs, session)
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        say(f"the database does not answer, so outcomes of what has ended are unknown: {reason}", err=True)
        return _outcomes_with(app, runs, None)
    if any(outcome.word == "unknown" for outcome in found):
        say_what_waits(context)
    return found


def _outcomes_with(app: ConventionsApp, runs: Sequence[Run], session: Session | None) -> list[RunOutcome]:
    try:
        return outcomes_of(app, runs, session)
    except RedisError as error:  # the broker's server, since the store has answered
        say(f"the broker does not answer, so which runs have not ended is unknown: {error}", err=True)
        return outcomes_of(app, runs, session, broker=False)


def _run_row(run: Run, outcome: RunOutcome, zone: ZoneInfo) -> dict[str, Any]:
    """The fields of one line of the history."""
    return {
        "planned_at": local(run.planned_at, zone),
        "sent_at": local(run.sent_at, zone) if run.what == "sent" else None,
        "late": seconds(run.lateness),
        "what": run.what,
        "outcome": outcome.word,
        "runtime": seconds(outcome.runtime),
        "count": run.count,
        "note": run.note or outcome.error,
        "id": run.id or None,
        "actor": run.actor,
    }


def _note(run: Run, why: str | None, zone: ZoneInfo) -> str:
    """Why, and which slots a line stands for if there are several."""
    note = f"{why} had not ended" if run.what == "skipped" else why or ""
    first, last = local(run.first_at, zone), local(run.planned_at, zone)
    if first is None or last is None:
        return note
    several = f"{'at least ' if run.count >= MOST else ''}{run.count:,} slots from {on_the_wall(first)} to {on_the_wall(last)}"
    return f"{several}: {note}" if note else several
