"""Messages and claims for the tests of the scripts, and what these tests do with them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from conventions.broker.delivery import Delivery
from conventions.broker.redis_broker import Broker, HeldMessage, Publication
from conventions.broker.simple_message import plain
from conventions.idempotency.claim_answers import Answer, Granted
from conventions.idempotency.claim_reading import read_claim
from conventions.idempotency.claims import ClaimRequest, Claims, Settled, Settlement
from conventions.idempotency.interrupted_start import InterruptedStart
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from tests.support import wait_until

HORIZON = timedelta(days=8)
FIRST = ClaimRequest("Task", "key", token="t1", message_id="m1", fingerprint="f", horizon=HORIZON)
OTHER = replace(FIRST, token="t2", message_id="m2")
"""Another message of the same job."""
AGAIN = replace(FIRST, token="t1-again")
"""The same message, delivered once more."""


def message(tag: str, queue: str = "q", priority: int = 3, wait: float = 0.0, **more: Any) -> Publication:
    """A message to be sent; its payload is its tag."""
    return Publication(tag, queue, tag, priority, wait, **more)


def handed_out(broker: Broker, queue: str = "q") -> Delivery:
    """The next message of a queue."""
    (delivery,) = broker.reserve([queue], 1)
    return delivery


def handed_over(delivery: Delivery) -> tuple[Any, ...]:
    """A plain message, as the main process hands it to one of its pool together with others."""
    message = plain(delivery.payload)
    assert message is not None
    return tuple(delivery), message.task, message.kwargs, message.told


def held(delivery: Delivery, request: ClaimRequest | None = None) -> HeldMessage:
    """A message in hand, of a job that has started where there is a request."""
    claim, token = (request.claim, request.token) if request else ("", "")
    return HeldMessage(delivery.tag.decode(), delivery.queue, delivery.receipt, claim, token)


def asking(delivery: Delivery, request: ClaimRequest = FIRST, **changes: Any) -> ClaimRequest:
    """The request for the claim of a message in hand; its receipt is its token."""
    return replace(request, token=delivery.receipt, held=held(delivery), **changes)


def take(claims: Claims, request: ClaimRequest) -> Answer:
    """Ask for one claim."""
    (answer,) = claims.take([request])
    return answer


def settle(claims: Claims, request: ClaimRequest, state: Any = "done", result: Any = None, **how: Any) -> Settled:
    """Settle one claim, with an event unless `event` is `None`."""
    event = how.pop("event", Event(request.message_id, state, token=request.token, attempt=request.attempt))
    (answer,) = claims.settle([Settlement(request, state, event, result, **how)])
    return answer


def granted(claims: Claims, request: ClaimRequest) -> int:
    """The fence of a claim that must be granted."""
    answer = take(claims, request)
    assert isinstance(answer, Granted), answer
    return answer.fence


def later(claims: Claims, request: ClaimRequest) -> int:
    """The fence of a claim that is granted when what blocks it has lapsed."""
    found: list[Answer] = []

    def asked() -> bool:
        found[:] = [take(claims, request)]
        return isinstance(found[0], Granted)

    wait_until(asked, 5, "the claim is granted")
    assert isinstance(found[0], Granted)
    return found[0].fence


def claim_key(store: Store, request: ClaimRequest = FIRST) -> str:
    """Where a claim is."""
    return store.key("claim", request.claim)


def fields_of(store: Store, claim: str) -> dict[bytes, bytes]:
    """All that a claim holds; one that is a string is a hash from now on."""
    store.run("claim_of", [claim])
    found: Any = store.redis.hgetall(store.key("claim", claim))
    return dict(found)


def claim_fields(store: Store, request: ClaimRequest = FIRST) -> dict[bytes, bytes]:
    """The same, of the claim that a request is for."""
    return fields_of(store, request.claim)


def kept_by(claims: Claims, request: ClaimRequest = FIRST) -> tuple[InterruptedStart, ...]:
    """The starts without an outcome that a claim keeps."""
    found = read_claim(claims.store, request.claim)
    assert found is not None
    return found.interrupted


def end_lease(store: Store, request: ClaimRequest = FIRST) -> None:
    """The lease, or the back-off, of a claim is over."""
    claim_fields(store, request)
    store.redis.hset(claim_key(store, request), "until", 1)


def end_wait(store: Store, tag: str, place: str, queue: str = "q") -> None:
    """The wait of a message is over: it is `delayed`, or nothing was heard of it `inflight`."""
    assert store.redis.zadd(store.key(place, queue), {tag: 1}, xx=True, ch=True)


def due_in(store: Store, tag: str, place: str = "delayed", queue: str = "q") -> float:
    """Seconds until the wait of a message is over, by the server's clock."""
    seconds, microseconds = store.redis.time()
    score: Any = store.redis.zscore(store.key(place, queue), tag)
    assert score is not None, f"{tag} is not {place}"
    return float(score / 1000 - seconds - microseconds / 1e6)


def places(store: Store, tag: str, queue: str = "q") -> list[str]:
    """Where a message is: one place, or none when it is gone."""
    names = ("queue", "delayed", "inflight")
    with store.redis.pipeline() as pipe:
        for name in names:
            pipe.zscore(store.key(name, queue), tag)
        pipe.exists(store.key("message", tag))
        *scores, is_there = pipe.execute()
    found = [name for name, score in zip(names, scores, strict=True) if score is not None]
    assert len(found) == is_there
    return found


def sent(broker: Broker, tag: str = "m1", **more: Any) -> Delivery:
    """Send a message and take it."""
    broker.publish([message(tag, **more)])
    return handed_out(broker)


def once_more(broker: Broker, store: Store, tag: str = "m1") -> Delivery:
    """Nothing was heard of the message for a while, so that it goes to another worker."""
    end_wait(store, tag, "inflight")
    broker.sweep()
    return handed_out(broker)
