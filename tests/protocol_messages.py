"""The messages of `protocol_model.py`: where each is, and in whose hands."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from conventions.broker import delivery
from conventions.broker.header_names import READY_AT

Place: TypeAlias = Literal["queue", "delayed", "inflight"]


@dataclass(frozen=True)
class Spec:
    """A message as it is sent; `attempt` is above 1 for a copy that goes on elsewhere."""

    id: str
    key: str
    fingerprint: str
    queue: str
    generation: int = 0
    attempt: int = 1
    old: bool = False  # sent before what is remembered

    @property
    def payload(self) -> str:
        """What the broker stores."""
        return f'"{self}"'


QUEUES = ("a", "b")
SPECS = (
    Spec("m1", "k1", "f", "a"),
    Spec("m2", "k1", "f", "b"),
    Spec("m3", "k1", "g", "a"),
    Spec("m4", "k2", "f", "b"),
)


@dataclass
class Message:
    """A message in the broker."""

    tag: str
    spec: Spec
    digest: str
    place: Place
    over: bool = False  # it is due, or its visibility is over
    receipt: str | None = None
    started: bool = False
    ended: bool = False  # a dead letter, kept until its task has heard of it
    deliveries: int = 0
    written: int = 0  # attempt of the next delivery, as the settle script wrote it
    carried: int = 0  # the same, among the changed headers

    def move(self, place: Place, *, over: bool = False) -> None:
        """Put it into a place out of a worker's hands."""
        self.place, self.over, self.receipt, self.started = place, over, None, False


@dataclass
class Delivery:
    """A message in the hands of a worker, whether they still count or not."""

    tag: str  # empty where the broker is elsewhere
    receipt: str
    spec: Spec
    attempt: int
    worker: int
    granted: bool = False

    @property
    def token(self) -> str:
        """Of its claim: one for each delivery."""
        return self.receipt


@dataclass
class Messages:
    """Messages by tag, cancel marks by id: the generation that must not run, and those before it."""

    messages: dict[str, Message] = field(default_factory=dict)
    cancelled: dict[str, int] = field(default_factory=dict)

    def holds(self, delivery: Delivery) -> bool:
        """Whether its receipt is the present one."""
        message = self.messages.get(delivery.tag)
        return message is not None and message.receipt == delivery.receipt

    def published(self, spec: Spec, digest: str, other: str, *, wait: bool) -> str:
        """A message is sent; returns its tag, or nothing where it is there already."""
        tag, there = spec.id, self.messages.get(spec.id)
        if there:
            if (there.digest, there.spec.generation) == (digest, spec.generation) or other in self.messages:
                return ""
            tag = other
        self.messages[tag] = Message(tag, spec, digest, "delayed" if wait else "queue")
        return tag

    def ready(self, queue: str) -> int:
        """How many messages may be handed out."""
        waiting = (one for one in self.messages.values() if one.spec.queue == queue)
        return sum(one.place == "queue" or (one.place == "delayed" and one.over) for one in waiting)

    def handed_out(self, found: delivery.Delivery, worker: int) -> Delivery:
        """Compare a message that was handed out with what it must be."""
        message = self.messages[found.tag.decode()]
        spec = message.spec
        assert (message.place, message.receipt) == ("queue", None)
        message.place, message.receipt, message.deliveries = "inflight", found.receipt, message.deliveries + 1
        assert (found.queue, found.payload) == (spec.queue, spec.payload.encode())
        assert found.deliveries == message.deliveries
        changes = {
            name: value for name, value in found.changes.items() if name != READY_AT
        }  # see `test_ready_again.py`
        assert changes == ({"attempt": message.carried} if message.carried else {})
        return Delivery(message.tag, found.receipt, spec, message.carried or spec.attempt, worker)

    def promote(self, queues: Iterable[str]) -> None:
        """What is due becomes ready."""
        for message in self.messages.values():
            if message.place == "delayed" and message.over and message.spec.queue in queues:
                message.move("queue")

    def swept(self) -> int:
        """What is due and what nobody looks after becomes ready; returns how many of the latter, in one queue."""
        lapsed = [one for one in self.messages.values() if one.place == "inflight" and one.over]
        self.promote({one.spec.queue for one in self.messages.values()})
        for message in lapsed:
            message.move("queue")
        queues = [one.spec.queue for one in lapsed]
        return max(map(queues.count, queues), default=0)

    def forgotten(self, queue: str) -> int:
        """The server does not know which of a queue's messages are in flight, until it is told; returns how many these are."""
        held = [one for one in self.messages.values() if one.spec.queue == queue and one.place == "inflight"]
        for message in held:
            message.over = False
        return len(held)

    def found_again(self, tag: str) -> None:
        """A message that was in no set."""
        message = self.messages[tag]
        message.over = False
        if message.place == "delayed":
            message.move("queue")

    def cancel(self, id: str) -> str:  # noqa: A002  # as `Message.id`
        """Mark a message; returns the answer."""
        message = self.messages.get(id)
        self.cancelled[id] = message.spec.generation if message else 0
        if message is None:
            return "too late"
        if message.place == "delayed":
            message.move("queue")
        return "running" if message.started else "queued"

    def is_cancelled(self, spec: Spec) -> bool:
        """Whether this generation must not run."""
        return self.cancelled.get(spec.id, -1) >= spec.generation

    def purged(self, queue: str) -> set[str]:
        """The waiting messages of a queue are removed; returns their tags."""
        gone = {tag for tag, one in self.messages.items() if one.spec.queue == queue and one.place != "inflight"}
        for tag in gone:
            del self.messages[tag]
        return gone

    def remove(self, delivery: Delivery) -> bool:
        """A message ends, in whose hands it is."""
        if not self.holds(delivery):
            return False
        del self.messages[delivery.tag]
        return True
