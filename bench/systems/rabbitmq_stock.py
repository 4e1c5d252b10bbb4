"""Bare Celery on RabbitMQ, with the settings that keep a job: a quorum queue, confirms, late acknowledgement."""

import os
from dataclasses import replace

from kombu.connection import Connection
from kombu.transport.native_delayed_delivery import declare_native_delayed_delivery_exchanges_and_queues

from bench.program import RABBITMQ, Program
from bench.systems.bare_celery import bare_celery


def program(url: str) -> Program:  # noqa: ARG001  # it has no Redis
    """The program of this system."""
    rabbitmq = os.environ[RABBITMQ]
    plain = bare_celery(
        rabbitmq,
        task_default_queue_type="quorum",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=4,
        broker_transport_options={"confirm_publish": True},
    )

    def prepare() -> None:
        """Make the queues of delayed messages, which a worker makes at its first start ever."""
        with Connection(rabbitmq) as connection:  # type: ignore[no-untyped-call]  # kombu has few types
            declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")

    return replace(plain, prepare=prepare)
