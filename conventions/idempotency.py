"""Claims: one winner for each idempotency key, with a lease, a fence and the stored result.

A claim goes `idle -> running -> done | released | dead`. Every step is one Lua script that takes a list; the semantics
of key, fingerprint and replay follow Stripe's idempotent requests.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from conventions.payload import encode
from conventions.store import Store


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What a message asks for: the key of its task, in the name of one delivery (`token`)."""

    task: str
    key: str
    token: str
    message_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The claim is ours; a higher `fence` is a later holder."""

    fence: int


@dataclass(frozen=True, slots=True)
class Done:
    """The job was finished before, by the message `message_id`."""

    result: Any
    message_id: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Another message holds the claim, or waits for its next attempt, for `wait` seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key was used with another payload by the message `message_id`."""

    message_id: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The message was cancelled before it ran."""


class EffectExists(Exception):
    """The effect of this key was committed before: the job ends as done with the stored result."""

    def __init__(self, result: Any) -> None:
        super().__init__(result)
        self.result = result


type Answer = Granted | Done | Busy | Conflict | Cancelled


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a job ended: `done` with a result, `released` for `wait` seconds, or `dead`."""

    request: ClaimRequest
    state: Literal["done", "released", "dead"]
    result: Any = None
    wait: float = 0


class Claims:
    """The claims of one application.

    Args:
        store: where they are kept.
        lease: seconds after which a claim that is not renewed lapses.
        keep: how long an ended claim is remembered.
    """

    def __init__(self, store: Store, *, lease: float, keep: timedelta) -> None:
        self._store = store
        self.lease = lease
        self._keep = _milliseconds(keep.total_seconds())

    def _key(self, request: ClaimRequest) -> str:
        return self._store.key("claim", request.task, request.key)

    def cancel_key(self, message_id: str) -> str:
        """The key whose existence cancels a message."""
        return self._store.key("cancel", message_id)

    def take(self, requests: Sequence[ClaimRequest]) -> list[Answer]:
        """Ask for claims, in one round trip. The same token gets the same answer again."""
        keys = [key for request in requests for key in (self._key(request), self.cancel_key(request.message_id))]
        arguments: list[Any] = [_milliseconds(self.lease), self._keep]
        for request in requests:
            arguments += [request.token, request.message_id, request.fingerprint]
        return [_answer(reply) for reply in self._store.script("claim")(keys, arguments)]

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Record how jobs ended, in one round trip; false where the claim is another worker's now."""
        arguments: list[Any] = []
        for one in settlements:
            result = encode(one.result) if one.state == "done" else b""
            arguments += [one.request.token, one.state, result, _milliseconds(one.wait), self._keep]
        keys = [self._key(one.request) for one in settlements]
        return [bool(reply) for reply in self._store.script("settle")(keys, arguments)]

    def renew(self, requests: Sequence[ClaimRequest], lease: float | None = None) -> list[bool]:
        """Extend leases to `lease` seconds from now; false where the claim is another worker's now."""
        arguments: list[Any] = [_milliseconds(lease or self.lease), *(request.token for request in requests)]
        replies = self._store.script("renew")([self._key(request) for request in requests], arguments)
        return [bool(reply) for reply in replies]

    def cancel(self, message_id: str) -> None:
        """Keep a message that did not start yet from running."""
        self._store.redis.set(self.cancel_key(message_id), 1, px=self._keep)


def digest(value: Mapping[str, Any]) -> str:
    """A key or fingerprint: 128 bits of SHA-256 over canonical JSON, in hexadecimal."""
    return hashlib.sha256(encode(value)).hexdigest()[:32]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _answer(reply: list[bytes]) -> Answer:
    match reply[0]:
        case b"granted":
            return Granted(int(reply[1]))
        case b"done":
            return Done(json.loads(reply[1]), reply[2].decode())
        case b"busy":
            return Busy(int(reply[1]) / 1000)
        case b"conflict":
            return Conflict(reply[1].decode())
        case _:
            return Cancelled()
