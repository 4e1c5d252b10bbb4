"""`celery -A <app> keys`: the keys that messages are signed with: make, list and retire them, and hold what a stolen one has signed (R20)."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand

from conventions.app import ConventionsApp
from conventions.broker.signature import key_of
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, existing, one_line_errors, print_json, say
from conventions.cli.confirm import confirm
from conventions.cli.ctrl_c import stop_between_steps
from conventions.cli.shared_options import JSON, NEEDED_REASON, YES
from conventions.core.errors import ConfigurationError
from conventions.core.message_keys import MessageKeys, parse_revoked
from conventions.core.named_keys import NAME, PLAIN, new_key
from conventions.core.time_units import moment_or_age
from conventions.execution.change_waiting import hold_signed
from conventions.execution.purge_queues import PLACES, known_queues
from conventions.execution.waiting_selection import Selection, found
from conventions.now.running_jobs import AT_WORKERS
from conventions.proof.chain_ends import segments_by_key
from conventions.records.audit_entry import AuditEntry
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.uses_of_keys import AUDIT, in_redis, in_sql

COLUMNS, AUDIT_COLUMNS = ("key", "use", "waiting"), ("key", "use", "segments")
OF_PAYLOADS, PAYLOAD_COLUMNS = "CONVENTIONS_PAYLOAD_KEYS", ("key", "use", "count", "in")
PAYLOADS = click.option(
    "--payloads", is_flag=True, help="Of the keys that seal what jobs hold, not of those that sign messages."
)
OF_AUDIT = click.option("--audit", is_flag=True, help="Of the keys that seal the audit.")
SETTING, REVOKED = "CONVENTIONS_MESSAGE_KEYS", "CONVENTIONS_REVOKED_KEYS"
ODD = "?"  # in place of a name that no key can have
ELSEWHERE = "RabbitMQ shows no messages that wait: see `docs/security.md` for how long the messages of a key may wait"


@click.group()
def keys() -> None:
    """Make, list and retire the keys that messages are signed with; hold what a stolen one has signed."""


@keys.command(cls=CeleryCommand)
@click.argument("name")
@click.pass_context
@one_line_errors
def new(context: click.Context, name: str) -> None:
    """Print a new key, as CONVENTIONS_MESSAGE_KEYS, _AUDIT_KEYS, _PAYLOAD_KEYS and _NAME_KEYS have it. Nothing is stored."""
    settings = app_of(context).settings
    if not NAME.fullmatch(name) or name == PLAIN:
        raise click.BadParameter(f"up to 16 letters, digits, - and _; not {PLAIN}", param_hint="NAME")
    settings_of_keys = (settings.message_keys, settings.audit_keys, settings.payload_keys, settings.name_keys)
    there = [one for one in settings_of_keys if one]
    if any(name == part.strip().partition(":")[0] for one in there for part in one.split(",")):
        raise click.BadParameter(f"there is a key {name}; a name is never used again", param_hint="NAME")
    click.echo(new_key(name))
    say(
        "all processes get it as the second key of its setting first, then as the first one: docs/security.md", err=True
    )


@keys.command("list", cls=CeleryCommand)
@PAYLOADS
@OF_AUDIT
@JSON
@click.pass_context
@one_line_errors
def list_keys(context: click.Context, payloads: bool, audit: bool, as_json: bool) -> None:
    """List the keys by name, what each does, and how many messages wait that it has signed. No key is shown.

    With --payloads: what of Redis and SQL each key has sealed. With --audit: how many segments of the audit; a key is needed for as long as they
    are to be verified.
    """
    app = app_of(context)
    if audit:
        emit(_audit_rows(app), AUDIT_COLUMNS, as_json=as_json)
        return
    if payloads:
        emit(_payload_rows(app), PAYLOAD_COLUMNS, as_json=as_json)
        if not app.port.can.looks:
            say(ELSEWHERE, err=True)
        return
    known, waiting = _keys(app), _waiting(app)
    rows = [
        {"key": name, "use": use, "waiting": None if waiting is None else waiting[name]}
        for name, use in _uses(app, known).items()
    ]
    if waiting is not None:
        others = {name: count for name, count in waiting.items() if name not in known}
        rows += [{"key": name or None, "use": None, "waiting": count} for name, count in sorted(others.items())]
    if not as_json:
        rows = [_shown(row) for row in rows]
    emit(rows, COLUMNS, as_json=as_json)
    if waiting is None:
        say(ELSEWHERE, err=True)


@keys.command(cls=CeleryCommand)
@click.argument("name")
@PAYLOADS
@click.pass_context
@one_line_errors
def retire(context: click.Context, name: str, payloads: bool) -> None:
    """Say whether a key may be taken out of CONVENTIONS_MESSAGE_KEYS. Status 1: not yet, with the reason.

    With --payloads: out of CONVENTIONS_PAYLOAD_KEYS.
    """
    app = app_of(context)
    if payloads:
        _retire_of_payloads(context, app, name)
        return
    _check_old(app, name)
    if count := app.journal.signed_with(name):
        say(f"{name} is still needed: {count:,} entries of the journal are not in SQL yet that it has signed", err=True)
        context.exit(1)
    waiting = _waiting(app)
    if waiting is None:
        say(f"{name} may still be needed: {ELSEWHERE}", err=True)
        context.exit(1)
    if count := waiting[name] or (_waiting(app) or waiting)[name]:  # twice, since what moves meanwhile may be missed
        say(
            f"{name} is still needed: {count:,} messages wait or run that it has signed; `messages list --signed-with {name}` lists them",
            err=True,
        )
        context.exit(1)
    say(
        f"nothing waits that {name} has signed: take it out of {SETTING} of all processes, unless one of them still signs with it"
    )


@keys.command(cls=CeleryCommand)
@click.argument("name")
@click.option(
    "--since", required=True, metavar="TIME", help="When it was stolen: 2026-12-24T10:00, or an age such as 2h."
)
@NEEDED_REASON
@YES
@JSON
@actor_option
@click.pass_context
@one_line_errors
def revoke(context: click.Context, *, name: str, since: str, reason: str, yes: bool, as_json: bool, actor: str) -> None:
    """Hold the messages that wait and that a stolen key has signed since a moment: each is a dead letter, KeyRevoked.

    Whoever redrives one has looked at it. Messages that arrive later are held by workers that have the setting which this command prints.
    """
    app = app_of(context)
    _check_old(app, name)
    at = _moment(app, since)
    line = f"{REVOKED}={_revoked_with(app, name, at)}"
    if not app.port.can.looks:
        before = {"signed_with": name, "sent_since": at.isoformat()}
        app.journal.note(AuditEntry(actor, "keys revoke", "all queues", reason, before))
        if as_json:
            print_json({"held": None, "queues": None, "left": None, "setting": line})
        say(f"set {line} for all workers: they hold what they get. {ELSEWHERE}", err=as_json)
        return
    app.loader.import_default_modules()
    confirm(f"Hold all messages that wait and that {name} has signed since {at.isoformat()}?", yes=yes)
    with stop_between_steps() as stops:
        done = hold_signed(app, name, at, actor, reason, stops=stops)
    if as_json:
        print_json(
            {
                "held": done.total,
                "queues": dict(done.done),
                "left": done.left if done.complete else None,
                "setting": line,
            }
        )
    else:
        say(f"{done.total:,} messages are held; `dead-letters list --error KeyRevoked` lists them")
    say(f"set {line} for all workers: they hold what they get from now on", err=as_json)
    if not done.complete:
        say("stopped before its end: the same command does the rest", err=True)
        context.exit(1)


def _audit_rows(app: ConventionsApp) -> list[dict[str, Any]]:
    if app.audit_keys is None:
        raise ConfigurationError(["the audit is not sealed here: set CONVENTIONS_AUDIT_KEYS; `keys new` makes a key"])
    with existing(app.database).session(read_only=True) as session:
        counts = segments_by_key(session)
    uses = {name: "seals" if name == app.audit_keys.signs_with else "verifies" for name in app.audit_keys}
    names = [*uses, *sorted(counts.keys() - uses.keys())]
    return [{"key": name, "use": uses.get(name, "not known here"), "segments": counts.get(name, 0)} for name in names]


def _payload_keys(app: ConventionsApp) -> PayloadKeys:
    if app.payload_keys is None:
        raise ConfigurationError([f"nothing is sealed here: set {OF_PAYLOADS}; `keys new` makes a key"])
    return app.payload_keys


def _payload_rows(app: ConventionsApp) -> list[dict[str, Any]]:
    known, used = _payload_keys(app), _used(app)
    uses = {name: "seals" if name == known.seals_with else "opens" for name in known}
    names = [*uses, *sorted({name for name, _ in used} - uses.keys())]
    return [
        {
            "key": name,
            "use": uses.get(name, "not known here"),
            "count": sum(_of(used, name).values()),
            "in": _places(used, name),
        }
        for name in names
    ]


def _retire_of_payloads(context: click.Context, app: ConventionsApp, name: str) -> None:
    known = _payload_keys(app)
    if name not in known:
        raise click.BadParameter(f"there is no key {name}; there are: {', '.join(known)}", param_hint="NAME")
    if name == known.seals_with:
        raise click.BadParameter(
            f"{name} seals: put a new key before it in {OF_PAYLOADS} of all processes; `keys new` makes one",
            param_hint="NAME",
        )
    used = _needed(app)
    if places := _places(used, name) or _places(_needed(app), name):  # twice, since what moves meanwhile may be missed
        say(f"{name} is still needed: it has sealed what is in: {places}", err=True)
        context.exit(1)
    if not app.port.can.looks:
        say(f"{name} may still be needed: {ELSEWHERE}", err=True)
        context.exit(1)
    say(
        f"nothing is left that {name} has sealed: take it out of {OF_PAYLOADS} of all processes, unless one of them still seals with it"
    )


def _used(app: ConventionsApp) -> Counter[tuple[str, str]]:
    """How often each key is named, by its name and where. Raises: RedisError, SQLAlchemyError."""
    used: Counter[tuple[str, str]] = Counter()
    for store in app.servers:
        used += in_redis(store)
    return used + in_sql(app.database)


def _needed(app: ConventionsApp) -> Counter[tuple[str, str]]:
    """The same, without the audit, which is kept for years: what letters held before they were edited can be read no more without the key."""
    return Counter({one: count for one, count in _used(app).items() if one[1] != AUDIT})


def _of(used: Counter[tuple[str, str]], name: str) -> dict[str, int]:
    return {place: count for (key, place), count in sorted(used.items()) if key == name}


def _places(used: Counter[tuple[str, str]], name: str) -> str:
    return ", ".join(f"{place} ({count:,})" for place, count in _of(used, name).items())


def _keys(app: ConventionsApp) -> MessageKeys:
    if app.message_keys is None:
        raise ConfigurationError([f"messages are not signed here: set {SETTING}; `keys new` makes a key"])
    return app.message_keys


def _check_old(app: ConventionsApp, name: str) -> None:
    """Refuse a key that this process does not have, or signs with. Raises: BadParameter."""
    known = _keys(app)
    if name not in known:
        raise click.BadParameter(f"there is no key {name}; there are: {', '.join(known)}", param_hint="NAME")
    if name == known.signs_with:
        raise click.BadParameter(
            f"{name} signs new messages: put a new key before it in {SETTING} of all processes; `keys new` makes one",
            param_hint="NAME",
        )


def _uses(app: ConventionsApp, known: MessageKeys) -> Mapping[str, str]:
    revoked = parse_revoked(app.settings.revoked_keys)
    said = {name: f"verifies; revoked since {at.isoformat()}" for name, at in revoked.items()}
    return {name: "signs" if name == known.signs_with else said.get(name, "verifies") for name in known}


def _waiting(app: ConventionsApp) -> Counter[str] | None:
    """How many messages wait or run that each key has signed; `None`: the broker shows none. Raises: RedisError."""
    if not app.port.can.looks:
        return None
    selection = Selection(tuple(known_queues(app)))
    names = Counter(key_of(one.headers) for one in found(app, selection, places=(*PLACES, *AT_WORKERS)))
    counted: Counter[str] = Counter()
    for name, count in names.items():
        counted[name if not name or NAME.fullmatch(name) else ODD] += count
    return counted


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    if row["use"] is not None:
        return dict(row)
    return {**row, "key": row["key"] or "none", "use": "not signed" if row["key"] is None else "not known here"}


def _moment(app: ConventionsApp, text: str) -> datetime:
    try:
        return moment_or_age(text, datetime.now(UTC), ZoneInfo(app.settings.timezone)).replace(microsecond=0)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def _revoked_with(app: ConventionsApp, name: str, at: datetime) -> str:
    revoked = parse_revoked(app.settings.revoked_keys)
    revoked[name] = min(at, revoked.get(name, at))  # never less than before
    return ",".join(f"{one}@{moment.isoformat()}" for one, moment in revoked.items())
