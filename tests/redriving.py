"""Redrives carried out step by step, as the recorder that leads does beside its recording."""

from conventions.app import ConventionsApp
from conventions.dead_letters import redrive_rows
from conventions.dead_letters.redrive_sender import Redriver


def step(app: ConventionsApp, id_: str, redriver: Redriver | None = None) -> None:
    """One step, however long the machine takes for its letters: what it took is sent."""
    redriver = redriver or Redriver(app, "the test", lambda: True)
    while True:
        redriver.step(id_)
        with app.database.session(read_only=True) as session:
            row = redrive_rows.get(session, id_)
            if row is None or row.fault is not None or not redrive_rows.tally(session, id_).taken:
                return
