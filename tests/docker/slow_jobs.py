"""A task from outside the image, on a queue of its own: it notes its start and its end in Redis."""

import time

from conventions import ImmediateTask


class Slow(ImmediateTask):
    """Take some seconds."""

    idempotent_on = ("name",)
    queue_name = "slow"

    def run(self, name: str, seconds: float) -> None:
        """Note the start, wait, note the end."""
        store = self.app.store
        store.redis.rpush(store.key("slow_jobs", name), "started")
        time.sleep(seconds)
        store.redis.rpush(store.key("slow_jobs", name), "finished")
