"""After a restore, Redis may be older than SQL. Then no message runs again that has ended in SQL.

The check runs before a worker reads the first message from a server that has restarted. The mark of `records/journal_position.py`
says whether Redis is older. If so, each message is compared with the executions in SQL, and jobs that were done since the copy
are marked as done again.
"""

import gc
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from conventions.broker.batch_membership import Member
from conventions.broker.header_names import ACTOR, BATCH, ENQUEUED_AT, FINGERPRINT, KEY
from conventions.broker.waiting_messages import NOT_DONE, End, Waiting, WaitingPlace, end, look
from conventions.core.actor import SYSTEM
from conventions.core.error_text import FailureText
from conventions.core.time_units import milliseconds, moment
from conventions.execution.application import Application
from conventions.execution.batch_follow_up import follow_up, join_of
from conventions.records import journal_position
from conventions.records.journal import Event
from conventions.sealing.kept_message import open_body
from conventions.sealing.sealed_body import follows
from conventions.storage.redis_store import run_of

logger = logging.getLogger(__name__)

PLACES: tuple[WaitingPlace, ...] = ("delayed", "inflight", "queue")
CHECKING = 60  # seconds without a step, after which another process may compare
WAIT = 0.5  # seconds between two looks of a process that waits for the comparison
EARLIER = timedelta(seconds=60)  # begin this long before the mark: Redis may have lost what was recorded just before it
PAGE = 500
DONE = frozenset(["succeeded", "duplicate"])
ONE_EVENT = "restored"  # the same each time: a step that is found twice gives one event
EMPTIED = (
    "Redis knows of nothing that SQL has recorded: it was emptied, or is another server. What was only queued is gone without a row, and so are batches "
    "that were being cut and pauses of schedules; `celery … lost` lists in some minutes what SQL knows to be unfinished"
)
SAYS = FailureText("Restored", "Redis is older than SQL, which records that this message has ended", "", "")


def may_read(app: Application) -> bool:
    """Whether messages may be read. False: another process compares now; ask again. Raises: RedisError."""
    # If no message waits, the recorder compares; it needs SQL anyway.
    return not app.port.keeps_claims or not _waiting(app) or compare(app)


def compare(app: Application, on_step: Callable[[], object] = bool) -> bool:
    """Compare Redis with SQL, once for each run of the server. Returns false if another process does it now.

    Args:
        app: the application.
        on_step: called after each step, of which there may be thousands.

    Raises:
        RedisError: a later call compares from the start.
    """
    store = app.store
    run, mark = run_of(store), journal_position.read(store)
    if mark and mark.run == run:
        return True
    name, leads = (
        uuid4().hex,
        store.script("take_lead"),
    )  # a script, since it works when memory is full; only jobs can free memory then
    lock = [store.key("restored")]
    if not leads(lock, [name, CHECKING * 1000]):
        time.sleep(WAIT)
        return False

    def goes_on() -> None:
        store.redis.expire(lock[0], CHECKING)
        on_step()

    try:
        _compare(app, mark, run, goes_on)
    except RedisError:
        raise
    except Exception as error:
        if not _is_of_sql(error):
            raise
        logger.error(
            "SQL does not answer, so nobody can tell whether Redis is older than it; jobs run all the same: %s", error
        )
    finally:
        leads(lock, [name, 0])
    return True


def _is_of_sql(error: Exception) -> bool:
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  # it takes 0.6 s to import

    return isinstance(error, SQLAlchemyError)


