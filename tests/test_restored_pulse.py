"""The comparison of a Redis that is older than SQL, without a worker; the drill is in `tests/crash/test_restored.py`."""

from conventions import EVERY_ARGUMENT, ImmediateTask, marks
from conventions.app import ConventionsApp
from conventions.journal import Journal
from conventions.restored import compare
from tests.recording import drain, event, recorder
from tests.workers import messages


class Count(ImmediateTask):
    """Count."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, number: int) -> None:
        """Nothing runs here."""


def test_each_step_is_told(app: ConventionsApp) -> None:
    """So that the keeper of a recorder sees it come forward, however many messages there are."""
    ended, waits = Count.delay(1).id, Count.delay(2).id
    Journal(app.store).append([event(ended, task=Count.name)])
    drain(recorder(app.store, app.database))
    run = marks.run_of(app.store)
    marks.write(app.store, 0, "before")
    steps: list[bool] = []
    assert compare(app, lambda: steps.append(True))
    assert [one.id for one in messages(app)] == [waits]
    assert len(steps) >= 2, "of the claims, and of the messages"
    assert compare(app, lambda: steps.append(False))
    assert all(steps)
    mark = marks.read(app.store)
    assert mark is not None
    assert (mark.number, mark.run) == (1, run)
