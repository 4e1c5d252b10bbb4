"""The RabbitMQ transport: kombu's, with channels of ours, see `transport/rabbitmq_read_four_as_one.py`."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ssl import CERT_NONE, CERT_REQUIRED
from typing import Any

from kombu.transport import pyamqp

from conventions.library_internals.kombu import reader_of
from conventions.transport.rabbitmq_read_four_as_one import Channel
from conventions.transport.rabbitmq_reading import REST_AFTER

FILES = ("ca_certs", "certfile", "cert_reqs", "keyfile")  # of TLS, as an address names them after `ssl_`
LOOK_EVERY = 0.05  # seconds between two looks for room, in a worker without an event loop that is full


class Once:
    """A call of the worker's loop that is on its way at most once, however often it is asked for.

    Args:
        call: is called by the loop.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._is_coming = False

    def ask(self, schedule: Callable[[Callable[[], None]], Any]) -> None:
        """Have it called; `schedule` is how the loop is told."""
        if not self._is_coming:
            self._is_coming = True
            schedule(self._run)

    def _run(self) -> None:
        self._is_coming = False
        self._call()


class Connection(pyamqp.Connection):
    """A connection to RabbitMQ.

    Attributes:
        link: names the application; `None`: another program's connection.
        task_queues: our queues that are known to exist.
        reading: the channels that read them.
        loop: the worker's event loop, where it has one.
    """

    Channel = Channel

    def __init__(self, *args: Any, link: Any = None, **options: Any) -> None:
        self.link = link
        self.task_queues: set[str] = set()
        self.reading: set[Channel] = set()
        self.loop: Any = None
        self._is_read = False  # somebody reads until nothing more is there
        self._turn, self._look = Once(self._take_turn), Once(self._look_for_room)
        super().__init__(*args, **options)

    def soon(self, call: Callable[[], None]) -> None:
        """Call this in the next turn of the worker's loop; one without an event loop looks by itself."""
        if self.loop is not None:
            self.loop.call_soon(call)

    def drain_for_worker(self, timeout: float | None = None) -> Any:
        """As `drain_events`; what has come goes to the worker once nothing more is there, so that the most urgent is first.

        Raises:
            TimeoutError: nothing more is there.
        """
        if self.loop is None:
            for channel in list(self.reading):
                channel.ahead.rest_if_full(time.monotonic())
                channel.go_on()
        if self._has_ahead:
            with suppress(TimeoutError):
                return self._drain(0, is_read=timeout == 0)
            handed = [channel.ahead.hand_over() for channel in list(self.reading)]
            self._look_later()
            if any(handed) or timeout == 0:
                raise TimeoutError
        if self.loop is None and any(channel.ahead.waits_for_room for channel in self.reading):
            timeout = min(timeout or LOOK_EVERY, LOOK_EVERY)  # threads acknowledge, and nothing tells this one
        return self._drain(timeout, is_read=timeout == 0)

    def _drain(self, timeout: float | None, *, is_read: bool) -> Any:
        self._is_read = is_read
        try:
            return self.drain_events(timeout=timeout)
        finally:
            self._is_read = False

    def on_arrived(self) -> None:
        """A message has come; where that was seen by somebody who waits for something else, the loop must be told."""
        if self.loop is not None and not self._is_read:
            self._turn.ask(self.loop.call_soon)

    def _take_turn(self) -> None:
        if self.connected:
            with suppress(TimeoutError):
                self.drain_for_worker(timeout=0)
                self.on_arrived()

    @property
    def _has_ahead(self) -> bool:
        return any(channel.ahead for channel in self.reading)

    def _look_later(self) -> None:
        if self.loop is not None and self._has_ahead:
            self._look.ask(partial(self.loop.call_later, REST_AFTER))

    def _look_for_room(self) -> None:
        if not self.connected:  # another one has taken its place
            return
        for channel in list(self.reading):
            channel.ahead.rest_if_full(time.monotonic())
        self._look_later()


class _Readable:
    """A connection, as kombu's reader needs it."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.drain_events = connection, connection.drain_for_worker

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return bool(self._connection.connected)


class Transport(pyamqp.Transport):
    """With the connections above."""

    Connection = Connection
    _read: Any = None

    def drain_events(self, connection: Any, **options: Any) -> Any:
        """Read, as kombu's loop does without an event loop."""
        return connection.drain_for_worker(**options)

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Read, as the event loop does."""
        if self._read is None:
            self._read = reader_of(self, _Readable(connection))
        self._read(loop)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """As kombu does, and remember the loop."""
        connection.loop = loop
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]  # kombu has few types


class SSLTransport(Transport, pyamqp.SSLTransport):
    """The same, over TLS. The certificate must be one of the host in the address; kombu asks for any that an authority has signed.

    The address may name files, as that of a Redis: `amqps://…?ssl_ca_certs=/path/ca.pem&ssl_certfile=…&ssl_keyfile=…`.
    """

    def establish_connection(self) -> Any:
        """Connect, and check the certificate. Raises: ssl.SSLError: it is another host's, or nobody knows who has signed it."""
        client: Any = self.client
        given = client.ssl if isinstance(client.ssl, dict) else {}
        options = {
            name.removeprefix("ssl_"): value
            for name, value in given.items()  # of the address, or of `broker_use_ssl`, which has names without `ssl_`
            if not name.startswith("ssl_") or name.removeprefix("ssl_") in FILES
        }
        if options.get("cert_reqs", CERT_REQUIRED) != CERT_NONE:
            # That of this turn of a list. A second try keeps it: kombu calls localhost 127.0.0.1 after the first one.
            name = given.get("server_hostname") or client.hostname
            options |= {"cert_reqs": CERT_REQUIRED, "server_hostname": name}
        client.ssl = options
        return super().establish_connection()  # type: ignore[no-untyped-call]  # kombu has few types