def _compare(app: Application, mark: journal_position.Mark | None, run: str, goes_on: Callable[[], None]) -> None:
    store, began, loads = app.store, time.monotonic(), "sqlalchemy" not in sys.modules
    waiting = _waiting(app)
    with app.database.session(read_only=True) as session:
        counted = journal_position.counted(session, store.prefix)
    known = mark.number if mark else 0
    if counted and not mark:
        logger.error("%s", EMPTIED)
    if known < counted and (mark or waiting):
        since = f"what was recorded after {mark.at.isoformat(timespec='seconds')}" if mark else "what SQL has"
        logger.warning(
            "Redis lacks %s: it was restored, or has lost its last second, or the recorder was killed just then; %d messages are "
            "compared before any runs",
            since,
            waiting,
        )
        done = _remember_done(app, mark.at - EARLIER, goes_on) if mark else 0
        ended = sum(_end_those_of(app, queue, place, goes_on) for queue in app.broker.queues() for place in PLACES)
        logger.warning(
            "Redis is as SQL now, after %.1f s: %d messages had ended, and do not run again; %d jobs are known as done again",
            time.monotonic() - began, ended, done,
        )  # fmt: skip
    journal_position.write(store, max(known, counted), run)
    if (
        loads and threading.current_thread() is threading.main_thread()
    ):  # in a worker's main process nothing else loads SQLAlchemy
        gc.freeze()  # what was loaded stays: see `TaskLoader.on_worker_init`


def _waiting(app: Application) -> int:
    """The number of messages in all queues."""
    return sum(sum((one.ready, one.delayed, one.in_flight)) for one in map(app.broker.sizes, app.broker.queues()))


def _remember_done(app: Application, since: datetime, goes_on: Callable[[], None]) -> int:
    """Mark the jobs that were done since this moment as done, so that no message with their keys runs them again."""
    from sqlalchemy import select, tuple_  # noqa: PLC0415  # it takes 0.6 s to import

    from conventions.storage.tables import ExecutionRow  # noqa: PLC0415  # the same

    row, found = ExecutionRow, 0
    query = select(row.id, row.ended_at, row.task, row.key, row.message_id).where(
        row.kind == "succeeded", row.key.is_not(None)
    )
    position: Any = (since, "")
    while True:
        with app.database.session(read_only=True) as session:
            page = query.where(tuple_(row.ended_at, row.id) > position).order_by(row.ended_at, row.id).limit(PAGE)
            rows = session.execute(page).all()
        arguments = [value for one in rows for value in (f"{one.task}:{one.key}", one.message_id, _keep(app, one.task))]
        if arguments:
            found += int(app.store.run("remember_done", arguments))
        goes_on()
        if len(rows) < PAGE:
            return found
        position = (rows[-1].ended_at, rows[-1].id)


def _end_those_of(app: Application, queue: str, place: WaitingPlace, goes_on: Callable[[], None]) -> int:
    """End the messages in one place that have ended in SQL. Returns how many."""
    seen = ended = 0
    while found := look(app.broker, queue, place, seen):
        ends = _ends(app, found)
        for one, _, kinds in ends:
            _note_lost_steps(app, one, kinds)
        went = sum(end(app.store, [(one, how) for one, how, _ in ends]))
        seen, ended = seen + len(found) - went, ended + went
        for member in {member.batch_id: member for one, *_ in ends if (member := _member(one))}.values():
            follow_up(app, member)
        goes_on()
    return ended


def _ends(app: Application, found: Sequence[Waiting]) -> list[tuple[Waiting, End, set[str]]]:
    from conventions.recording.lost_message_rows import endings  # noqa: PLC0415  # the same

    with app.database.session(read_only=True) as session:
        known = endings(session, [one.message_id for one in found])
    ends = []
    for one in found:
        sent_at = moment(one.headers.get(ENQUEUED_AT))
        kinds = {
            kind
            for generation, kind, ended_at in known.get(one.message_id, ())
            # After such an end it may have been sent again under its id. But a job that is done stays done.
            if generation >= one.generation and (kind in DONE or sent_at is None or ended_at > sent_at)
        }
        if kinds and not _goes_on_here(app, one, kinds):
            ends.append((one, _end(app, one, kinds), kinds))
    return ends


def _goes_on_here(app: Application, one: Waiting, kinds: set[str]) -> bool:
    """Whether the message must stay: its steps may not be sent. A worker that gets it finds its outcome and sends them."""
    key = one.headers.get(KEY)
    if not key or not (_steps(app, one, kinds) or follows(one.headers)):  # what is sealed may not open here
        return False
    return bool(app.claims.waits_for_steps(f"{one.headers.get('task')}:{key}", one.message_id, one.generation))


