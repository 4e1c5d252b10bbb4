"""`audit verify`, `audit accept` and `audit erase`: whether the audit is whole, what is missing by right, and a person's name out of it (R22)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

import click
from celery.bin.base import CeleryCommand
from redis.exceptions import RedisError

from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, existing, one_line_errors, print_json, say, written
from conventions.cli.shared_options import JSON, NEEDED_REASON, YES
from conventions.core.audit_keys import AuditKeys
from conventions.core.error_text import first_line
from conventions.core.errors import ConfigurationError
from conventions.core.printable_text import printable
from conventions.core.settings import ENV_PREFIX
from conventions.proof import signed_heads
from conventions.proof.chain_report import ChainReport
from conventions.proof.lost_heads import ACCEPT
from conventions.proof.signed_heads import Head
from conventions.proof.verify import verify as walk
from conventions.proof.waiting_rows import LATE
from conventions.recording.audit_sealer import kept_heads
from conventions.records.accept_lost_heads import accept as accept_heads
from conventions.records.accept_lost_heads import missed_heads
from conventions.records.erase_actor import erase as erase_actor
from conventions.records.erase_actor import rows_of
from conventions.storage.database import utc_now

BROKEN = 1  # the exit status


def add_to(group: click.Group) -> None:
    """Add the commands."""
    group.add_command(verify)
    group.add_command(accept)
    group.add_command(erase)


HEAD = click.option(
    "--head",
    "told",
    multiple=True,
    metavar="HEAD",
    help="A head of before: the audit must still have it. Several times.",
)
HEADS = click.option(
    "--heads",
    "log",
    type=click.File(errors="replace"),
    help="A file with heads, such as a worker's log; - reads standard input.",
)


@click.command(cls=CeleryCommand)
@HEAD
@HEADS
@JSON
@click.pass_context
@one_line_errors
def verify(context: click.Context, *, told: tuple[str, ...], log: IO[str] | None, as_json: bool) -> None:
    """Look whether executions and actions are as they were sealed; names the first row that was edited, removed, inserted or moved.

    Status 1: something is wrong. Heads of before show what was cut off at the end, and what somebody with the key has written anew; those that Redis keeps are compared, too.
    """
    app = app_of(context)
    keys, database = _keys(app), existing(app.database)
    reports = walk(database, keys, _heads_of_before(app, told, log), app.store.entry_signatures)
    if as_json:
        print_json([_values(report) for report in reports])
    else:
        for report in reports:
            _print(report)
        say(_of_heads(reports))
    if any(report.fault is not None or _is_late(report) for report in reports):
        context.exit(BROKEN)


@click.command(cls=CeleryCommand)
@HEAD
@HEADS
@NEEDED_REASON
@YES
@JSON
@actor_option
@click.pass_context
@one_line_errors
def accept(
    context: click.Context,
    *,
    told: tuple[str, ...],
    log: IO[str] | None,
    reason: str,
    yes: bool,
    as_json: bool,
    actor: str,
) -> None:
    """Say of heads of before that the audit is right not to have them: the database was restored from a copy of before.

    An action names each of them, who said so, and why. `audit verify` takes them for no fault from then on. Refused while something else is wrong.
    """
    app = app_of(context)
    keys, database = _keys(app), existing(app.database)
    missed = missed_heads(database, keys, _heads_of_before(app, told, log), app.store.entry_signatures)
    if missed and not yes:
        for report in missed:
            say(f"{report.chain}: {_missed(report)}", err=True)
        click.confirm("Accept that these rows are lost?", abort=True, err=True)
    number = accept_heads(database, keys, missed, by=actor, reason=reason)
    if as_json:
        print_json({"accepted": number})
    elif number:
        say(f"accepted: {_heads(number)} of before; see `audit list --action '{ACCEPT}'`")
    else:
        say("nothing to accept: the audit has all of these heads")


@click.command(cls=CeleryCommand)
@click.argument("name", metavar="ACTOR")
@NEEDED_REASON
@YES
@JSON
@actor_option
@click.pass_context
@one_line_errors
def erase(context: click.Context, *, name: str, reason: str, yes: bool, as_json: bool, actor: str) -> None:
    """Replace the name of an actor by a pseudonym in all that is kept in SQL: executions, actions, dead letters, redrives, notes, log lines.

    The audit stays whole. It cannot be undone: nobody can tell from the pseudonym who it was.
    """
    app = app_of(context)
    keys, database = _keys(app), existing(app.database)
    if not yes:
        executions, actions = rows_of(database, name)
        say(f"{name} is the actor of {executions:,} executions and {actions:,} actions", err=True)
        click.confirm(f"Erase {name} for ever?", abort=True, err=True)
    found = erase_actor(database, keys, name, by=actor, reason=reason, believed=app.store.entry_signatures)
    if as_json:
        print_json(asdict(found))
        return
    say(
        f"{name} is {found.pseudonym} now: in {found.executions} executions, {found.actions} actions, {found.letters} dead letters, "
        f"{found.logs} logs and {found.others} other rows"
    )
    if found.left:
        say(
            f"{found.left} open dead letters of others name {name}, and stay: redrive or discard them, and erase again",
            err=True,
        )


def _keys(app: ConventionsApp) -> AuditKeys:
    if app.audit_keys is None:
        raise ConfigurationError(
            [f"{ENV_PREFIX}AUDIT_KEYS is not set here; run this where a worker runs, which has them"]
        )
    return app.audit_keys


def _heads_of_before(app: ConventionsApp, told: Sequence[str], log: IO[str] | None) -> list[Head]:
    """Those that somebody gives, and those that Redis keeps."""
    found = [_head(text) for text in told]
    if log is not None:
        of_log = signed_heads.find(log.read())
        if not of_log:
            raise click.BadParameter(f"it has no head, which begins with `{signed_heads.PREFIX}`", param_hint="--heads")
        found += of_log
    try:
        return found + kept_heads(app.store)
    except RedisError as error:
        say(f"without the heads that Redis keeps: {first_line(error)}", err=True)
        return found


def _missed(report: ChainReport) -> str:
    longest = max(head.last for head in report.missed)
    return f"it does not have {_heads(len(report.missed))} of before, the last one of row {longest}; it ends with row {report.last}"


def _head(text: str) -> Head:
    head = signed_heads.read(text.strip().removeprefix(signed_heads.PREFIX))
    if head is None:
        raise click.BadParameter("write a head as the log has it, behind `audit head`", param_hint="--head")
    return head


def _is_late(report: ChainReport) -> bool:
    """Whether a row waits for longer than it should. Those that count wait for a minute more."""
    return report.waits_since is not None and utc_now() - report.waits_since > LATE


def _print(report: ChainReport) -> None:
    if report.fault is not None:
        say(f"{report.chain}: BROKEN: {printable(report.fault.text)}")  # a row may say what looks like a line of this
        return
    if report.head is None:
        say(f"{report.chain}: nothing is sealed yet")
    else:
        say(
            f"{report.chain}: whole: {_rows(report.rows)}, the last one has number {report.last}; {signed_heads.PREFIX}{report.head}"
        )
    for text in _notes(report):
        say(f"{report.chain}: {text}")


def _notes(report: ChainReport) -> list[str]:
    found = []
    if report.purged:
        found.append(f"the rows of segments 1 to {report.purged} were deleted, as the audit says; the segments fit")
    if report.accepted:
        found.append(
            f"{_heads(report.accepted)} of before are not in it, as was accepted: see `audit list --action '{ACCEPT}'`"
        )
    if report.erased:
        found.append(f"in {_rows(report.erased)} the name of a person was erased")
    if report.unproven:
        found.append(f"{_rows(report.unproven)} of before the audit was sealed prove nothing")
    if report.waits_since is not None:
        late = ": LATE: does a worker with CONVENTIONS_AUDIT_KEYS run?" if _is_late(report) else ""
        found.append(f"{_rows(report.waiting)} wait to be sealed, the oldest of {written(report.waits_since)}{late}")
    return found


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def _heads(number: int) -> str:
    return "1 head" if number == 1 else f"{number:,} heads"


def _of_heads(reports: Sequence[ChainReport]) -> str:
    compared, others = sum(report.heads for report in reports), sum(report.others for report in reports)
    gone = sum(report.uncompared for report in reports)
    say_gone = f", but for {gone} whose rows were deleted since" if gone else ""
    left_out = f"; {others} say nothing, since none of the keys has signed them" if others else ""
    return f"heads of before: {compared - gone} compared{say_gone}{left_out}"


def _values(report: ChainReport) -> dict[str, Any]:
    values = asdict(report) | {"head": report.head and str(report.head), "whole": report.fault is None}
    values["missed"] = [str(head) for head in report.missed]
    values["late"] = _is_late(report)
    return values
