"""Jobs by state, task, queue, worker, release, sender, argument and time: those that run, those that wait, and those that have ended.

Each place is asked by itself, and bounded: of jobs that wait so many are looked at, and the answer says of how many.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import chain, islice

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from conventions.broker.header_names import ACTOR, ENQUEUED_AT
from conventions.broker.waiting_messages import Waiting, WaitingPlace
from conventions.core.bounded_call import StillWaits
from conventions.core.chunking import batched
from conventions.core.error_text import first_line
from conventions.core.secrets_in_text import without_secrets
from conventions.core.time_units import moment
from conventions.execution.application import Application
from conventions.execution.waiting_selection import Search, Selection
from conventions.metrics.state_now import SQL, SQL_WITHIN
from conventions.now.ended_jobs import ended_jobs
from conventions.now.job_filter import HeldBack, JobFilter, queues_of, state_of_waiting
from conventions.now.job_line import JobLine, text_of_header
from conventions.now.running_jobs import AtWorkers, jobs_that_run, messages_at_workers
from conventions.records import executions
from conventions.records.journal import ODD

READY_FIRST: tuple[WaitingPlace, ...] = ("queue", "delayed")
PLACES_OF: dict[str, tuple[WaitingPlace, ...]] = {"queued": ("queue",), "delayed": ("delayed",)}

LOOK_AT = 20_000  # messages that wait
AT_ONCE = 16  # questions to SQL
OF_ERRORS = 500  # retrying jobs whose errors one statement reads


@dataclass
class JobListing:
    """What was found.

    Attributes:
        lines: running ones first, the longest first; then those that wait, in the order in which they come, but for those that were
            running when that was read; then what ended, the latest first.
        looked: messages that wait and were looked at; `None`: none were asked for.
        waiting: messages that wait in all of these queues.
        absent: what could not be asked, and why.
        more: those of its parts of which more match than were asked for.
    """

    lines: list[JobLine] = field(default_factory=list)
    looked: int | None = None
    waiting: int = 0
    absent: dict[str, str] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)

    @property
    def is_partial(self) -> bool:
        """Whether more wait than were looked at."""
        return self.looked is not None and self.looked < self.waiting


def list_jobs(app: Application, which: JobFilter, limit: int, look_at: int = LOOK_AT) -> JobListing:
    """The jobs that match, of each place `limit` at the most. Never raises what a server that is away raises.

    Args:
        app: the application, with its tasks loaded.
        which: the filter.
        limit: jobs.
        look_at: messages that wait and are looked at.
    """
    listing = JobListing()
    asked = limit + 1
    at_workers = cache(lambda: messages_at_workers(app, which, look_at))
    if which.has_running:
        _add(listing, "running jobs", limit, lambda: jobs_that_run(app, which, asked, at_workers))
    if which.has_waiting:
        _add(
            listing,
            "waiting jobs",
            limit,
            lambda: _waiting(app, which, asked, look_at=look_at, listing=listing, at_workers=at_workers),
        )
    if which.has_ended:
        name = f"jobs {hash(which) % AT_ONCE}"  # other people's questions are asked beside this one
        _add(listing, "ended jobs", limit, lambda: SQL.call(name, lambda: ended_jobs(app, which, asked), SQL_WITHIN))
    _add_last_errors(app, listing, f"errors {hash(which) % AT_ONCE}")
    return listing


def _add_last_errors(app: Application, listing: JobListing, name: str) -> None:
    """Those of the retrying jobs that are shown, and of no others."""
    ids = [one.id for one in listing.lines if one.state == "retrying"]
    if not ids or not app.database.is_there:
        return

    def read() -> dict[str, tuple[str | None, str | None]]:
        found: dict[str, tuple[str | None, str | None]] = {}
        with app.database.session(read_only=True, within=SQL_WITHIN) as session:
            for some in batched(ids, OF_ERRORS):
                last = executions.last_of_each(session, some)
                found |= {id_: (row.error, row.error_message) for id_, row in last.items()}
        return found

    try:
        errors = SQL.call(name, read, SQL_WITHIN)
    except (SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        listing.absent["errors of retrying jobs"] = without_secrets(first_line(error))
        return
    listing.lines = [
        replace(one, error=errors[one.id][0], error_message=errors[one.id][1])
        if one.state == "retrying" and one.id in errors
        else one
        for one in listing.lines
    ]


def _add(listing: JobListing, name: str, limit: int, read: Callable[[], list[JobLine]]) -> None:
    try:
        found = read()
    except (RedisError, SQLAlchemyError, OSError, StillWaits, *ODD) as error:
        listing.absent[name] = without_secrets(first_line(error))
        return
    listing.lines += found[:limit]
    if len(found) > limit:
        listing.more.append(name)


def _waiting(
    app: Application, which: JobFilter, limit: int, *, look_at: int, listing: JobListing, at_workers: AtWorkers
) -> list[JobLine]:
    if not app.port.can.looks:
        listing.absent["waiting jobs"] = "this broker shows no single messages"
        return []
    queues = queues_of(app, which)
    held_back = HeldBack(app)
    places = READY_FIRST if held_back.tasks else PLACES_OF.get(which.state, READY_FIRST)
    sizes = [app.broker.sizes(queue) for queue in queues]
    listing.waiting = sum(one.ready * ("queue" in places) + one.delayed * ("delayed" in places) for one in sizes)
    wanted = Selection(queues, arguments=which.arguments, codes=which.codes, actor=which.actor)
    search = Search(app, wanted, look_at, places)
    read = (one.message for one in at_workers() if one.claim is None)  # they come before the others
    runs = {one.id for one in listing.lines}
    lines = list(islice(_of_messages(which, chain(read, search), held_back, runs), limit))
    # Workers take some meanwhile, so fewer may be found than were counted.
    listing.looked = min(search.looked, listing.waiting) if search.is_cut else listing.waiting
    return lines


def _of_messages(
    which: JobFilter, search: Iterable[Waiting], held_back: HeldBack, runs: Collection[str]
) -> Iterator[JobLine]:
    """Those that match; `runs`: ids of jobs that are listed as running."""
    seen = set()  # a worker may have given one back meanwhile
    for one in search:
        headers = one.headers
        if one.tag in seen or one.message_id in runs or not which.names(text_of_header(headers.get("task"))):
            continue
        seen.add(one.tag)
        is_held = held_back.holds(one)
        state = state_of_waiting(one, held_back=is_held)
        sent, task = moment(headers.get(ENQUEUED_AT)), text_of_header(headers.get("task"))
        if which.state in ("", state) and which.within(sent):
            actor, attempt = text_of_header(headers.get(ACTOR)), max(one.attempt, 1)
            due_at = None if is_held else _due_at(one)
            yield JobLine(one.message_id, task, state, one.queue, actor, at=sent, attempt=attempt, due_at=due_at)


def _due_at(one: Waiting) -> datetime | None:
    """When a message is due that is not yet."""
    if one.place != "delayed":
        return None
    try:
        return datetime.fromtimestamp(float(one.score) / 1000, UTC)
    except (ValueError, OverflowError, OSError):  # another program wrote it
        return None
