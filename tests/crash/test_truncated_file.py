"""A server that comes back without the end of its append-only file, as after a power cut."""

from sqlalchemy import select, text

from conventions.app import ConventionsApp
from conventions.storage.tables import ExecutionRow
from tests.crash.chaos import pause
from tests.crash.crash_tasks import Append, Commit
from tests.crash.evidence import Runs
from tests.crash.server import Server
from tests.crash.tempo import QUICK
from tests.support import wait_until
from tests.workers import Installation, letters, wait_until_empty

JOBS = range(200)
LOST = 20_000  # bytes: the outcomes of some jobs, and the end of a command in the middle


def test_a_lost_end_of_the_file(installation: Installation, app: ConventionsApp, server: Server) -> None:
    """The workers go on by themselves: every job that was sent before ends, and transactions are there once.

    A plain effect is there twice at the most, and only of jobs of which the server had lost the outcome.
    """
    QUICK.install(installation)
    with app.database.session() as session:
        session.execute(text("CREATE TABLE effects (number INTEGER NOT NULL)"))
    sent = [(Commit if number % 2 else Append).delay(number, 0.04) for number in JOBS]
    with installation.worker("--concurrency=2") as worker:
        wait_until(lambda: len(Runs(installation.folder).starts()) > len(JOBS) / 3, 20, "a third has run")
        server.kill()
        assert server.lose(LOST) > LOST
        pause(0.5)
        server.start()
        wait_until(lambda: {*Runs(installation.folder).starts()} >= {*JOBS}, 60, "every job has run")
        wait_until_empty(app, 40)
        wait_until(lambda: app.journal.length() == 0, 30, "all is recorded")
        assert worker.process.poll() is None
        assert worker.stop() == 0
    with app.database.session() as session:
        made = sorted(session.scalars(text("SELECT number FROM effects")))
        kinds = select(ExecutionRow.message_id).where(ExecutionRow.kind.in_(("succeeded", "duplicate")))
        ended = set(session.scalars(kinds))
    assert made == [number for number in JOBS if number % 2]
    assert ended >= {one.id for one in sent}
    effects = Runs(installation.folder).effects()
    assert {*effects} == {number for number in JOBS if not number % 2}
    assert max(effects.values()) <= 2
    assert not letters(app, state=None)
