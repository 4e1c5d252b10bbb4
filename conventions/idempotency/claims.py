"""Claims: one winner for each idempotency key, with a lease, a fence and the stored result.

A claim goes `idle -> running -> done | released | dead`; the states, and who may change them, are drawn in
`docs/design/messages.md`. Every step is one Lua script that takes a list; the semantics of key, fingerprint and replay follow
Stripe's idempotent requests.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias, cast

from conventions.broker.batch_membership import Join
from conventions.broker.redis_broker import HeldMessage
from conventions.core.canonical_json import encode
from conventions.core.entry_signatures import EntrySignatures
from conventions.core.settings import DEFAULT_KEEP_RESULT_FOR, DEFAULT_START_LIMIT
from conventions.core.time_units import milliseconds
from conventions.idempotency.claim_answers import Answer, answers_of
from conventions.idempotency.interrupted_start import InterruptedStart, interrupted_starts
from conventions.records.journal import Event
from conventions.storage.redis_store import Store
from conventions.storage.script_call import ScriptCall


@dataclass(slots=True)  # not frozen: each job makes one, which would take twice as long
class ClaimRequest:
    """What a message asks for: the key of its task, in the name of one delivery.

    Attributes:
        token: names the delivery; the same token gets the same answer again.
        generation: how often the message was redriven.
        attempt: which execution this is, from 1.
        sent_at: when it was sent, where that is known.
        horizon: how long the claim is remembered, and after which a message without one is too old to run.
        held: the message in the broker, where that is the same server.
        start: names the call that asks: a pool whose process died may begin one delivery twice.
        other: its key and its fingerprint under the other key of names, while that changes.
        asked_at: when this was made, just before it is asked for; seconds of the monotonic clock.
    """

    task: str
    key: str
    token: str
    message_id: str
    fingerprint: str
    generation: int = 0
    attempt: int = 1
    sent_at: datetime | None = None
    horizon: timedelta = DEFAULT_KEEP_RESULT_FOR
    held: HeldMessage | None = None
    start: str = ""
    other: tuple[str, str] | None = None
    asked_at: float = field(default_factory=time.monotonic, compare=False)

    @property
    def claim(self) -> str:
        """The name of the claim, as the scripts take it."""
        return f"{self.task}:{self.key}"

    @property
    def names(self) -> list[tuple[str, str]]:
        """Each key and fingerprint that it has, in an order in which two jobs with the same ones cannot wait for each other."""
        return sorted({(self.key, self.fingerprint), *([self.other] if self.other else ())})

    def in_hand(self) -> tuple[str | bytes, str, str]:
        """Tag, queue and receipt of the message; empty where the broker is elsewhere."""
        return (self.held.tag, self.held.queue, self.held.receipt) if self.held else ("", "", "")


class Named(Protocol):
    """A claim, and the delivery that holds it."""

    @property
    def claim(self) -> str:
        """The name of the claim."""

    @property
    def token(self) -> str:
        """Of the delivery."""


class EffectExists(Exception):
    """The effect of this key was committed before: the job ends as done with the stored result."""

    def __init__(self, result: Any) -> None:
        super().__init__(result)
        self.result = result


class TransactionBusy(Exception):
    """Another transaction holds the record of this key: the job waits, with no attempt used."""


State: TypeAlias = Literal["done", "released", "continued", "dead"]
Settled: TypeAlias = Literal["recorded", "refused", "missing"]


@dataclass(slots=True)  # the same
class Settlement:
    """How a job ended.

    Attributes:
        state: of the claim; `released` for `wait` seconds; `continued`: the same message goes on, and no other one.
        event: what the journal says, if anything.
        result: of a job that is done, or what `encode` has made of it; of a dead one, what it failed with, as text.
        action: what becomes of the message: it goes, is tried again, waits with no attempt used, or is kept until what
            follows the job was sent.
        changes: headers of the next attempt.
        claimed: whether the job held its claim; without one, only message and journal are written.
        join: how the message's batch counts this.
    """

    request: ClaimRequest
    state: State
    event: Event | None
    result: Any = None
    wait: float = 0.0
    action: Literal["remove", "retry", "park", "keep"] = "remove"
    changes: Mapping[str, Any] = field(default_factory=dict)
    claimed: bool = True
    join: Join | None = None


BeforeItsEnd: TypeAlias = Literal["", "ended", "runs", "done", "dead", "released", "continued"]
"""What `end_running` found: nothing to end; a claim that it has ended; one of a job that runs; or how it ended before."""

LAPSED = 2  # what `claim_runs.lua` answers


class Claims:
    """The claims of one application.

    Args:
        store: where they are kept.
        lease: seconds after which a claim that is not renewed lapses.
        start_limit: starts without an outcome after which a message does not run again.
    """

    def __init__(self, store: Store, *, lease: float, start_limit: int = DEFAULT_START_LIMIT) -> None:
        self.store = store
        self.lease = lease
        self._start_limit = start_limit

    def _run(self, script: str, arguments: Sequence[Any]) -> Any:
        return self.store.run(script, arguments)

    def take(self, requests: Sequence[ClaimRequest]) -> list[Answer]:
        """Ask for claims, in one round trip. The same token gets the same answer again."""
        return answers_of(self._run("claim", self._take_arguments(requests)))

    def ask(
        self, requests: Sequence[ClaimRequest], *, together: bool = False, after: ClaimRequest | None = None
    ) -> ScriptCall:
        """Ask for claims, whose answers are read later, by `answers`; the caller closes what it gets.

        Args:
            requests: what is asked for.
            together: only the first that is granted starts now; each other one when the one before it has succeeded, or when
                `begin` says so.
            after: of those, the job that comes before the first, which then starts as the others do.
        """
        return self.store.call("claim", self._take_arguments(requests, together=together, after=after))

    @staticmethod
    def answers(asked: ScriptCall) -> list[Answer]:
        """The answers of `ask`, in the order of its requests. Raises: RedisError."""
        return answers_of(asked.answer())

    def _take_arguments(
        self, requests: Sequence[ClaimRequest], *, together: bool = False, after: ClaimRequest | None = None
    ) -> list[Any]:
        arguments: list[Any] = [milliseconds(self.lease), self._start_limit, int(together)]
        arguments.append("" if after is None else f"{after.token} {after.claim}")
        for one in requests:
            sent_at = "" if one.sent_at is None else milliseconds(one.sent_at.timestamp())
            arguments += [one.claim, one.token, one.start, one.message_id, one.generation, one.attempt]
            arguments += [one.fingerprint, milliseconds(one.horizon), sent_at, *one.in_hand()]
        return arguments

    def same_claim(self, task: str, key: str, other: str, horizon: timedelta) -> str:
        """Which of two keys names the claim of a job, while names change. Raises: RedisError."""
        found: bytes = self._run("same_claim", [task, key, other, milliseconds(horizon)])
        return found.decode()

    def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Record how jobs ended, in one round trip.

        `refused` where the claim is another worker's now; `missing` where the message to be tried again is gone.
        """
        arguments = [part for one in settlements for part in settle_arguments(one, self.store.entry_signatures)]
        return [reply.decode() for reply in self._run("settle", arguments)]

    def renew(self, requests: Sequence[Named], lease: float | None = None) -> list[bool]:
        """Extend leases to `lease` seconds from now; false where the claim is another worker's now."""
        arguments: list[Any] = [milliseconds(lease or self.lease)]
        for one in requests:
            arguments += [one.claim, one.token]
        return [bool(reply) for reply in self._run("claim_renew", arguments)]

    def is_lost(self, request: ClaimRequest) -> bool:
        """Whether somebody else holds the claim, or it was ended from outside. One that was lost with Redis is nobody's."""
        token, *_ = self._run("claim_of", [request.claim])
        return token is not None and token != request.token.encode()

    def release(self, claim: str, token: str, why: str = "") -> None:
        """Give up the claim of a job whose process died: a start without an outcome; `why`: what is known of that."""
        self._run("give_back", _without_message(claim, token, why, counted=True))

    def release_all(self, claims: Mapping[str, str], why: str) -> None:
        """Give up the claims of jobs that were cut off: their starts do not count.

        Args:
            claims: their names, each by the token of the delivery that may hold it; else it stays as it is.
            why: what is known of the end of these jobs.

        Raises:
            RedisError: they may be released; else their leases end them.
        """
        each = (_without_message(claim, token, why, counted=False) for token, claim in claims.items())
        if arguments := [one for start in each for one in start]:
            self._run("give_back", arguments)

    def end_running(
        self, claim: str, message_id: str, generation: int, token: str, *, loser: Literal["nobody", "lapsed", "itself"]
    ) -> BeforeItsEnd:
        """End the claim of a message that is ended from outside, after which no process can record another end.

        Args:
            claim: its name.
            message_id: of the message.
            generation: of the message.
            token: of the delivery that ends.
            loser: who loses the claim. `nobody`: only look. `lapsed`: a holder whose lease is over. `itself`: also the delivery that ends.

        Raises:
            RedisError: nothing is known.
        """
        answer = self._run("end_running", [claim, message_id, generation, token, loser])
        return cast("BeforeItsEnd", answer.decode())

    def note_follow_ups_sent(self, claim: str, message_id: str) -> None:
        """Note that what follows a finished job was sent, by whichever delivery of its message; where the broker is elsewhere."""
        self._run("claim_followed", [claim, message_id])

    def is_done(self, claim: str, message_id: str, fingerprint: str | None = None) -> bool | None:
        """Whether a message has finished its job, or another one with its key and this fingerprint has.

        `None` when nothing is remembered of the claim.
        """
        _, state, owner, found, *_ = self._run("claim_of", [claim])
        same = fingerprint is not None and found == fingerprint.encode()
        return None if state is None else state == b"done" and (owner == message_id.encode() or same)

    def has_ended(self, claim: str, message_id: str, generation: int) -> bool:
        """Whether a message has an outcome: it is done, or a dead letter of this generation."""
        _, state, owner, _, found, _ = self._run("claim_of", [claim])
        if owner != message_id.encode():
            return False
        return state == b"done" or (state == b"dead" and int(found or 0) == generation)

    def waits_for_steps(self, claim: str, message_id: str, generation: int) -> bool:
        """Whether a message has an outcome, and nothing says that what follows it was sent."""
        *_, followed = self._run("claim_of", [claim])
        return followed != b"1" and self.has_ended(claim, message_id, generation)

    def record_interrupted(self, claim: str, starts: Sequence[tuple[InterruptedStart, Event]]) -> None:
        """Write starts without an outcome to the journal, each once, whoever else does so. Raises: RedisError."""
        arguments: list[Any] = [claim]
        for one, event in starts:
            arguments += [one.entry, event.encode(self.store.entry_signatures), milliseconds(one.ended_at.timestamp())]
        self._run("record_interrupted", arguments)

    def kept_interrupted(self, messages: Sequence[tuple[str, str, str]]) -> list[tuple[InterruptedStart, ...]]:
        """The starts without an outcome that the claims of messages keep, where those end without another start. Raises: RedisError.

        Args:
            messages: of each the name of its claim, its id, and the token of the delivery that ends.
        """
        arguments = [part for one in messages for part in one]
        return [interrupted_starts(kept) for kept in self._run("kept_interrupted", arguments)]

    def record_hung(self, claim: str, token: str, event: Event) -> None:
        """Write to the journal that a job is ended whose process goes on; nothing where it does not run any more. Raises: RedisError."""
        self._run("record_hung", [claim, token, event.encode(self.store.entry_signatures)])

    def runs(self, claim: str, token: str) -> bool:
        """Whether the job of this delivery has begun, and has not ended."""
        return bool(self._run("claim_runs", [claim, token]))

    def has_lapsed(self, claim: str, token: str) -> bool:
        """Whether the job of this delivery runs, and the lease of its claim is over. Raises: RedisError."""
        return int(self._run("claim_runs", [claim, token])) == LAPSED

    def is_cancelled(self, message_id: str) -> bool:
        """Whether a message was cancelled."""
        return bool(self.store.redis.exists(self.cancel_key(message_id)))

    def cancel(self, message_id: str, keep: timedelta) -> None:
        """Note that a message is cancelled, whichever it is. Raises: RedisError."""
        self.store.redis.set(self.cancel_key(message_id), "any", px=keep)

    def cancel_key(self, message_id: str) -> str:
        """The key whose existence cancels a message."""
        return self.store.key("cancel", message_id)


def _without_message(claim: str, token: str, why: str, *, counted: bool) -> list[Any]:
    """The arguments of `give_back` for a claim whose message goes back by itself."""
    return ["", "", "", 0, int(counted), claim, token, why]


def settle_arguments(one: Settlement, signatures: EntrySignatures | None) -> list[Any]:
    """What the settle script takes for one job; `signatures`: of the store."""
    request = one.request
    result = written(one.result) if one.state in ("done", "dead") else b""
    return [
        *(request.claim if one.claimed else "", request.token, request.message_id, request.generation),
        *(request.attempt, request.fingerprint, one.state, result, milliseconds(one.wait)),
        *(milliseconds(request.horizon), *request.in_hand(), one.action),
        *(
            encode(one.changes),
            one.event.encode(signatures) if one.event else b"",
            one.join.encode() if one.join else b"",
        ),
    ]


def written(result: Any) -> bytes:
    """A result as JSON."""
    return result if isinstance(result, bytes) else encode(result)  # JSON has no bytes
