"""What is looked at each time: servers, records, what waits, tasks and schedule."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, text

from conventions.alerts.alert_store import AlertStore
from conventions.app import ConventionsApp
from conventions.broker.consumed_queues import ask_workers
from conventions.broker.server_checks import evicting_servers, servers_without_aof
from conventions.cli.base import existing, one_line_errors, say
from conventions.cli.checks.report import Check, Wrong
from conventions.core.errors import ConfigurationError
from conventions.execution.application import Application
from conventions.execution.purge_queues import is_reply_queue
from conventions.outbox.lag import lag
from conventions.recording import lost_message_rows
from conventions.schedules.schedule_module import load_schedule
from conventions.storage.newer_data import left_alone
from conventions.storage.schema_check import missing_parts
from conventions.storage.tables import DeadLetterRow
from conventions.transport.celery_defaults import queue_names
from conventions.worker.put_off_unknown import waiting_tasks

LATE = 60  # seconds that a message may wait for the relay
LOST_WITHIN = timedelta(days=2)


def _broker(app: ConventionsApp) -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=app.settings.broker_timeout)
    app.port.check()


def _redis(app: ConventionsApp) -> None:
    app.store.try_write()
    faults = evicting_servers(app.port, app.store)
    if app.settings.environment == "production":
        faults += servers_without_aof(app.port, app.store)
    if faults:
        raise ConfigurationError(faults)


@one_line_errors
def _database(app: ConventionsApp) -> None:
    with existing(app.database).session(read_only=True) as session:
        session.execute(select(DeadLetterRow.id).limit(1))
        if missing := missing_parts(session.connection()):
            raise Wrong(
                f"the tables are those of an older release and lack {', '.join(missing[:3])}{', ...' if missing[3:] else ''}: not everything is recorded",
                "run `celery -A <app> db upgrade`, or `manage.py migrate`",
            )
        if not app.database.is_sqlite and session.scalar(text("SHOW transaction_read_only")) == "on":
            raise Wrong(
                "the database takes no writes, so nothing is recorded: it is a standby, or default_transaction_read_only is on",
                "give the address of the primary, or turn that off",
            )


def _journal(app: ConventionsApp) -> None:
    if fault := app.journal.fault():
        raise ConfigurationError([fault])


def _rejected(app: ConventionsApp) -> None:
    if count := app.journal.rejected():
        key = app.journal.rejected_key
        raise Wrong(
            f"{count:,} entries of the journal are put aside: SQL refuses them, or they are not signed as they must be",
            f"they are kept whole in the list {key}, each with its fault: read them with `LRANGE {key} 0 -1`, and delete the list then; a recorder that has "
            "the key records those whose key was not here",
        )


def _alerts(app: ConventionsApp) -> None:
    if found := AlertStore(app.store).refusals():
        told = (
            f"{one.receiver} has taken no alert when it was last asked, {one.times:,} times in a row: {one.why}"
            for one in found
        )
        raise Wrong("; ".join(told), "`alerts test` tries it")


def _left_alone(app: ConventionsApp) -> None:
    found = [one for store in app.servers for one in left_alone(store)]
    if found:
        named = ", ".join(f"{one.name[:100]} ({one.kind})" for one in found[:3]) + (", ..." if found[3:] else "")
        raise Wrong(
            f"{len(found)} keys in Redis are in a form that this release does not know, and are left as they are: {named}",
            "start workers of the release that has written them",
        )


def _unknown_tasks(app: ConventionsApp) -> None:
    if found := sorted({name for store in app.port.servers.values() for name in waiting_tasks(store)}):
        raise Wrong(
            f"messages of {len(found)} tasks wait for a worker that knows them: {', '.join(found[:5])}{', ...' if found[5:] else ''}",
            "deploy such workers, or list the old names in `aliases`",
        )


def _database_answers(app: ConventionsApp) -> bool:
    """Where it does not, the line of the database says so."""
    try:
        _database(app)
    except Exception:  # noqa: BLE001  # that line reports it
        return False
    return True


@one_line_errors
def _lost(app: ConventionsApp) -> None:
    if not _database_answers(app):
        return
    with app.database.session(read_only=True) as session:
        lost = lost_message_rows.count_lost(session, datetime.now(UTC) - LOST_WITHIN)
    if lost:
        days = LOST_WITHIN.days
        raise Wrong(
            f"{lost} jobs were lost in the last {days} days: their messages are gone from Redis",
            "`celery … lost` lists them",
        )


@one_line_errors
def _outbox(app: ConventionsApp) -> None:
    if not _database_answers(app):
        return
    with app.database.session(read_only=True) as session:
        found = lag(session, app.settings.key_prefix, datetime.now(UTC))
    if found.seconds > LATE:
        why = f"; the last try: {found.fault}" if found.fault else ""
        raise Wrong(
            f"{found.rows:,} messages wait in the outbox, the oldest one for {found.seconds:,.0f} s{why}",
            "a worker must run, and reach SQL, Redis and the broker",
        )


def _queues(app: ConventionsApp) -> None:
    found = unconsumed(app)
    silent = f"; {found.silent} workers have not answered, and may consume them" if found.silent else ""
    if found.waiting:
        named = ", ".join(f"{name} ({count:,})" for name, count in found.waiting.items())
        raise Wrong(f"messages wait in queues that no worker consumes: {named}{silent}", "start one with -Q")
    if found.empty:  # not a fault: workers may run elsewhere, or start later
        say(f"no worker consumes {', '.join(found.empty)}; nothing waits there{silent}", err=True)


@dataclass(frozen=True, slots=True)
class Unconsumed:
    """The queues without a worker, for `celery check`.

    Attributes:
        waiting: queues with ready or delayed messages, and their number.
        empty: empty queues to which a task of the application sends.
        silent: how many living workers have not answered.
    """

    waiting: dict[str, int]
    empty: list[str]
    silent: int


def unconsumed(app: Application) -> Unconsumed:
    """Ask the workers. Raises: RedisError, or the error of an unreachable broker."""
    own = {name for name in queue_names(app) if not is_reply_queue(name)}
    known = own | {name for name in app.port.queues() if not is_reply_queue(name)}
    lengths = {name: app.port.waiting(name, delayed=True) for name in known}
    consumers = ask_workers(app.store, app.control)
    left = known - consumers.known
    return Unconsumed(
        {name: lengths[name] for name in sorted(left) if lengths.get(name)},
        sorted(name for name in left & own if not lengths.get(name)),
        consumers.silent,
    )


EVERYDAY: dict[str, Check] = {
    "settings": lambda app: app.settings,
    "broker": _broker,
    "redis": _redis,
    "database": _database,
    "journal": _journal,
    "rejected": _rejected,
    "lost": _lost,
    "outbox": _outbox,
    "left alone": _left_alone,
    "unknown tasks": _unknown_tasks,
    "tasks": lambda app: app.loader.import_default_modules(),
    "queues": _queues,
    "alerts": _alerts,
    "schedule": load_schedule,
}
