"""Bare Celery on RabbitMQ, with the settings that keep a job: a quorum queue, confirms, late acknowledgement."""

import os
from dataclasses import replace
from functools import partial

from bench.program import RABBITMQ, Program
from bench.systems.bare_celery import bare_celery, delete_queues

QUEUE = "celery"


def program(url: str) -> Program:  # noqa: ARG001  # it has no Redis
    """The program of this system."""
    rabbitmq = os.environ[RABBITMQ]
    plain = bare_celery(
        rabbitmq,
        task_default_queue=QUEUE,
        task_default_queue_type="quorum",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=4,
        broker_transport_options={"confirm_publish": True},
    )
    return replace(plain, prepare=partial(delete_queues, rabbitmq, QUEUE))
