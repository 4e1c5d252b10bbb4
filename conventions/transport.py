"""The Redis transport: celery-redis-plus with this platform's intervals.

celery-redis-plus records a message before it can be popped, renews it while a worker holds it, and keeps delays in
Redis. Its intervals suit larger time-outs than ours, and two of them cannot be set by an option.
"""

from contextlib import suppress
from queue import Empty
from typing import Any

import celery_redis_plus.transport as upstream
from kombu.transport import TRANSPORT_ALIASES

VISIBILITY_TIMEOUT = 33  # seconds until the message of a dead worker may go to another
SWEEP_INTERVAL = 8  # seconds between two looks for such messages; delays up to this long wait in the worker
BLOCKING_TIMEOUT = 1  # seconds a read blocks at the most, and so what a stopping worker waits for

# A send must fail within `broker_timeout`, and tries again by itself; kombu's default is to try for ever.
FAIL_FAST = {"max_retries": 0, "interval_start": 0, "interval_step": 0}

SCHEMES = ("redis", "rediss", "valkey", "valkeys")


class Channel(upstream.Channel):
    """celery-redis-plus, giving back at once what a stopping worker took and will not run."""

    def _basic_cancel(self, consumer_tag: str) -> Any:
        answer = super()._basic_cancel(consumer_tag)
        if not self._queue_cycle and self._in_poll:
            # The read under way may take a message yet, which would wait until the last job here has ended, or until
            # the sweep. Read the reply: kombu rejects a message that has no consumer, so that it goes back.
            with suppress(Empty, *upstream.Transport.connection_errors):
                self._bzmpop_read()
        return answer


class Transport(upstream.Transport):
    """celery-redis-plus, recovering the messages of a dead worker within 45 s."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Upstream reads its sweep interval from this module constant, both as interval and as part of each deadline.
        vars(upstream)["DEFAULT_REQUEUE_CHECK_INTERVAL"] = SWEEP_INTERVAL
        super().__init__(*args, **kwargs)


def install() -> None:
    """Make kombu use this transport for Redis addresses, which keep their schemes."""
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__qualname__}"


def options(key_prefix: str) -> dict[str, Any]:
    """`broker_transport_options` for this transport."""
    return {
        "global_keyprefix": f"{{{key_prefix}}}:",
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "blocking_timeout": BLOCKING_TIMEOUT,
        "delivery_limit": None,  # upstream would drop a message after its 20th delivery
        "socket_timeout": 5,  # must stay above the blocking time-out
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        **FAIL_FAST,
    }
