"""What must hold after every step of `test_protocol_states`: the server is as the model says, and what no model may allow."""

from dataclasses import dataclass, field
from typing import Any

from conventions.idempotency.claim_answers import Answer, Busy, Cancelled, Conflict, Done, Granted, Parked, Poison
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from tests.protocol_messages import Delivery, Message
from tests.protocol_model import START_LIMIT, Claim, Entry, Model
from tests.stored_messages import stored

PLACES = ("queue", "delayed", "inflight")
STARTING_OVER = 0  # the fence of a claim that the model has not seen yet


class Look:
    """What is on the server now."""

    def __init__(self, store: Store) -> None:
        redis, prefix = store.redis, store.key("")
        keys: Any = redis.keys(store.key("*"))
        names = [key.decode().removeprefix(prefix) for key in sorted(keys)]
        with redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.xrange(store.key("journal"))
            for name in names:
                key, kind = prefix + name, name.partition(":")[0]
                pipe.pttl(key)
                if kind == "parked":
                    pipe.smembers(key)
                elif kind == "claim":
                    pipe.hgetall(key)
                elif kind in PLACES:
                    pipe.zrange(key, 0, -1, withscores=True)
                else:
                    pipe.type(key)
            (seconds, microseconds), self.journal, *rest = pipe.execute()
        self.now = seconds * 1000 + microseconds // 1000
        self.times = dict(zip(names, rest[::2], strict=True))
        self._values = dict(zip(names, rest[1::2], strict=True))
        messages = [name for name in names if name.startswith("message:")]
        self._values |= {name: stored(store, name.removeprefix("message:")) for name in messages}
        self.holders: Any = redis.hgetall(store.key("receipts"))
        self.started: Any = redis.hgetall(store.key("started"))

    def of(self, kind: str) -> dict[str, Any]:
        """Values by the rest of their keys, such as messages by tag."""
        return {
            name.removeprefix(f"{kind}:"): value for name, value in self._values.items() if name.startswith(f"{kind}:")
        }

    def parked(self) -> dict[str, set[str]]:
        """Tags by claim."""
        return {
            name.removeprefix("parked:T:"): {tag.decode() for tag in value}
            for name, value in self._values.items()
            if name.startswith("parked:")
        }


def compare(look: Look, model: Model) -> None:
    """The server is as the model says."""
    there = look.of("message")
    assert set(there) == set(model.messages)
    places: list[tuple[str, str, str, bool]] = []
    for place in PLACES:
        for queue, members in look.of(place).items():
            places += [(tag.decode(), queue, place, place != "queue" and score <= look.now) for tag, score in members]
    # Each tag is in one place, and none without a message is in any.
    assert sorted(places) == sorted((tag, one.spec.queue, one.place, one.over) for tag, one in model.messages.items())
    for tag, found in there.items():
        _compare_message(found, model.messages[tag])
    # What nobody holds has no receipt.
    assert {tag.decode() for tag in look.holders} == {
        tag for tag, one in model.messages.items() if one.place == "inflight"
    }
    assert set(look.started) <= set(look.holders)
    claims = look.of("claim")
    assert {name.removeprefix("T:") for name in claims} == set(model.claims)
    for key, claim in model.claims.items():
        _compare_claim(claims[f"T:{key}"], claim, look.now)
    assert look.parked() == {key: tags for key, tags in model.parked.items() if tags}
    assert set(look.of("cancel")) == set(model.cancelled)
    assert [_entry(*one) for one in look.journal] == model.journal
    lasting = {name for name, left in look.times.items() if left < 0}
    assert {name.partition(":")[0] for name in lasting} <= {
        "message", *PLACES, "receipts", "started", "wake", "queues", "sequence", "journal"
    }  # fmt: skip


def _compare_message(found: dict[str, bytes], message: Message) -> None:
    receipt = found.get("receipt")
    assert (receipt is not None) == (message.place == "inflight"), "a receipt exists while somebody holds the message"
    assert receipt == (message.receipt and message.receipt.encode())
    assert (found.get("started") == receipt is not None) if message.started else "started" not in found
    delivered = receipt is not None and not message.started
    assert int(found.get("deliveries", 0)) + delivered == message.deliveries
    assert int(found.get("attempt", 0)) == message.written
    assert found["payload"] == message.spec.payload.encode()


