"""The server's side of `test_protocol_states`: the calls of workers and senders, and accidents."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from conventions.broker.delivery import Delivery as HandedOut
from conventions.broker.redis_broker import Broker, HeldMessage, Publication
from conventions.broker.waiting_messages import End, end, look
from conventions.execution.purge_queues import PLACES
from conventions.idempotency.claim_answers import Answer
from conventions.idempotency.claims import ClaimRequest, Claims, Settlement
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from conventions.storage.script_call import ScriptCall
from tests.protocol_messages import Delivery, Message, Spec
from tests.protocol_model import START_LIMIT, Claim

LONG = 1000.0  # seconds, longer than a run
HORIZON = timedelta(days=8)
KINDS = {"done": "succeeded", "retry": "retried", "dead": "dead", "remove": "revoked"}

OUTCOMES = (
    ("done", "remove"),
    ("done", "keep"),
    ("released", "retry"),
    ("released", "park"),
    ("released", "remove"),
    ("continued", "park"),
    ("dead", "remove"),
    ("dead", "keep"),
)


class Resending(Broker):
    """Can send the very arguments of an earlier call again, as a client does that lost the reply."""

    again: Sequence[Any] = ()
    last: Sequence[Any] = ()
    sent = 0

    def _publish_arguments(self, publications: Sequence[Publication]) -> list[Any]:
        # Not by chance: what is due at the same time comes in the order of the tags, and a run must be repeatable.
        (journal_limit, _, *rest), self.sent = super()._publish_arguments(publications), self.sent + 1
        return [journal_limit, f"~{self.sent:08}", *rest]

    def _run(self, script: str, arguments: Sequence[Any]) -> Any:
        self.last, self.again = self.again or arguments, ()
        return super()._run(script, self.last)

    def ask_publish(self, publications: Sequence[Publication]) -> ScriptCall:
        """Send messages, or those of an earlier call."""
        self.last, self.again = self.again or self._publish_arguments(publications), ()
        return self.store.call("publish", self.last)


class Server:
    """One application on a real server."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broker = Resending(store, journal_limit=10**6, visibility=LONG)
        self.claims = Claims(store, lease=LONG, start_limit=START_LIMIT)

    # Calls.

    def publish(self, spec: Spec, digest: str, *, wait: bool, again: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Send a message; returns its tag, and what was sent."""
        self.broker.again = again
        due = LONG if wait else 0
        (tag,) = self.broker.publish([Publication(spec.id, spec.queue, spec.payload, 3, due, digest, spec.generation)])
        return tag, self.broker.last

    def reserve(self, queue: str, count: int, *, again: bool) -> list[HandedOut]:
        """Take messages; `again` repeats the last call."""
        self.broker.again = self.broker.last if again else ()
        return self.broker.reserve([queue], count)

    def _held(self, delivery: Delivery, *, followed: bool = False) -> HeldMessage:
        spec = delivery.spec
        job = (f"T:{spec.key}", delivery.token) if delivery.granted else ("", "")
        return HeldMessage(delivery.tag, spec.queue, delivery.receipt, *job, spec.id if followed else "")

    def heartbeat(self, delivery: Delivery) -> str:
        """Keep a message."""
        (answer,) = self.broker.heartbeat([self._held(delivery)])
        return answer

    def give_back(self, delivery: Delivery, *, counted: bool, wait: bool) -> bool:
        """Return a message."""
        returned = self.broker.give_back([self._held(delivery)], counted=counted, wait=LONG if wait else 0)
        return bool(returned)

    def acknowledge(self, delivery: Delivery, *, followed: bool) -> bool:
        """Remove a message."""
        held = self._held(delivery, followed=followed)
        if followed and not held.claim:
            held = HeldMessage(held.tag, held.queue, held.receipt, f"T:{delivery.spec.key}", "", delivery.spec.id)
        return bool(self.broker.acknowledge([held]))

    def _request(self, delivery: Delivery) -> ClaimRequest:
        spec = delivery.spec
        sent_at = datetime.now(UTC) - (HORIZON + timedelta(hours=1) if spec.old else timedelta())
        return ClaimRequest(
            "T",
            spec.key,
            delivery.token,
            spec.id,
            spec.fingerprint,
            generation=spec.generation,
            attempt=delivery.attempt,
            sent_at=sent_at,
            horizon=HORIZON,
            held=self._held(delivery) if delivery.tag else None,
        )

    def take(self, delivery: Delivery) -> Answer:
        """Ask for the claim."""
        (answer,) = self.claims.take([self._request(delivery)])
        return answer

    def renew(self, delivery: Delivery) -> bool:
        """Extend the lease."""
        (answer,) = self.claims.renew([self._request(delivery)])
        return answer

    def cancel(self, id: str) -> str:  # noqa: A002  # as `Spec.id`
        """Cancel a message."""
        return self.broker.cancel(id, HORIZON)

    def _event(self, delivery: Delivery, kind: str) -> Event:
        spec = delivery.spec
        return Event(
            spec.id, kind, generation=spec.generation, attempt=delivery.attempt, token=delivery.token, key=spec.key
        )

    def settle(self, ended: Delivery, outcome: tuple[Any, Any], *, wait: bool, result: int) -> tuple[str, str]:
        """Record how a job ended; returns the answer, and the id of the event."""
        state, action = outcome
        kind = KINDS.get(state) or KINDS.get(action)
        event = self._event(ended, kind) if kind else None
        changes = {"attempt": ended.attempt + 1} if action == "retry" else {}
        due = LONG if wait else 0
        (answer,) = self.claims.settle([Settlement(self._request(ended), state, event, result, due, action, changes)])
        return answer, event.id if event else ""

    def end_without_claim(self, ended: Delivery, kind: str) -> str:
        """Record the end of a message that did not run; returns the id of the event."""
        event = self._event(ended, kind)
        state: Any = "dead" if kind == "dead" else "released"
        (answer,) = self.claims.settle([Settlement(self._request(ended), state, event, claimed=False)])
        assert answer == "recorded"
        return event.id

    def purge(self, queue: str) -> list[tuple[str, str]]:
        """Remove what waits in a queue; returns the tags, and the ids of the events, in their order."""
        purged = []
        for place in PLACES:
            found = look(self.broker, queue, place)
            events = [Event(one.message_id, "purged", token=one.score.decode()) for one in found]
            ends = [End(event.message_id, event.encode(None)) for event in events]
            assert all(end(self.store, list(zip(found, ends, strict=True))))
            purged += [(one.tag.decode(), event.id) for one, event in zip(found, events, strict=True)]
        return purged

    # Time, and accidents.

    def end_time(self, name: str, one: Claim | Message) -> None:
        """Let the time of a claim, of a delayed message, or of one in flight be over."""
        if isinstance(one, Claim):
            self.store.redis.hset(self.store.key("claim", "T", name), "until", 1)
        else:
            self.store.redis.zadd(self.store.key(one.place, one.spec.queue), {name: 1}, xx=True)

    def hold_time_still(self, parked: Delivery, at_most: float = 30.3) -> None:
        """Check when a message that waits is due, and let it wait until the test says that it is."""
        key = self.store.key("delayed", parked.spec.queue)
        seconds, microseconds = self.store.redis.time()
        now = seconds + microseconds / 1e6
        due: Any = self.store.redis.zscore(key, parked.tag)
        assert due / 1000 < now + at_most
        self.store.redis.zadd(key, {parked.tag: (now + LONG) * 1000}, xx=True)

    def misplace(self, tag: str, queue: str) -> None:
        """Take a message out of whatever set it is in."""
        for place in ("queue", "delayed", "inflight"):
            self.store.redis.zrem(self.store.key(place, queue), tag)

    def flush(self, what: str) -> None:
        """Lose keys."""
        if keys := self.store.redis.keys(self.store.key(what)):
            self.store.redis.delete(*keys)
