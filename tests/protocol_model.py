"""What messages and claims should be after any interleaving of the protocol's steps: the model of `test_protocol_states`.

Written from the protocol's rules. Time is a flag here: a lease, a wait or a visibility is over or it is not.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from conventions.idempotency.claim_answers import (
    Answer,
    Busy,
    Cancelled,
    Conflict,
    Dead,
    Done,
    Granted,
    Parked,
    Poison,
    Stale,
    Superseded,
    TooOld,
)
from tests.protocol_messages import Delivery, Messages, Spec

START_LIMIT = 2  # so that it is reached often
NOBODY = "-"

State: TypeAlias = Literal["running", "done", "released", "continued", "dead"]


@dataclass
class Claim:
    """The claim of one key."""

    state: State
    token: str | None
    id: str
    generation: int
    attempt: int
    fingerprint: str
    fence: int
    starts: int = 0
    followed: bool = False
    over: bool = False
    result: int | None = None

    def runs_for(self, delivery: Delivery) -> bool:
        """Whether it is held in the name of this delivery."""
        return self.state == "running" and self.token == delivery.token


@dataclass(frozen=True)
class Entry:
    """Of the journal."""

    event: str
    refused: bool = False
    message: bool = False


@dataclass
class Model(Messages):
    """Claims by key, what is parked on them, and the journal."""

    claims: dict[str, Claim] = field(default_factory=dict)
    parked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    journal: list[Entry] = field(default_factory=list)

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """The claim of its key."""
        return self.claims.get(delivery.spec.key)

    def expected(self, asked: Delivery) -> type[Answer]:
        """How a request must be answered."""
        claim = self.claim_of(asked)
        if asked.tag and not self.holds(asked):
            return Stale
        if claim and claim.runs_for(asked):
            return Granted if claim.starts <= START_LIMIT else Poison
        if asked.tag and self.messages[asked.tag].ended:
            return Dead
        if claim is None:
            return self._expected_first(asked.spec)
        return self._expected_of_same(claim, asked) if claim.id == asked.spec.id else self._expected_of(claim, asked)

    def _expected_first(self, spec: Spec) -> type[Answer]:
        if self.is_cancelled(spec):
            return Cancelled
        return TooOld if spec.old else Granted

    def _expected_of(self, claim: Claim, asked: Delivery) -> type[Answer]:
        """Another message has, or had, the claim."""
        if self.is_cancelled(asked.spec):
            return Cancelled
        if claim.state != "dead" and claim.fingerprint != asked.spec.fingerprint:
            return Conflict
        if claim.state == "done":
            return Done
        waits = claim.state in ("running", "released") and not claim.over
        if claim.state == "continued":  # by its message, which comes again, if it is there
            waits = not asked.tag or claim.id in self.messages
        return self._parked(asked) if waits else self._started(claim)

    def _expected_of_same(self, claim: Claim, asked: Delivery) -> type[Answer]:
        """The message itself has, or had, the claim, in another delivery or copy."""
        runs = claim.state == "running" and not claim.over
        if claim.state == "done":
            return Done
        if claim.state == "dead" and claim.generation == asked.spec.generation:
            return Dead
        if not runs and self.is_cancelled(asked.spec):
            return Cancelled
        if (asked.spec.generation, asked.attempt) < (claim.generation, claim.attempt):
            if asked.tag and self.messages[asked.tag].written > asked.attempt:
                return Parked  # rewritten
            has_copy = asked.tag != asked.spec.id and asked.spec.id in self.messages
            if not asked.tag or asked.spec.generation < claim.generation or has_copy:
                return Superseded
        redriven = asked.spec.generation > claim.generation
        backs_off = claim.state == "released" and not claim.over and not redriven
        return self._parked(asked) if runs or backs_off else self._started(claim)

    def _parked(self, asked: Delivery) -> type[Answer]:
        return Parked if asked.tag else Busy

    def _started(self, claim: Claim) -> type[Answer]:
        return Granted if claim.starts < START_LIMIT else Poison

    def answered(self, asked: Delivery, answer: Answer) -> None:
        """Note what an answer changes."""
        before = self.claim_of(asked)
        if isinstance(answer, Parked):
            message = self.messages[asked.tag]
            message.deliveries -= not message.started  # one that began, and lost its claim, counts no more
            message.move("delayed")
            self.parked[asked.spec.key].add(asked.tag)
        if isinstance(answer, Dead) and asked.tag:
            self.messages[asked.tag].ended = True
        if isinstance(answer, Cancelled) and before and self.is_voided(asked, before):
            before.state, before.token, before.over, before.starts = "released", NOBODY, True, 0
            self._wake(asked.spec.key)
        if not isinstance(answer, (Granted, Poison)):
            return
        asked.granted = True
        if before and before.runs_for(asked):
            return
        self._write(asked, "running", answer.fence, starts=(before.starts if before else 0) + 1)
        if asked.tag:
            self.messages[asked.tag].started, self.messages[asked.tag].deliveries = True, 0

    @staticmethod
    def is_voided(asked: Delivery, claim: Claim) -> bool:
        """Whether somebody may still wake with the claim of a message that is cancelled."""
        is_its = claim.id == asked.spec.id and claim.generation <= asked.spec.generation
        return is_its and (claim.state == "running" or claim.token is None)

    def _write(
        self, of: Delivery, state: State, fence: int, *, starts: int = 0, more: int = 0, over: bool = False
    ) -> Claim:
        spec = of.spec
        claim = self.claims[spec.key] = Claim(
            state, of.token, spec.id, spec.generation, of.attempt + more, spec.fingerprint, fence, starts, over=over
        )
        return claim

    def beat(self, delivery: Delivery) -> str:
        """A heartbeat; returns the answer."""
        if not self.holds(delivery):
            return "lost"
        self.messages[delivery.tag].over = False
        claim = self.claim_of(delivery)
        lapsed = delivery.granted and claim and claim.runs_for(delivery) and claim.over
        return "lapsed" if lapsed else "held"

    def renew(self, delivery: Delivery) -> bool:
        """Extend the lease of a job."""
        claim = self.claim_of(delivery)
        if claim is None or not claim.runs_for(delivery):
            return False
        claim.over = False
        return True

    def give_back(self, delivery: Delivery, *, counted: bool, wait: bool) -> bool:
        """A message goes back; the claim of its job is free, in the name of nobody."""
        claim = self.claim_of(delivery)
        if delivery.granted and claim and claim.runs_for(delivery):
            claim.state, claim.token, claim.over = "released", None, True
            claim.starts = claim.starts if counted else max(claim.starts - 1, 0)
            self._wake(delivery.spec.key)
        if not self.holds(delivery):
            return False
        message = self.messages[delivery.tag]
        message.move("delayed" if wait else "queue")
        message.deliveries -= 0 if counted else min(message.deliveries, 1)
        return True

    def _wake(self, key: str) -> None:
        for tag in self.parked.pop(key, ()):
            message = self.messages.get(tag)
            if message and message.place == "delayed":
                message.move("queue")

    def settle(self, ended: Delivery, state: State, action: str, event: str, *, wait: bool, result: int) -> str:
        """A job ends; returns the answer. The fence of a claim that was not there is 0 until the server says it."""
        claim = self.claim_of(ended)
        behind = claim and claim.token is None and (
            (ended.spec.generation, ended.attempt) < (claim.generation, claim.attempt)
        )  # fmt: skip
        if claim and (claim.token not in (ended.token, None) or behind):
            self._record(event, refused=True)
            return "refused"
        again = bool(ended.tag) and action in ("retry", "park")
        answer = "missing" if again and ended.tag not in self.messages else "recorded"
        if claim and claim.token and claim.state != "running":
            return answer
        more = int(action == "retry")
        written = self._write(ended, state, claim.fence if claim else 0, more=more, over=not wait)
        written.result = result if state == "done" else None
        self._record(event, message=state == "dead" and ended.tag in self.messages)
        if again and answer == "recorded":
            self._again(ended, more=more, over=not wait)
        elif action == "remove":
            self.remove(ended)
        elif state == "dead" and self.holds(ended):
            self.messages[ended.tag].ended = True
        if state in ("done", "dead") or (state == "released" and not wait):
            self._wake(ended.spec.key)
        return answer

    def _again(self, ended: Delivery, *, more: int, over: bool) -> None:
        message = self.messages[ended.tag]
        # What another worker has since then is counted when that one returns it.
        elsewhere = message.place == "inflight" and not self.holds(ended) and not message.started
        message.written, message.deliveries = ended.attempt + more, int(elsewhere)
        if more:
            message.carried = message.written
        if self.holds(ended) or message.place == "delayed":
            message.move("delayed", over=over)

    def _record(self, event: str, *, refused: bool = False, message: bool = False) -> None:
        if event:
            self.journal.append(Entry(event, refused, message))

    def end_without_claim(self, ended: Delivery, event: str, kind: str) -> None:
        """A message ends that did not run."""
        self._record(event, message=kind == "dead" and ended.tag in self.messages)
        self.remove(ended)

    def acknowledge(self, ended: Delivery, *, followed: bool) -> bool:
        """Celery has ended with a message; returns whether it is gone: what has not said how it ended comes again."""
        claim = self.claim_of(ended)
        if not self.holds(ended):
            return False
        if ended.granted or followed:
            message = self.messages[ended.tag]
            if not message.ended and not (claim and claim.state == "done"):
                message.move("delayed")
                return False
            if followed and claim and claim.id == ended.spec.id:
                claim.followed = True
        return self.remove(ended)

    def flushed(self, *, everything: bool) -> None:
        """The server lost its claims, or all it had."""
        self.claims.clear()
        if everything:
            self.parked.clear()
            self.messages.clear()
            self.cancelled.clear()
            self.journal.clear()
