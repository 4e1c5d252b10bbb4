"""`SenderCheck`: a worker believes a message that somebody with the keys has sent, and what has changed of it only so far as it may change (R20)."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from conventions.broker.batch_membership import Member
from conventions.broker.caller_headers import of_another_program
from conventions.broker.codec import DELIVERY
from conventions.broker.header_names import (
    ACTOR,
    BATCH,
    COUNTS,
    FINGERPRINT,
    KEY,
    OTHER_NAMES,
    PARKED,
    READY_AT,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_SINCE,
)
from conventions.broker.message_form import has_form
from conventions.broker.signature import KNOWN, SIGNED_HEADERS, Signatures, as_sent, without_unsigned
from conventions.core.actor import UNSIGNED
from conventions.core.errors import KeyRevoked, SignatureRefused
from conventions.library_internals.celery import RABBITMQ_HEADERS

CHANGE = frozenset(["eta", "retries", COUNTS, PARKED, READY_AT, UNKNOWN, UNKNOWN_SINCE])
"""Headers that differ from attempt to attempt. Their form and bounds are checked as those of every message."""
REPEATED = frozenset([KEY, FINGERPRINT, ACTOR])  # an attempt writes them down for the next one


def _now() -> datetime:
    return datetime.now(UTC)


class SenderCheck:
    """Says which headers of a message a worker of one application believes.

    Args:
        signatures: verifies.
        accepted: queues for foreign programs, which cannot sign.
        trusted_until: until then a message without a signature is believed, since releases before this one do not sign; aware.
        is_splitter: whether a task, by its name, cuts a batch into chunks.
        now: the present moment.
    """

    def __init__(
        self,
        signatures: Signatures,
        accepted: Collection[str] = (),
        trusted_until: datetime | None = None,
        *,
        is_splitter: Callable[[str], bool] = lambda _: False,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.signatures = signatures
        self._is_splitter = is_splitter
        self._accepted = frozenset(accepted)
        self._trusted_until, self._now = trusted_until, now

    def fault_of(self, headers: Mapping[str, Any], kind: Any, encoding: Any, body: bytes, queue: str) -> str:
        """Why a message is not believed; empty: it is, or it is accepted without a signature.

        Args:
            headers: as they were sent.
            kind: its content type.
            encoding: its content encoding.
            body: its bytes.
            queue: where it came from.
        """
        if not headers.get(SIGNATURE) and (queue in self._accepted or self._is_early()):
            return ""
        return self.signatures.fault_of(headers, kind, encoding, body)

    def _is_early(self) -> bool:
        return self._trusted_until is not None and self._now() < self._trusted_until

    def looked_at(self, message: Any, body: bytes) -> dict[str, Any]:
        """The headers of a message as kombu gives it, as far as they are to be believed; `body`: its bytes. Raises: SignatureRefused: nothing of it is."""
        delivery = (message.properties or {}).get(DELIVERY) or {}
        content = message.content_type, message.content_encoding
        return self.look(message.headers, delivery, content, body, queue_of(message))

    def look(
        self, headers: Mapping[str, Any], delivery: Mapping[str, Any], content: tuple[Any, Any], body: bytes, queue: str
    ) -> dict[str, Any]:
        """The headers of a message, as far as they are to be believed.

        Args:
            headers: of this delivery.
            delivery: what is known of it, see `codec.with_delivery`.
            content: its content type and content encoding.
            body: its bytes.
            queue: where it came from.

        Raises:
            SignatureRefused: nothing of it is.
            KeyRevoked: all of it fits, and somebody may have stolen the key.
        """
        try:
            return self._look(headers, delivery, content, body, queue)
        except SignatureRefused:
            raise
        except Exception as odd:
            raise SignatureRefused(
                f"its headers cannot be read ({type(odd).__name__}); nothing of it is believed"
            ) from odd

    def _look(
        self, headers: Mapping[str, Any], delivery: Mapping[str, Any], content: tuple[Any, Any], body: bytes, queue: str
    ) -> dict[str, Any]:
        sent, changes = as_sent(headers, delivery), delivery.get("changes") or {}
        if headers.get("task") is None:
            # Celery would take all of it, and these headers as well, from a body of its first protocol.
            raise SignatureRefused("its headers name no task; nothing of it is believed")
        if fault := self.fault_of(sent, *content, body, queue):
            raise SignatureRefused(f"{fault}; nothing of it is believed")
        if fault := self.signatures.fault_of_key(sent):
            raise KeyRevoked(f"{fault}; redrive it where it is right")
        if sent.get(SIGNATURE):
            unsigned = {name: one for name, one in headers.items() if name in KNOWN and name not in SIGNED_HEADERS}
            if not (has_form(unsigned) and all(self._may_change(name, one, sent) for name, one in changes.items())):
                raise SignatureRefused("its headers have changed on the way; nothing of it is believed")
            # What no sender of ours has reckoned, as for a task that it knows by name alone, is reckoned anew.
            anew = {name for name in REPEATED if name in changes and sent.get(name) is None}
            found = without_unsigned(headers, RABBITMQ_HEADERS)
            return {name: one for name, one in found.items() if name not in anew} if anew else found
        if queue not in self._accepted:
            return dict(headers)
        return of_nobody(sent) | {name: one for name, one in changes.items() if name in CHANGE}

    def _may_change(self, name: str, value: Any, sent: Mapping[str, Any]) -> bool:
        if name in REPEATED:
            return sent.get(name) is None or bool(value == sent[name]) or value == _other_name(sent, name)
        if name == "expires":  # a splitter that goes on has begun in time
            member = Member.read(sent.get(BATCH))  # a worker may not know its task
            splits = (member is not None and member.role == "splitter") or self._is_splitter(str(sent["task"]))
            return value is None and (sent.get("expires") is None or splits)
        return name in CHANGE


def _other_name(sent: Mapping[str, Any], name: str) -> Any:
    """What the sender has signed in the place of a name, while the key of names changes."""
    other = sent.get(OTHER_NAMES) or ()
    return dict(zip((KEY, FINGERPRINT), other, strict=False)).get(name)


def queue_of(message: Any) -> str:
    """The queue from which a message came, as kombu gives it."""
    delivery = (message.properties or {}).get(DELIVERY) or {}
    return str(delivery.get("queue") or (message.delivery_info or {}).get("routing_key") or "")


def of_nobody(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a message that nobody has signed: without what it says of itself, and without a place in somebody's chord."""
    others = {name: one for name, one in of_another_program(headers).items() if name not in ("group", "group_index")}
    return others | {ACTOR: UNSIGNED}