def _compare_claim(found: dict[bytes, bytes], claim: Claim, now: int) -> None:
    if claim.fence == STARTING_OVER:
        claim.fence = int(found[b"fence"])
    texts = {name.decode(): value.decode() for name, value in found.items()}
    assert texts.get("token") == claim.token
    assert [texts[name] for name in ("state", "id", "fingerprint")] == [claim.state, claim.id, claim.fingerprint]
    numbers = [int(texts[name]) for name in ("generation", "attempt", "fence", "starts", "followed")]
    assert numbers == [claim.generation, claim.attempt, claim.fence, claim.starts, claim.followed]
    assert claim.state in ("done", "dead") or (int(texts["until"]) <= now) == claim.over
    assert claim.state != "done" or int(texts["result"]) == claim.result


def _entry(_: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(Event.decode(fields[b"event"]).id, fields.get(b"refused") == b"1", b"message" in fields)


@dataclass
class Watch:
    """What must hold whatever the model says: one holder, rising fences, bounded starts, a done claim stays done."""

    fences: dict[str, int] = field(default_factory=dict)
    holders: dict[str, tuple[str, bool]] = field(default_factory=dict)  # token, and whether it may run
    starts: dict[str, int] = field(default_factory=dict)
    done: dict[str, tuple[str, int | None]] = field(default_factory=dict)

    def answered(self, asked: Delivery, answer: Answer, before: Claim | None) -> None:
        """A request was answered while its claim was `before`."""
        match answer:
            case Granted() | Poison():
                self._granted(asked, answer, before)
            case Done():
                assert before is not None
                followed = before.followed and before.id == asked.spec.id
                assert (answer.result, answer.message_id, answer.follow_ups_sent) == (
                    before.result,
                    before.id,
                    followed,
                )
            case Cancelled() if before and Model.is_voided(asked, before):
                self.holders.pop(asked.spec.key, None)
                self.starts[asked.spec.key] = 0
            case Conflict():
                assert before is not None
                assert answer.message_id == before.id
            case Parked() | Busy():
                assert 0 <= answer.wait <= 30

    def _granted(self, asked: Delivery, answer: Granted | Poison, before: Claim | None) -> None:
        key, runs = asked.spec.key, isinstance(answer, Granted)
        holder = self.holders.get(key)
        if holder and holder[0] == asked.token:
            assert before is not None
            assert (answer.fence, runs) == (before.fence, holder[1])
            return
        assert holder is None or before is None or before.over, "a second holder"
        assert answer.fence > self.fences.get(key, 0)
        self.fences[key] = answer.fence
        self.holders[key] = (asked.token, runs)
        self.starts[key] = self.starts.get(key, 0) + runs
        assert self.starts[key] <= START_LIMIT
        assert not runs or answer.starts == self.starts[key]

    def given_back(self, delivery: Delivery, *, counted: bool) -> None:
        """A job ended without an outcome."""
        key = delivery.spec.key
        token, ran = self.holders.get(key, ("", False))
        if delivery.granted and token == delivery.token:
            del self.holders[key]
            self.starts[key] -= ran and not counted

    def settled(self, ended: Delivery, answer: str, state: str, result: int, before: Claim | None) -> None:
        """An outcome was recorded for a claim that was `before` before, or refused."""
        key = ended.spec.key
        if answer == "refused":
            assert before is not None
            assert before.token != ended.token
        elif before is None or before.token is None or before.runs_for(ended):
            self.holders.pop(key, None)
            self.starts[key] = 0
            if state == "done":
                self.done[key] = (ended.spec.id, result)

    def flushed(self) -> None:
        """What was promised on the strength of the server's memory is void, but for fences."""
        self.holders.clear()
        self.starts.clear()
        self.done.clear()

    def check(self, model: Model) -> None:
        """After every step."""
        for key, claim in model.claims.items():
            assert claim.fence >= self.fences.get(key, 0)
            self.fences[key] = claim.fence
        for key, ended in self.done.items():
            claim = model.claims[key]
            assert (claim.state, (claim.id, claim.result)) == ("done", ended)
