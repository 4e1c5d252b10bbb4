"""Redrives carried out step by step, as the recorder that leads does beside its recording."""

from unittest.mock import patch

from conventions import ImmediateTask
from conventions.app import ConventionsApp
from conventions.dead_letters import redrive_sender
from conventions.dead_letters.redrive_rows import RedriveOrder
from conventions.dead_letters.redrive_sender import Redriver, begin_or_join

WHOLE = 600.0  # seconds of one step: a slow machine must not cut it, since the next one judges what was sent so far


class Pay(ImmediateTask):
    """Pay one bill."""

    idempotent_on = ("bill",)
    queue_name = "payments"

    def run(self, bill: int) -> None:
        """No worker runs it."""


def begin(app: ConventionsApp, wanted: RedriveOrder) -> str:
    """Begin a redrive. Returns its id."""
    return begin_or_join(app, wanted).id


def step(app: ConventionsApp, id_: str, redriver: Redriver | None = None) -> None:
    """One step, however long the machine takes for its letters: what it took is sent."""
    with patch.object(redrive_sender, "STEP", WHOLE):
        (redriver or Redriver(app, "the test", lambda: True)).step(id_)
