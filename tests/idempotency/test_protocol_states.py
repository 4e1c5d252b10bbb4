"""Messages and claims as one state machine: the real scripts on a real server, in random interleavings.

Workers crash, replies are lost (a script runs twice, also later), leases and visibilities end, copies and duplicates come,
receipts go stale, the server is emptied. `protocol_model.py` says what must be.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
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

from conventions.idempotency.claim_answers import Answer, Parked
from conventions.storage.redis_store import Store
from tests.protocol_look import Look, Watch, compare
from tests.protocol_messages import QUEUES, SPECS, Delivery, Spec
from tests.protocol_model import Entry, Model
from tests.protocol_server import OUTCOMES, Server
from tests.redis_servers import redis_server

HANDS = precondition(lambda self: self.hands)
WORKERS = st.integers(0, 2)
MOSTLY = st.sampled_from([False, True, True])
SELDOM = st.sampled_from([False] * 3 + [True])


class Protocol(RuleBasedStateMachine):
    """Four messages of two keys, three workers."""

    store: Store

    @initialize()
    def begin(self) -> None:
        """An application that nobody used before."""
        self.server = Server(self.store)
        self.model = Model()
        self.watch = Watch()
        self.hands: list[Delivery] = []
        self.sent: list[Callable[[], None]] = []
        self.generations: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.flush("*")

    def send(self, call: Callable[[], None]) -> None:
        """Make a call, which may be made again."""
        call()
        self.sent = [*self.sent[-9:], call]

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def reply_was_lost(self, data: st.DataObject) -> None:
        """The client sends one of the last calls again, as it was."""
        data.draw(st.sampled_from(self.sent))()

    def one_of(self, data: st.DataObject) -> Delivery:
        """A delivery, most often one that counts."""
        held = [one for one in self.hands if self.model.holds(one)]
        return data.draw(st.sampled_from(held if held and not data.draw(SELDOM) else self.hands[-6:]))

    # Sending.

    @rule(spec=st.sampled_from(SPECS), wait=st.booleans(), old=SELDOM)
    def publish(self, spec: Spec, wait: bool, old: bool) -> None:
        """A message is sent, or sent again."""
        self._publish(replace(spec, generation=self.generations.get(spec.id, 0), old=old), wait=wait)

    @HANDS
    @rule(data=st.data(), more=st.integers(0, 1), wait=st.booleans())
    def publish_copy(self, data: st.DataObject, more: int, wait: bool) -> None:
        """A worker sends the message that it has under its id once more, for the same attempt or the next."""
        delivery = self.one_of(data)
        self._publish(replace(delivery.spec, attempt=delivery.attempt + more), wait=wait, digest=uuid4().hex)

    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        """A message, a dead letter if there is one, is sent with a higher generation and a corrected payload."""
        dead = {claim.id for claim in self.model.claims.values() if claim.state == "dead"}
        spec = data.draw(st.sampled_from([one for one in SPECS if one.id in dead] or SPECS))
        generation = self.generations[spec.id] = self.generations.get(spec.id, 0) + 1
        self._publish(replace(spec, generation=generation, fingerprint=f"{spec.fingerprint}{generation % 2 or ''}"))

    def _publish(self, spec: Spec, *, wait: bool = False, digest: str = "") -> None:
        digest = digest or f"{spec.fingerprint}{spec.old}"
        sent: list[Any] = []

        def call() -> None:
            tag, sent[:] = self.server.publish(spec, digest, wait=wait, again=tuple(sent))
            assert tag == self.model.published(spec, digest, f"{spec.id}{sent[1]}", wait=wait)

        self.send(call)

    # Reading.

    @precondition(lambda self: any(map(self.model.ready, QUEUES)))
    @rule(data=st.data(), worker=WORKERS, count=st.integers(1, 3), lost=SELDOM, begin=MOSTLY)
    def reserve(self, data: st.DataObject, worker: int, count: int, lost: bool, begin: bool) -> None:
        """A worker takes messages, and perhaps begins; where the reply is lost, nobody knows of them."""
        queue = data.draw(st.sampled_from([queue for queue in QUEUES if self.model.ready(queue)]))
        self.model.promote([queue])
        for received in [False, True] if lost else [True]:
            ready = self.model.ready(queue)
            found = self.server.reserve(queue, count, again=lost and received)
            assert len(found) == min(count, ready)
            for one in found:
                delivery = self.model.handed_out(one, worker)
                if received:
                    self.hands.append(delivery)
                    if begin:
                        self._claim(delivery)

    @HANDS
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        """A worker keeps what it holds; what it does not hold any more is lost to it."""
        delivery = self.one_of(data)
        assert self.server.heartbeat(delivery) == self.model.beat(delivery)

    @rule()
    def sweep(self) -> None:
        """What is due and what is left alone becomes ready."""
        assert self.server.broker.sweep().recovered == self.model.swept()

    @HANDS
    @rule(data=st.data(), counted=st.booleans(), wait=st.booleans())
    def give_back(self, data: st.DataObject, counted: bool, wait: bool) -> None:
        """In good order, or after the death of the job's process."""
        delivery = self.one_of(data)

        def call() -> None:
            self.watch.given_back(delivery, counted=counted)
            returned = self.model.give_back(delivery, counted=counted, wait=wait)
            assert self.server.give_back(delivery, counted=counted, wait=wait) == returned

        self.send(call)

    @HANDS
    @rule(data=st.data(), followed=st.booleans())
    def acknowledge(self, data: st.DataObject, followed: bool) -> None:
        """With a fresh receipt, or a stale one."""
        delivery = self.one_of(data)

        def call() -> None:
            held = self.model.holds(delivery)
            removed = self.model.acknowledge(delivery, followed=followed)
            assert self.server.acknowledge(delivery, followed=followed) == removed
            if held and not removed:
                self.server.hold_time_still(delivery, at_most=60)

        self.send(call)

    @rule(queue=st.sampled_from(QUEUES), really=SELDOM)
    def purge(self, queue: str, really: bool) -> None:
        """Somebody empties a queue; each message has an entry, in the same step."""
        if really:
            purged = self.server.purge(queue)
            assert {tag for tag, _ in purged} == self.model.purged(queue)
            self.model.journal += [Entry(event) for _, event in purged]

    @rule(queue=st.sampled_from(QUEUES), really=SELDOM)
    def drop(self, queue: str, really: bool) -> None:
        """A queue is emptied of what nobody need know of."""
        if really:
            assert self.server.broker.drop(queue) == len(self.model.purged(queue))

    @rule(worker=WORKERS)
    def crash(self, worker: int) -> None:
        """A worker forgets everything; nobody tells the server."""
        self.hands = [one for one in self.hands if one.worker != worker]

    # Claims.

    @HANDS
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        """A job is about to begin, or asks once more."""
        delivery = self.one_of(data)
        self.send(lambda: self._claim(delivery))

    @rule(spec=st.sampled_from(SPECS), worker=WORKERS, really=SELDOM)
    def claim_from_elsewhere(self, spec: Spec, worker: int, really: bool) -> None:
        """The same for a message in another broker."""
        if really:
            delivery = Delivery("", uuid4().hex, spec, spec.attempt, worker)
            self.hands.append(delivery)
            self.send(lambda: self._claim(delivery))

    def _claim(self, asked: Delivery) -> None:
        before = self.model.claim_of(asked)
        answer: Answer = self.server.take(asked)
        assert type(answer) is self.model.expected(asked)
        self.watch.answered(asked, answer, before)
        self.model.answered(asked, answer)
        if isinstance(answer, Parked):
            self.server.hold_time_still(asked)

    @HANDS
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        """A job goes on, whether its claim is still its own or not."""
        delivery = self.one_of(data)
        assert self.server.renew(delivery) == self.model.renew(delivery)

    @rule(data=st.data(), really=SELDOM)
    def cancel(self, data: st.DataObject, really: bool) -> None:
        """Somebody cancels a message; seldom, since nothing happens to one that is cancelled."""
        if really:
            tags = [tag for tag in self.model.messages if "~" not in tag]
            tag = data.draw(st.sampled_from(tags or ["m1"]))
            self.send(lambda: self._cancel(tag))

    def _cancel(self, tag: str) -> None:
        expected = self.model.cancel(tag)
        assert self.server.cancel(tag) == expected

    @precondition(lambda self: any(one.granted for one in self.hands))
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), wait=st.booleans(), result=st.integers(0, 9))
    def settle(self, data: st.DataObject, outcome: tuple[Any, str], wait: bool, result: int) -> None:
        """A job ends, whether it still holds its claim or not, and perhaps changes its mind."""
        granted = [one for one in self.hands if one.granted]
        held = [one for one in granted if (claim := self.model.claim_of(one)) and claim.runs_for(one)]
        delivery = data.draw(st.sampled_from(held if held and not data.draw(SELDOM) else granted))
        state, action = outcome
        wait = wait and state == "released" and action != "remove"

        def call() -> None:
            before = self.model.claim_of(delivery)
            answer, event = self.server.settle(delivery, outcome, wait=wait, result=result)
            self.watch.settled(delivery, answer, state, result, before)
            assert answer == self.model.settle(delivery, state, action, event, wait=wait, result=result)

        self.send(call)

    @HANDS
    @rule(data=st.data(), kind=st.sampled_from(["duplicate", "cancelled", "dead"]))
    def end_without_claim(self, data: st.DataObject, kind: str) -> None:
        """A message ends that did not run."""
        delivery = self.one_of(data)
        if delivery.granted:
            return

        def call() -> None:
            event = self.server.end_without_claim(delivery, kind)
            self.model.end_without_claim(delivery, event, kind)

        self.send(call)

    # Time, and accidents.

    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        """A lease, a back-off, the wait of a message or the visibility of one in flight is over, or all of them."""
        waits = [(tag, one) for tag, one in self.model.messages.items() if one.place != "queue"]
        what: Any = [*self.model.claims.items(), *waits]
        for name, one in [data.draw(st.sampled_from(what))] if what and data.draw(SELDOM) else what:
            self.server.end_time(name, one)
            one.over = True

    @rule(queue=st.sampled_from(QUEUES), really=SELDOM)
    def forget_what_is_in_flight(self, queue: str, really: bool) -> None:
        """Somebody deletes the set of a queue; the next sweep puts all of it back, and gives its workers time to be heard."""
        if really:
            self.server.flush(f"inflight:{queue}")
            forgotten = self.model.forgotten(queue)
            swept = self.server.broker.sweep(QUEUES)
            assert (swept.found, swept.recovered) == (forgotten, self.model.swept())

    @precondition(lambda self: self.model.messages)
    @rule(data=st.data(), really=SELDOM)
    def misplace(self, data: st.DataObject, really: bool) -> None:
        """A message is in no set any more; whoever sends it again finds it, and it has a place."""
        tags = [tag for tag, one in self.model.messages.items() if tag == one.spec.id]
        if really and tags:
            tag = data.draw(st.sampled_from(tags))
            message = self.model.messages[tag]
            self.server.misplace(tag, message.spec.queue)
            self.model.found_again(tag)
            self._publish(message.spec, digest=message.digest)

    @rule(what=st.sampled_from(["claim:*", "*"]), really=st.integers(0, 9))
    def flush(self, what: str, really: int) -> None:
        """The claims are lost, or everything; seldom, since little happens on an empty server."""
        if really == 9:
            self.server.flush(what)
            self.model.flushed(everything=what == "*")
            self.watch.flushed()

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        """Places, receipts, claims and journal; see also `Watch`."""
        if hasattr(self, "server"):
            compare(Look(self.store), self.model)
            self.watch.check(self.model)


