"""`RedisPort`: the messages are in a Redis, which is the one of the claims, or another one."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from conventions.broker.claims_on_another_server import ClaimsElsewhere, ClaimStore
from conventions.broker.find_message import FoundMessage, find
from conventions.broker.port import Abilities
from conventions.broker.queue_level import QueueLevel
from conventions.broker.redis_broker import Broker, CancelAnswer, HeldMessage, Place
from conventions.broker.waiting_messages import End, Waiting, end
from conventions.core.deadline import Deadline
from conventions.core.errors import JournalFull
from conventions.core.settings import ENV_PREFIX
from conventions.records.journal import Journal
from conventions.storage import redis_store
from conventions.storage.redis_store import Store


class RedisPort:
    """See `BrokerPort`. Whether there is one server or two, nobody outside asks.

    Args:
        broker: the messages.
        claims: the claims.
        journal: the journal, in the server of the claims.
        producers: Celery's `producer_or_acquire`.
        same: the addresses of both are the same, so that no server must be asked.
    """

    def __init__(
        self,
        broker: Broker,
        claims: ClaimStore,
        journal: Journal,
        producers: Callable[[Any], AbstractContextManager[Any]],
        *,
        same: bool,
    ) -> None:
        self._producers = producers
        self._broker, self._claims, self._journal, self._same = broker, claims, journal, same
        self._elsewhere = ClaimsElsewhere(claims)

    @functools.cached_property
    def keeps_claims(self) -> bool:
        """See `BrokerPort`."""
        return self._same or redis_store.one_server(self._broker.store, self._claims.store)

    @functools.cached_property
    def can(self) -> Abilities:
        """See `BrokerPort`."""
        return Abilities(templates=True, looks=True, limits=True)

    @property
    def servers(self) -> Mapping[str, Store]:
        """See `BrokerPort`."""
        return {f"{ENV_PREFIX}BROKER_URL": self._broker.store}

    def send(self, send: Callable[..., Any], producer: Any, deadline: Deadline) -> Any:  # noqa: ARG002  # scripts know the deadline
        """See `BrokerPort`."""
        return send()

    def producer(self, given: Any) -> AbstractContextManager[Any]:
        """See `BrokerPort`; scripts try again by themselves."""
        return self._producers(given)

    def in_place(self, held: HeldMessage | None) -> HeldMessage | None:
        """See `BrokerPort`."""
        return held if self.keeps_claims else None

    def claim_of(self, claim: str) -> str:
        """See `BrokerPort`."""
        return claim if self.keeps_claims else ""

    def release(self, claim: str, token: str, why: str) -> None:
        """See `BrokerPort`."""
        if not self.keeps_claims:
            self._elsewhere.release(claim, token, why)

    def note_follow_ups_sent(self, claim: str, message_id: str) -> None:
        """See `BrokerPort`."""
        if not self.keeps_claims:
            self._elsewhere.note_follow_ups_sent(claim, message_id)

    def secure(self) -> None:
        """See `BrokerPort`."""
        if not self.keeps_claims:
            self._elsewhere.secure()

    def cancel(self, message_id: str, keep: timedelta) -> CancelAnswer:
        """See `BrokerPort`."""
        return self._broker.cancel(message_id, keep) if self.keeps_claims else self._elsewhere.cancel(message_id, keep)

    def places(self, message_ids: Sequence[str]) -> Mapping[str, Place | None]:
        """See `BrokerPort`."""
        return dict(zip(message_ids, self._broker.places(message_ids), strict=True))

    def find(self, message_id: str) -> FoundMessage | None:
        """See `BrokerPort`. Where the claims are elsewhere a copy that waits for another attempt is not found."""
        return find(self._broker.store, message_id)

    def end(self, ends: Sequence[tuple[Waiting, End]], record: Callable[[], object], journal_limit: int) -> list[bool]:
        """See `BrokerPort`."""
        if self.keeps_claims:
            return end(self._broker.store, ends, journal_limit=journal_limit)
        if self._journal.length() >= journal_limit:
            raise JournalFull("the journal is full: its recorder does not run, or SQL does not answer")
        record()  # first: of what is removed without a row nothing can be told
        return end(self._broker.store, [(one, End(how.message_id)) for one, how in ends])

    def waiting(self, queue: str, *, delayed: bool = False) -> int:
        """See `BrokerPort`."""
        sizes = self._broker.sizes(queue)
        return sizes.ready + (sizes.delayed if delayed else 0)

    def levels(self, queues: Sequence[str]) -> Mapping[str, QueueLevel]:
        """See `BrokerPort`."""
        return self._broker.levels(queues)

    def queues(self) -> frozenset[str]:
        """See `BrokerPort`."""
        return frozenset(self._broker.queues())

    def start(self) -> None:
        """See `BrokerPort`: `InFlight` does all."""

    def stop(self) -> None:
        """See `BrokerPort`."""

    def check(self) -> None:
        """See `BrokerPort`."""
        self._broker.store.try_write()