def _steps(app: Application, one: Waiting, kinds: set[str]) -> list[tuple[str, str]]:
    """The steps that are sent after a message has ended in this way: their ids and tasks."""
    try:
        embed = open_body(app.payload_keys, json.loads(one.payload)).options
        if not DONE.isdisjoint(kinds):
            signatures = [*(embed.get("callbacks") or ()), *(embed.get("chain") or ())[-1:], embed.get("chord")]
        else:
            signatures = [*(embed.get("errbacks") or ())] if "dead" in kinds else []
        return [step for signature in signatures if signature for step in _first_of(signature)]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # another program wrote it
        return []


def _first_of(signature: Any) -> Iterator[tuple[str, str]]:
    """The first messages of a step: their ids and tasks."""
    task, options, kwargs = signature["task"], signature.get("options") or {}, signature.get("kwargs") or {}
    match task:
        case "celery.chain":
            yield from _first_of(kwargs["tasks"][0])
        case "celery.group":
            for one in kwargs["tasks"]:
                yield from _first_of(one)
        case "celery.chord":
            header = kwargs["header"]
            for one in [header] if isinstance(header, dict) else header:
                yield from _first_of(one)
        case _ if options.get("task_id"):
            yield str(options["task_id"]), str(task)


def _note_lost_steps(app: Application, one: Waiting, kinds: set[str]) -> None:
    """Record the steps of an ended job as lost if they are neither in Redis nor in SQL.

    The server has lost them, or nobody has sent them. They cannot be sent now, since the job's result is not known. A task of
    ours always leaves a row, so a missing row proves the loss. A function or an unknown task may leave no row; then only the
    log says so.

    Raises: RedisError, SQLAlchemyError.
    """
    from conventions.recording.lost_message_rows import have_rows  # noqa: PLC0415  # SQLAlchemy takes 0.6 s to import

    steps = dict(_steps(app, one, kinds))
    if not steps:
        return
    with app.database.session(read_only=True) as session:
        rows = have_rows(session, [*steps])
    gone = [id_ for id_, place in zip(steps, app.broker.places([*steps]), strict=True) if not place and id_ not in rows]
    follows = f"it follows {one.message_id}, which has ended"
    why = f"{follows}; nothing tells that it was sent"
    failure, actor = FailureText("Lost", why, "", ""), str(one.headers.get(ACTOR) or SYSTEM)
    ours = [id_ for id_ in gone if hasattr(app.tasks.get(steps[id_]), "arguments")]
    lost = [Event(id_, "lost", task=steps[id_], actor=actor, token=ONE_EVENT, failure=failure) for id_ in ours]
    app.journal.append(lost)
    for event in lost:
        logger.error("lost: id=%s task=%s: %s", event.message_id, event.task, why)
    for id_ in gone:
        if id_ not in ours:
            logger.warning(
                "nobody can tell whether it ran: id=%s task=%s: %s; it may have succeeded, which leaves no row",
                id_,
                steps[id_],
                follows,
            )


def _end(app: Application, one: Waiting, kinds: set[str]) -> End:
    headers = one.headers
    done = not DONE.isdisjoint(kinds)
    task, key = str(headers.get("task")), headers.get(KEY)
    event = Event(
        one.message_id,
        "duplicate" if done else "superseded",
        task=task,
        queue=one.queue,
        actor=str(headers.get(ACTOR) or SYSTEM),
        key=str(key) if key else None,
        generation=one.generation,
        attempt=one.attempt,
        token=f"restored-{one.score.decode()}",
        enqueued_at=headers.get(ENQUEUED_AT),
        failure=SAYS,
    )
    join = join_of(app, _member(one), "done" if done else "dead" if "dead" in kinds else "cancelled")
    claim = (f"{task}:{key}", str(headers.get(FINGERPRINT) or ""), _keep(app, task)) if done and key else NOT_DONE
    return End(one.message_id, event.encode(app.store.entry_signatures), join.encode() if join else "", claim)


def _member(one: Waiting) -> Member | None:
    return Member.read(one.headers.get(BATCH))


def _keep(app: Application, task: str) -> int:
    """How long a claim of a task is kept, in milliseconds."""
    horizon: timedelta = getattr(app.tasks.get(task), "horizon", None) or app.settings.keep_result_for
    return milliseconds(horizon)