def run(store: Store, examples: int, steps: int) -> None:
    """Run random interleavings, on a store of their own."""
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        database=None,
    )
    run_state_machine_as_test(type("Machine", (Protocol,), {"store": store}), settings=options)


@pytest.mark.parametrize("examples", [30, pytest.param(200, marks=pytest.mark.thorough)])
def test_no_interleaving_breaks_the_protocol(store: Store, examples: int) -> None:
    """Whatever happens in whatever order."""
    run(store, examples, steps=60)


@pytest.mark.thorough
def test_no_interleaving_breaks_the_protocol_on_redis(tmp_path: Path) -> None:
    """The same scripts on Redis."""
    with redis_server(tmp_path) as url:
        store = Store(url, "states")
        run(store, examples=100, steps=60)
        store.redis.close()


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_interleaving_of_many_breaks_the_protocol(store: Store) -> None:
    """The same for longer."""
    run(store, examples=10_000, steps=100)


class Chosen:
    """Draws what a test has chosen."""

    def __init__(self, *values: Any) -> None:
        self._values = iter(values)

    def draw(self, _: Any) -> Any:
        """The next value."""
        return next(self._values)


@pytest.fixture
def machine(store: Store) -> Protocol:
    """The model and the server, for interleavings that chance brings once in thousands."""
    machine: Protocol = type("Machine", (Protocol,), {"store": store})()
    machine.begin()
    machine.publish(SPECS[0], wait=False, old=False)
    reserve(machine, begin=True)
    return machine


