"""Named priorities, meaning the same on every broker."""

from enum import IntEnum


class Priority(IntEnum):
    """How urgent a message is. The broker delivers a higher priority first.

    The values are RabbitMQ's (0-9, 9 first); our Redis transport uses the same. The convention document's "priority 1" is
    BullMQ's highest, so it means `URGENT`.
    """

    LOW = 1
    NORMAL = 4
    HIGH = 7
    URGENT = 9
