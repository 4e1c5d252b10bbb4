"""Bare Celery with the settings that keep a job whose worker dies."""

from bench.program import Program
from bench.systems.bare_celery import bare_celery


def program(url: str) -> Program:
    """The program of this system."""
    return bare_celery(
        url,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=4,
        broker_transport_options={
            "visibility_timeout": 30,
            "unacked_restore_interval": 1,  # with kombu's 10 and 10 a lost job comes back after 100 s
            "unacked_restore_throttle": 1,
        },
    )
