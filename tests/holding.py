"""What a process holds, for the tests of `InFlight`: its registry, its messages, and a server that can be stopped."""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

from conventions.broker.delivery import Delivery
from conventions.broker.in_flight import InFlight
from conventions.broker.redis_broker import Broker, HeartbeatAnswer, HeldMessage, Swept
from conventions.idempotency.claims import Claims
from conventions.storage.redis_store import Store
from tests.claiming import asking, granted, handed_out, message
from tests.redis_servers import free_port, process, wait_for_server


class Telling(Broker):
    """Notes the heartbeats and the sweeps that came through."""

    def __init__(self, store: Store, visibility: float) -> None:
        super().__init__(store, journal_limit=1000, visibility=visibility)
        self.told: list[str] = []

    def heartbeat(self, messages: Sequence[HeldMessage]) -> list[HeartbeatAnswer]:
        """Keep messages."""
        answers = super().heartbeat(messages)
        self.told.append("heartbeat")
        return answers

    def sweep(self, queues: Collection[str] = ()) -> Swept:
        """Sweep."""
        swept = super().sweep(queues)
        self.told.append("sweep")
        return swept


def broker_of(registry: InFlight) -> Telling:
    """The messages of a process."""
    assert isinstance(registry._broker, Telling)
    return registry._broker


def hold(registry: InFlight, tag: str = "m1") -> Delivery:
    """Send a message, and let the process take it."""
    broker = broker_of(registry)
    broker.publish([message(tag)])
    registry.add(delivery := handed_out(broker))
    return delivery


def start(registry: InFlight, delivery: Delivery, store: Store, lapsed: Callable[[], bool] = lambda: False) -> Claims:
    """The job of a message begins."""
    claims = Claims(store, lease=30)
    request = asking(delivery)
    granted(claims, request)
    registry.begin(delivery.receipt, request.claim, request.token, lapsed)
    return claims


class Server:
    """A server that writes what it has to disk, and can be stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._running = ExitStack()
        self.store = Store(f"redis://127.0.0.1:{self._port}/0", "t")
        self.start()

    def start(self) -> None:
        """Start it, with what it had."""
        lines = [f"port {self._port}", "appendonly yes", "appendfsync always"]
        self._running.enter_context(process(self._folder, lines))
        wait_for_server(self._folder, self._port)

    def stop(self) -> None:
        """Kill it."""
        self._running.close()
