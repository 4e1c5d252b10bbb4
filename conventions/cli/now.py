"""`celery -A <app> now`: one overview: what is wrong, queues, failures, running jobs, workers, schedules, the last actions."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click
from celery.bin.base import CeleryCommand
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from conventions.app import ConventionsApp
from conventions.cli.base import WIDE, app_of, one_line_errors, print_json
from conventions.cli.fitted_table import is_id
from conventions.console.display import done_text, rate_text, short_duration
from conventions.core.durations import duration
from conventions.core.printable_text import printable
from conventions.metrics.state_now import QueueNow
from conventions.now.overview import Overview, overview_of
from conventions.now.overview_json import overview_json
from conventions.now.queue_flow import Flow

EVERY = 2.0  # seconds
SHOWN, MOST_FINDINGS = 8, 10  # rows of a table, and things that are wrong; --json has all
STYLES = {"critical": "bold red", "warning": "yellow"}


@click.command(cls=CeleryCommand)
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON alone, with all rows.")
@click.pass_context
@one_line_errors
def now(context: click.Context, watch: bool, as_json: bool) -> None:
    """Show how things stand: what is wrong, queues, failures, running jobs, workers, schedules, the last actions of people.

    Status 1 when something is wrong.
    """
    if watch and as_json:
        raise click.UsageError("--watch draws a terminal; for scripts, call it with --json as often as you need")
    app = app_of(context)
    app.loader.import_default_modules()
    overview = overview_of(app)
    if as_json:
        print_json(overview_json(overview, ZoneInfo(app.settings.timezone)))
    elif watch:
        _watch(app, overview)
    else:
        console = Console()
        (console if console.is_terminal else Console(width=WIDE)).print(_drawn(app, overview))
    context.exit(0 if overview.is_well else 1)


def _watch(app: ConventionsApp, overview: Overview) -> None:
    with Live(_drawn(app, overview), auto_refresh=False, screen=True) as live:
        try:
            while True:
                time.sleep(EVERY)
                live.update(_drawn(app, overview_of(app)), refresh=True)
        except KeyboardInterrupt:
            return


def _drawn(app: ConventionsApp, overview: Overview) -> Group:
    zone = ZoneInfo(app.settings.timezone)
    return Group(*_parts(overview, zone))


def _parts(overview: Overview, zone: ZoneInfo) -> Iterator[RenderableType]:
    at = overview.levels.at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %Z")
    letters = overview.levels.letters
    opened = "" if letters is None else f"; {sum(letters.values()):,} dead letters are open"
    yield Text(f"{at}  {overview.verdict}{opened}", style="bold")
    for one in overview.findings[:MOST_FINDINGS]:
        since = f" since {_clock(one.since, zone)}" if one.since else ""
        detail = f": {one.detail}" if one.detail else ""
        yield Text(printable(f"  {one.severity}: {one.says}{since}{detail}"), style=STYLES[one.severity])
        yield Text(printable(f"    {one.do}"), style="dim")
    if len(overview.findings) > MOST_FINDINGS:
        yield Text(f"  and {len(overview.findings) - MOST_FINDINGS:,} more: --json has all", style="dim")
    for part, why in overview.absent.items():
        yield Text(printable(f"  unknown: {part}: {why}"), style="dim")
    if overview.judge == "":
        yield Text("  nobody judges alerts: start `celery beat`, or `celery metrics --port`", style="dim")
    for refusal in overview.refusals:
        yield Text(
            printable(
                f"  alerts do not arrive: {refusal.receiver} has taken nothing since {_clock(refusal.since, zone)}, "
                f"tried {refusal.times:,} times: {refusal.why}"
            ),
            style="bold red",
        )
    yield from _tables(overview, zone)


def _tables(overview: Overview, zone: ZoneInfo) -> Iterator[RenderableType]:
    paused = [
        (target.kind, target.name, _number(overview.waits_for(target)), _clock(one.since.timestamp(), zone), "" if one.until is None else _clock(one.until.timestamp(), zone), one.actor, one.reason)
        for target, one in overview.pauses
    ]  # fmt: skip
    yield from _table("paused", ("what", "which", "waiting", "since", "until", "by", "why"), paused)
    queues = [_queue(one, overview.flows.get(one.name)) for one in overview.queues]
    yield from _table(
        "queues",
        ("queue", "ready", "not due", "retrying", "at workers", "oldest", "in", "out", "empty in", "workers"),
        queues,
    )
    causes = [
        (one.error, one.task, f"{one.retrying:,}", f"{one.retried:,}", f"{one.dead:,}", _number(overview.sent_again(one) if one.dead else None), _clock(one.since, zone), _most(one.workers), _most(one.releases), one.message)
        for one in overview.causes
    ]  # fmt: skip
    yield from _table(
        "failures (dead: deaths since then; `dead-letters groups` counts the letters that are dead now)",
        (
            "error",
            "task",
            "retrying",
            "retried",
            "dead",
            "sent again",
            "since",
            "failed at",
            "failed by release",
            "message",
        ),
        causes,
    )
    running = [
        (one.task, one.id, one.worker, short_duration(one.seconds), done_text(one.progress), one.progress.note if one.progress else "")
        for one in overview.running
    ]  # fmt: skip
    yield from _table("running", ("task", "id", "worker", "for", "done", "note"), running)
    workers = [
        (one.name, "silent" if one.silent else "alive", one.report.release or "", f"{one.busy.total()} of {one.report.processes}", _most(one.busy), " ".join(one.report.queues))
        for one in overview.workers
    ]  # fmt: skip
    yield from _table("workers", ("worker", "state", "release", "busy", "with", "consumes"), workers)
    yield from _beats(overview)
    schedules = [
        (
            one.listed.name,
            "paused" if one.state.pause else "overdue" if one.overdue else "cannot be sent",
            one.state.fault or "",
        )
        for one in overview.schedules_to_look_at
    ]
    yield from _table("schedules to look at", ("schedule", "state", "fault"), schedules)
    actions = [
        (one.at.astimezone(zone).strftime("%m-%d %H:%M:%S"), one.actor, one.action, one.target, one.reason)
        for one in overview.actions or ()
    ]
    yield from _table("last actions", ("at", "who", "what", "which", "why"), actions)


def _beats(overview: Overview) -> Iterator[RenderableType]:
    if overview.levels.beats is not None:
        said = [
            f"beat {one.name} {one.state}, looked {short_duration(one.tick_age)} ago" for one in overview.levels.beats
        ]
        yield Text(printable("; ".join(said) or "no beat runs"), style="dim")


def _queue(one: QueueNow, flow: Flow | None) -> tuple[str, ...]:
    level = one.level
    return (
        one.name,
        *map(_number, (level.ready, level.delayed, one.retrying, level.in_flight)),
        "" if level.oldest is None else duration(level.oldest),
        "" if flow is None else rate_text(flow.comes),
        "" if flow is None else rate_text(flow.goes),
        "" if flow is None or flow.empty_in is None else duration(flow.empty_in),
        _number(one.consumers),
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
    if not rows:
        return
    table = Table(
        *(
            Column(name, overflow="fold", no_wrap=any(is_id(row[at]) for row in rows[:SHOWN]))  # an id can be copied
            for at, name in enumerate(columns)
        ),
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for row in rows[:SHOWN]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    yield Text("")
    yield table
    if len(rows) > SHOWN:
        yield Text(f"and {len(rows) - SHOWN:,} more: --json has all", style="dim")


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _most(counts: Mapping[str, int]) -> str:
    """The names, those with the most first, as far as a line has room."""
    found = sorted(counts.items(), key=lambda one: -one[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in found[:2])
    return shown + (", …" if found[2:] else "")


def _clock(seconds: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).strftime("%m-%d %H:%M:%S")
