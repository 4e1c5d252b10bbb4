"""`ClaimsElsewhere`: what must be done where no script can change a message and its claim in one step."""

from datetime import timedelta
from typing import Protocol

from conventions.broker.redis_broker import CancelAnswer
from conventions.storage.redis_store import Store


class ClaimStore(Protocol):
    """What a broker port needs of the claims; `Claims` has it."""

    store: Store

    def release(self, claim: str, token: str, why: str, /) -> None:
        """Release the claim of a job whose process died. Raises: RedisError."""

    def note_follow_ups_sent(self, claim: str, message_id: str, /) -> None:
        """Note that what follows a job was sent. Raises: RedisError."""

    def cancel(self, message_id: str, keep: timedelta, /) -> None:
        """Note that a message is cancelled. Raises: RedisError."""


class ClaimsElsewhere:
    """The messages are in one server, their claims in another.

    Args:
        claims: where they are.
    """

    def __init__(self, claims: ClaimStore) -> None:
        self._claims = claims

    def release(self, claim: str, token: str, why: str) -> None:
        """See `BrokerPort`."""
        self._claims.release(claim, token, why)

    def note_follow_ups_sent(self, claim: str, message_id: str) -> None:
        """See `BrokerPort`."""
        self._claims.note_follow_ups_sent(claim, message_id)

    def secure(self) -> None:
        """See `BrokerPort`."""
        self._claims.store.wait_for_disk()

    def cancel(self, message_id: str, keep: timedelta) -> CancelAnswer:
        """See `BrokerPort`. The claim script reads the note; nobody can tell where the message is."""
        self._claims.cancel(message_id, keep)
        return "queued"
