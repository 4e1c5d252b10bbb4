"""The Redis transport: kombu's, with the queues of `Broker` in place of its lists.

From kombu come connections (TLS, unix sockets, Sentinel), fanout for events and remote control, and the event loop.
Ours are the queues (`transport/redis_channel.py`), what is in flight (`broker/in_flight.py`), and that a lost connection is made again here:
Celery would restart its consumer. See `docs/design/transport.md`.
"""

from typing import Any

from kombu.transport import redis

from conventions.execution.application import Application
from conventions.transport.redis_channel import Channel, SentinelChannel
from conventions.transport.redis_reading import BLOCK_AT_MOST, LOST, ReaderFailed

# A send must fail within `broker_timeout`, and tries again by itself; kombu's default is to try for ever.
FAIL_FAST = {"max_retries": 0, "interval_start": 0, "interval_step": 0}


class Poller(redis.MultiChannelPoller):
    """kombu's poller, for which a lost connection is no reason to end."""

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802  # kombu's name
        if not channel.rests:
            try:
                channel.end_wait_for_small()
                super()._register_BRPOP(channel)  # type: ignore[no-untyped-call]  # kombu has few types
            except LOST as error:
                channel.lost(error)

    def _register_LISTEN(self, channel: Any) -> None:  # noqa: N802  # kombu's name
        if not channel.rests:
            try:
                super()._register_LISTEN(channel)  # type: ignore[no-untyped-call]  # the same
            except LOST as error:
                channel.lost(error)

    def _pause_brpop(self, channel: Any, fileno: int) -> None:  # noqa: ARG002  # kombu's signature
        # Kombu would leave what a read brings in its socket until there is room: for as long as a job takes, where short
        # jobs are followed by long ones, and nobody else would have it meanwhile.
        channel.abandon_read()

    def on_readable(self, fileno: int) -> Any:
        """Read what has come."""
        channel, _ = self._fd_to_chan.get(fileno, (None, None))
        try:
            return super().on_readable(fileno)  # type: ignore[no-untyped-call]  # the same
        except ReaderFailed as failed:
            raise failed.error from failed.error.__cause__
        except LOST as error:
            if channel is None:
                raise
            channel.lost(error)
            return None


class Transport(redis.Transport):
    """Messages in three places, moved by scripts; see `Broker`."""

    Channel: Any = Channel
    brpop_timeout = BLOCK_AT_MOST
    supports_batch_publish = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # the same
        self.cycle: Any = Poller()  # type: ignore[no-untyped-call]  # the same

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu does, but a socket is registered once, not in each turn of the loop."""
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]  # the same
        loop.on_tick -= set(loop.on_tick) - before

        def on_tick() -> None:
            self.cycle.on_poll_start()
            for fileno in self.cycle.fds:
                if fileno not in loop.readers:
                    loop.add_reader(fileno, self.on_readable, fileno)

        loop.on_tick.add(on_tick)


class SentinelTransport(Transport):
    """The same, on the master that Sentinel names."""

    Channel = SentinelChannel
    default_port: Any = 26379


class Link:
    """Names the application among the options of its connections, through which its channels find it."""

    def __init__(self, app: Application) -> None:
        self.app = app

    def __repr__(self) -> str:  # kombu tells connections apart by this
        return f"<{self.app.main} {id(self.app):x}>"

    def __json__(self) -> str:  # `celery inspect stats` shows the options
        return str(self.app.main)


def options(app: Application) -> dict[str, Any]:
    """`broker_transport_options` for this transport."""
    return {
        "global_keyprefix": f"{{{app.settings.key_prefix}}}:",
        "link": Link(app),
        "socket_timeout": 5,
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        **FAIL_FAST,
    }
