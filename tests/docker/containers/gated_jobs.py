"""A job for workers in containers, where the tests cannot look: what it notes is in Redis and in SQL."""

import time

from sqlalchemy import text

from conventions import ImmediateTask

PATIENCE = 240  # seconds


class Gated(ImmediateTask):
    """Say where it starts, wait until the gate is open, and insert a row in the transaction that records the effect."""

    idempotent_on = ("name",)

    def run(self, name: str) -> None:
        """Raises: TimeoutError, when nobody opens the gate."""
        store = self.app.store
        store.redis.rpush(store.key("starts", name), self.request.hostname)
        deadline = time.monotonic() + PATIENCE
        while not store.redis.exists(store.key("gate")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the gate was closed for {PATIENCE} s")
            time.sleep(0.02)
        with self.transaction() as session:
            row = {"name": name, "worker": self.request.hostname}
            session.execute(text("INSERT INTO effects (name, worker) VALUES (:name, :worker)"), row)
