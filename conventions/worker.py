"""The worker's consumer: which queues it reads, how much it takes ahead, and what it does not wait for."""

from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer

LONG_QUEUE = "long"


class Consumer(CeleryConsumer):
    """Celery's consumer without the start-up chatter between workers.

    `mingle` waits for answers of other workers before the first job; what it would share, the list of revoked
    messages, lives in Redis here.
    """

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        quiet = {"without_mingle": True, "without_gossip": True}
        if LONG_QUEUE in options["app"].amqp.queues.consume_from:
            # A message taken ahead would wait for hours behind a long job.
            options["prefetch_multiplier"] = 1
            options["initial_prefetch_count"] = options["controller"].concurrency
        super().__init__(*args, worker_options=(worker_options or {}) | quiet, **options)
