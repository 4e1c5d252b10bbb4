"""Redrives carried out step by step, as the recorder that leads does beside its recording."""

from unittest.mock import patch

from conventions.app import ConventionsApp
from conventions.dead_letters import redrive_sender
from conventions.dead_letters.redrive_sender import Redriver

WHOLE = 600.0  # seconds of one step: a slow machine must not cut it, since the next one judges what was sent so far


def step(app: ConventionsApp, id_: str, redriver: Redriver | None = None) -> None:
    """One step, however long the machine takes for its letters: what it took is sent."""
    with patch.object(redrive_sender, "STEP", WHOLE):
        (redriver or Redriver(app, "the test", lambda: True)).step(id_)