def reserve(machine: Protocol, *, begin: bool) -> None:
    """A worker takes one message, and perhaps begins."""
    machine.reserve(cast(Any, Chosen("a")), worker=0, count=1, lost=False, begin=begin)
    machine.everything_is_as_it_must_be()


def test_a_job_that_has_lost_its_claim_waits_for_a_copy_that_has_it(machine: Protocol) -> None:
    """No delivery of it is counted."""
    machine.flush("claim:*", really=9)
    machine.publish_copy(cast(Any, Chosen(False, machine.hands[0])), more=0, wait=False)
    reserve(machine, begin=True)
    machine.claim(cast(Any, Chosen(False, machine.hands[0])))
    machine.everything_is_as_it_must_be()
    assert machine.model.messages["m1"].place == "delayed"


def test_a_retry_of_before_leaves_the_message_with_who_has_it_now(machine: Protocol) -> None:
    """That delivery is counted when it comes back."""
    machine.acknowledge(cast(Any, Chosen(False, machine.hands[0])), followed=False)
    machine.time_passes(cast(Any, Chosen(False)))
    reserve(machine, begin=False)
    machine.settle(cast(Any, Chosen(False, machine.hands[0])), outcome=("released", "retry"), wait=False, result=0)
    machine.everything_is_as_it_must_be()
    assert machine.model.messages["m1"].place == "inflight"
