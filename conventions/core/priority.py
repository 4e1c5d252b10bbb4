"""Named priorities, meaning the same on every broker."""

from enum import IntEnum


class Priority(IntEnum):
    """How urgent a message is; a higher one is delivered first.

    The values are RabbitMQ's (0-9, 9 first), which the Redis transport here shares. The convention document's
    "priority 1" is BullMQ's highest and so means `URGENT`.
    """

    LOW = 1
    NORMAL = 4
    HIGH = 7
    URGENT = 9
