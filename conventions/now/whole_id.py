"""Which job somebody means who has written the beginning of its id, as pages and lists show it."""

from conventions.dead_letters import letters
from conventions.execution.application import Application
from conventions.execution.purge_queues import known_queues
from conventions.execution.waiting_selection import Search, Selection
from conventions.metrics.state_now import SQL_WITHIN, running_jobs
from conventions.metrics.worker_reports import WorkerReports
from conventions.now.job_listing import LOOK_AT, READY_FIRST
from conventions.now.running_jobs import AT_WORKERS
from conventions.records import executions

LENGTH = 36  # characters of an id that its sender has not chosen
SHORTEST = 6  # characters that are worth a search
MOST = 5
SHORT = f"this is shorter than an id, which has {LENGTH} characters unless its sender has chosen it"


def whole_ids(app: Application, text: str, look_at: int = LOOK_AT) -> list[str]:
    """The ids that begin so, five at the most: of jobs that run, that wait, in their queue or at a worker, and of which SQL has a record.

    Args:
        app: the application.
        text: the beginning; of less than six characters, or of a whole id, none are looked for.
        look_at: messages that wait and are looked at.

    Raises:
        RedisError, SQLAlchemyError: a server does not answer.
    """
    if not SHORTEST <= len(text) < LENGTH:
        return []
    found = {job.id for job in running_jobs(app, WorkerReports(app.store).listing()) if job.id.startswith(text)}
    if app.port.can.looks:
        waiting = Search(app, Selection(tuple(known_queues(app))), look_at, (*AT_WORKERS, *READY_FIRST))
        found |= {one.message_id for one in waiting if one.message_id.startswith(text)}
    if app.database.is_there:
        with app.database.session(read_only=True, within=SQL_WITHIN) as session:
            found |= {*executions.ids_that_begin(session, text, MOST), *letters.ids_that_begin(session, text, MOST)}
    return sorted(found)[:MOST]
