"""The claim scripts as a state machine: random interleavings of workers, lapses, lost replies and flushes."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conventions.idempotency import (
    Answer,
    Busy,
    Cancelled,
    ClaimRequest,
    Claims,
    Conflict,
    Done,
    Granted,
    Settlement,
)
from conventions.store import Store

MESSAGES = {"m1": "f", "m2": "f", "m3": "other"}  # by id, the fingerprint
State = Literal["running", "done", "released", "dead"]


@dataclass
class Claim:
    """What the server should hold."""

    state: State
    token: str
    owner: str
    fence: int
    lapsed: bool = False
    result: int | None = None

    @property
    def fingerprint(self) -> str:
        return MESSAGES[self.owner]


@dataclass
class Model:
    """What should be, and what was granted to whom."""

    claim: Claim | None = None
    cancelled: set[str] = field(default_factory=set)
    deliveries: list[ClaimRequest] = field(default_factory=list)
    highest_fence: int = 0

    def expected(self, request: ClaimRequest) -> type[Answer]:
        """How the server must answer (protocol, section 4)."""
        claim = self.claim
        if request.message_id in self.cancelled:
            return Cancelled
        if claim is None or claim.state == "dead":
            return Granted
        mine = claim.owner == request.message_id
        if not mine and claim.fingerprint != request.fingerprint:
            return Conflict
        if claim.state == "done":
            return Done
        held = claim.token != request.token if claim.state == "running" else not mine
        return Busy if held and not claim.lapsed else Granted


class ClaimStates(RuleBasedStateMachine):
    """One key, three messages, any number of deliveries."""

    store: Store

    @initialize()
    def begin(self) -> None:
        """A key that nobody used before."""
        self.claims = Claims(self.store, lease=1000, keep=timedelta(days=8))
        self.name = uuid4().hex
        self.model = Model()

    @property
    def key(self) -> str:
        return self.store.key("claim", "Task", self.name)

    def ask(self, request: ClaimRequest) -> None:
        """Ask for the claim and compare the answer."""
        before = self.model.claim
        (answer,) = self.claims.take([request])
        assert type(answer) is self.model.expected(request)
        if isinstance(answer, Done):
            assert before is not None
            assert (answer.result, answer.message_id) == (before.result, before.owner)
        if isinstance(answer, Conflict):
            assert before is not None
            assert answer.message_id == before.owner
        if isinstance(answer, Granted):
            again = before is not None and before.state == "running" and before.token == request.token
            if again and before is not None:
                assert answer.fence == before.fence
            else:
                assert answer.fence > self.model.highest_fence
                self.model.highest_fence = answer.fence
            self.model.claim = Claim("running", request.token, request.message_id, answer.fence)

    @rule(message=st.sampled_from(sorted(MESSAGES)))
    def deliver(self, message: str) -> None:
        """The broker hands a message to a worker."""
        message_id = f"{message}-{self.name}" if message in self.model.cancelled else message
        request = ClaimRequest("Task", self.name, uuid4().hex, message_id, MESSAGES[message])
        self.model.deliveries.append(request)
        self.ask(request)

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """A worker lost the reply, or woke up after a long sleep, and asks with the token it has."""
        self.ask(data.draw(st.sampled_from(self.model.deliveries)))

    @precondition(lambda self: self.model.deliveries)
    @rule(
        data=st.data(),
        state=st.sampled_from(["done", "released", "dead"]),
        result=st.integers(0, 9),
        wait=st.booleans(),
    )
    def settle(self, data: st.DataObject, state: State, result: int, wait: bool) -> None:
        """A worker reports an outcome, whether it still holds the claim or not; perhaps it does so twice."""
        request = data.draw(st.sampled_from(self.model.deliveries))
        settlement = Settlement(request, state, result, 1000 if wait else 0)  # type: ignore[arg-type]  # never running
        claim = self.model.claim
        holds = claim is not None and claim.token == request.token
        for _ in range(data.draw(st.integers(1, 2))):
            assert self.claims.settle([settlement]) == [holds]
        if claim is not None and holds and claim.state == "running":
            claim.state, claim.result = state, result
            claim.lapsed = not wait

    @precondition(lambda self: self.model.deliveries)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A heartbeat, perhaps of a worker that lost its claim."""
        request = data.draw(st.sampled_from(self.model.deliveries))
        claim = self.model.claim
        holds = claim is not None and claim.token == request.token and claim.state == "running"
        assert self.claims.renew([request]) == [holds]
        if claim is not None and holds:
            claim.lapsed = False

    @precondition(lambda self: self.model.claim is not None)
    @rule()
    def time_passes(self) -> None:
        """The lease, or the back-off, is over."""
        assert self.model.claim is not None
        self.store.redis.hset(self.key, "until", 1)
        self.model.claim.lapsed = True

    @precondition(lambda self: self.model.claim is not None)
    @rule()
    def lose_everything(self) -> None:
        """The store was emptied."""
        self.store.redis.delete(self.key)
        self.model.claim = None

    @invariant()
    def the_server_agrees(self) -> None:
        """Holder, state and life of the key are those of the model."""
        if not hasattr(self, "model"):
            return
        held: Any = self.store.redis.hgetall(self.key)
        claim = self.model.claim
        if claim is None:
            assert held == {}
            return
        assert (held[b"state"].decode(), held[b"token"].decode()) == (claim.state, claim.token)
        assert int(held[b"fence"]) == claim.fence
        assert int(self.store.redis.ttl(self.key)) > 7 * 86400


@pytest.fixture
def machine(store: Store) -> type[ClaimStates]:
    """The machine, on a store of its own."""
    return type("Machine", (ClaimStates,), {"store": store})


def test_no_interleaving_breaks_a_claim(machine: type[ClaimStates]) -> None:
    """Whatever happens in whatever order: one holder, rising fences, a done job stays done."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
