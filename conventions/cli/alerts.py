"""`celery -A <app> alerts`: what is wrong and who was told; send a test, and tell nobody for a while."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand

from conventions.alerts.alert_store import AlertStore, Silence
from conventions.alerts.episode import Episode, Transition, urgency
from conventions.alerts.finding import Finding
from conventions.alerts.message_body import body_of
from conventions.alerts.receivers import receivers
from conventions.alerts.rules import RULE_NAMES
from conventions.app import ConventionsApp
from conventions.cli.actor_option import actor_option
from conventions.cli.base import app_of, emit, one_line_errors, output_options, say, written
from conventions.cli.schedule_options import end_of_pause
from conventions.cli.shared_options import NEEDED_REASON, REASON
from conventions.core.error_text import first_line
from conventions.core.errors import ConfigurationError
from conventions.now.alert_subjects import Subject, subject_of

COLUMNS = (
    "state",
    "severity",
    "rule",
    "subject",
    "says",
    "since",
    "began",
    "fired",
    "told",
    "away_since",
    "silent_until",
)
RULE = click.argument("rule", type=click.Choice(RULE_NAMES))
SUBJECT = click.option(
    "--subject",
    default="",
    help="Only of this queue, task, worker, schedule or server, as the alert names it; default: all.",
)
NO_RECEIVER = "there is no receiver: set CONVENTIONS_ALERT_WEBHOOK or CONVENTIONS_ALERT_URLS"
SILENCE_COLUMNS = ("silenced", "until", "by", "reason")


@click.group()
def alerts() -> None:
    """What is wrong and who was told; send a test, and tell nobody for a while."""


@alerts.command("list", cls=CeleryCommand)
@click.option("--over", is_flag=True, help="Also those that are over, the latest first; 200 are kept.")
@output_options
@click.pass_context
@one_line_errors
def list_alerts(context: click.Context, *, over: bool, as_json: bool, limit: int) -> None:
    """List alerts: those that fire, those that will fire if they hold, and with --over those that are over; and the silences."""
    app = app_of(context)
    store, zone = AlertStore(app.store), ZoneInfo(app.settings.timezone)
    silences, untold = store.silences(datetime.now(UTC)), store.untold()
    found = sorted(store.episodes().values(), key=urgency)
    rows = [_row(one, one.state, silences, untold, zone) for one in found]
    if over:
        rows += [_row(one, "over", (), untold, zone) for one in store.over(limit)]
    if not as_json:
        _say_receivers(app)
    if store.leader() is None:
        say("nobody judges now: start `celery beat`, or `celery metrics --port`", err=True)
    for one in store.refusals():
        since = written(datetime.fromtimestamp(one.since, zone))
        say(f"{one.receiver} has taken nothing since {since}, tried {one.times:,} times: {one.why}", err=True)
    silent = [_silence_row(one, zone) for one in silences]
    if not as_json:
        rows = [row | {"told": _told(row)} for row in rows]
    emit([*rows[:limit], *silent] if as_json else rows[:limit], COLUMNS, as_json=as_json)
    if silent and not as_json:
        say()
        emit(silent, SILENCE_COLUMNS, as_json=False)


def _say_receivers(app: ConventionsApp) -> None:
    """Say who is told, by the settings here: those of who judges may be others."""
    try:
        names = sorted(receivers(app.settings))
    except ConfigurationError as error:  # what is missing here may be there where alerts are judged
        say(f"here nobody could be told: {first_line(error)}", err=True)
        return
    if not names:
        say(NO_RECEIVER, err=True)
        return
    say(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} told", err=True)


def _told(row: Mapping[str, Any]) -> str:
    """Whether it was told, for people: and who has not taken it yet."""
    if row["not_told_yet"]:
        return f"not yet: {', '.join(row['not_told_yet'])}"
    return "yes" if row["told"] else "under another name" if row["known"] else "no"


@alerts.command(cls=CeleryCommand)
@click.pass_context
@one_line_errors
def test(context: click.Context) -> None:
    """Send a test to each receiver of the settings. Status 1 when one of them does not take it."""
    app = app_of(context)
    known = receivers(app.settings)
    if not known:
        raise ConfigurationError([NO_RECEIVER])
    finding = Finding("test", "", "warning", "this is a test of the alerts", "nothing", "/")
    body = body_of(app.main, Transition("firing", Episode(f"test {time.time():.3f}", finding, time.time()))) | {
        "state": "test"
    }
    failed = 0
    for name, receiver in known.items():
        try:
            receiver(body)
        except Exception as error:  # noqa: BLE001  # whatever it raises, the others get theirs
            failed += 1
            say(f"{name}: not delivered: {error}")
        else:
            waited = AlertStore(app.store).hurry(name)
            say(f"{name}: delivered{f'; {waited} that waited for it are sent now' if waited else ''}")
    context.exit(1 if failed else 0)


@alerts.command(cls=CeleryCommand)
@RULE
@SUBJECT
@click.option("--until", required=True, metavar="WHEN", help="2h, 7d, 2026-12-01, 2026-12-01T09:00.")
@NEEDED_REASON
@actor_option
@click.pass_context
@one_line_errors
def silence(context: click.Context, *, rule: str, subject: str, until: str, reason: str, actor: str) -> None:
    """Tell nobody of these alerts until then. They are still judged, listed, and shown on the page."""
    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    app = app_of(context)
    end = end_of_pause(until, datetime.now(UTC), ZoneInfo(app.settings.timezone))
    meant = _meant(app, rule, subject)
    one = Silence(Silence.key_of(rule, meant.name), end, reason.strip(), actor)
    AlertStore(app.store).silence(one)
    if meant.doubt:
        say(f"this silences nothing now: {meant.doubt}", err=True)
    say(f"nobody is told of {one.key!r} until {written(end)}")


@alerts.command(cls=CeleryCommand)
@RULE
@SUBJECT
@REASON
@actor_option
@click.pass_context
@one_line_errors
def unsilence(context: click.Context, *, rule: str, subject: str, reason: str | None, actor: str) -> None:
    """Tell of these alerts again. Status 1 when they were not silent."""
    app, key = app_of(context), Silence.key_of(rule, subject)
    store = AlertStore(app.store)
    if all(one.key != key for one in store.silences(datetime.now(UTC))):
        key = Silence.key_of(rule, _meant(app, rule, subject).name)
    ended = store.end_silence(key, actor, reason)
    say(f"{key!r} is told again" if ended else f"{key!r} was not silent")
    context.exit(0 if ended else 1)


def _meant(app: ConventionsApp, rule: str, subject: str) -> Subject:
    try:
        return subject_of(app, rule, subject)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--subject") from None


def _silence_row(one: Silence, zone: ZoneInfo) -> dict[str, Any]:
    rule, subject = one.parts(RULE_NAMES)
    return {
        "state": "silence",
        "rule": rule,
        "subject": subject,
        "silenced": one.key,
        "until": one.until.astimezone(zone),
        "by": one.actor,
        "reason": one.reason,
    }


def _row(
    episode: Episode, state: str, silences: Iterable[Silence], untold: Mapping[str, Sequence[str]], zone: ZoneInfo
) -> dict[str, Any]:
    finding = episode.finding
    covering = [one.until for one in silences if one.covers(finding)]
    return {
        "id": episode.id,
        "state": state,
        "severity": finding.severity,
        "rule": finding.rule,
        "subject": finding.subject,
        "says": finding.says,
        "do": finding.do,
        "page": finding.page,
        "value": finding.value,
        "threshold": finding.threshold,
        "since": datetime.fromtimestamp(episode.since, zone),
        "began": datetime.fromtimestamp(episode.began, zone),
        "fired": None if episode.fired is None else datetime.fromtimestamp(episode.fired, zone),
        "told": episode.told,
        "known": episode.is_known(time.time()),
        "not_told_yet": untold.get(episode.id, []),
        "away_since": None if episode.away_since is None else datetime.fromtimestamp(episode.away_since, zone),
        "silent_until": max(covering).astimezone(zone) if covering else None,
    }
