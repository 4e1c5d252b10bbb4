"""A send in the transaction of a job: it is sent when the effect of that job is committed, and once."""

from pathlib import Path

import pytest

from conventions import EVERY_ARGUMENT, ImmediateTask
from conventions.app import ConventionsApp
from tests.support import wait_until


class Inner(ImmediateTask):
    """Note who has sent it."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        request = self.request
        with file.open("a") as lines:
            lines.write(f"{request.id} {request.parent_id} {request.root_id} {self.actor}\n")


class Outer(ImmediateTask):
    """Send a job in its own transaction, and fail at first."""

    idempotent_on = EVERY_ARGUMENT

    def run(self, file: Path) -> None:
        with self.transaction() as session:
            Inner.enqueue_in(session, file)
            if self.attempt == 1:
                raise ValueError("rolled back")


@pytest.mark.processes
def test_it_is_sent_once_with_its_parent(live_app: ConventionsApp, tmp_path: Path) -> None:
    """The first attempt is rolled back, with what it sends. The ids of the parent and the actor are those of a plain send."""
    file = tmp_path / "file"
    outer = Outer.apply_async((file,), actor="ann")
    wait_until(file.exists, 30, "it has run")
    wait_until(lambda: live_app.broker.sizes("immediate").ready == 0, 10, "no other one waits")
    (line,) = file.read_text().splitlines()
    inner, parent, root, actor = line.split()
    assert inner != outer.id
    assert (parent, root, actor) == (outer.id, outer.id, "ann")
