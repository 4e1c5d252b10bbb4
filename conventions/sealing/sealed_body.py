"""`SealedBody`: the sealed body of a message, on its way to the process that runs its job. Only there it is opened.

A sealed message has a content type of its own, and in the place of its JSON what `PayloadKeys.seal` has made of it. It is bound to all headers
that a signature covers: in another message it does not open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conventions.broker.codec import SEALED_ENCODING, SEALED_TYPE, Body, UnreadableBody, parsed
from conventions.broker.header_names import SEALED
from conventions.broker.signature import SignedText
from conventions.core.errors import CannotOpen, UndeliverableMessage
from conventions.sealing.aes_gcm import key_of
from conventions.sealing.payload_keys import PayloadKeys, cannot_open

CONTENT = SEALED_TYPE, SEALED_ENCODING
SEALED_BODY = "conventions_sealed_body"  # the name of the attribute of a request
UNOPENED = "conventions_unopened"  # the same: why its body is not open
NOTHING_FOLLOWS = "-"
STEPS = ("callbacks", "errbacks", "chain", "chord")

_keys: list[PayloadKeys | None] = [None]  # of the application that this process works for


def open_with(keys: PayloadKeys | None) -> None:
    """Open what this process runs with these keys, here and in the processes that it forks."""
    _keys[:] = [keys]


@dataclass(frozen=True, slots=True)
class SealedBody:
    """Stands in the place of the three parts of a body. Whoever takes it apart opens it: Celery's tracer does, in the process that runs the job.

    Attributes:
        bound_to: what of its message it belongs to.
        data: what is sealed.
    """

    bound_to: bytes
    data: bytes

    @classmethod
    def of(cls, headers: Mapping[str, Any], data: bytes) -> Self:
        """The sealed body of a message; `headers`: as they were sent."""
        return cls(bound_to(SignedText(headers, *CONTENT).of_headers(headers)), data)

    @property
    def key(self) -> str:
        """The name of its key; empty: it is no sealed text."""
        return key_of(self.data)

    def opened(self, keys: PayloadKeys | None) -> Body:
        """Its three parts. Raises: CannotOpen."""
        if keys is None:
            raise cannot_open("it is sealed, and there are no CONVENTIONS_PAYLOAD_KEYS here")
        text = keys.open(self.data, self.bound_to)
        try:
            args, kwargs, options = parsed(text)
        except (UnreadableBody, UndeliverableMessage, ValueError, TypeError, RecursionError) as error:
            raise cannot_open(f"what is sealed is not the body of a message ({type(error).__name__})") from None
        if not isinstance(args, list) or not isinstance(kwargs, dict) or not isinstance(options, dict | None):
            raise cannot_open("what is sealed is not the body of a message: it has other parts")
        return Body(args, kwargs, options or {})

    def __iter__(self) -> Iterator[Any]:
        """The three parts, opened with the keys of this process. Where it cannot be opened, they are empty, and say why: the job's class looks."""
        try:
            args, kwargs, options = self.opened(_keys[0])
        except CannotOpen as error:
            args, kwargs, options = [], {}, {UNOPENED: str(error)}
        return iter((args, kwargs, {**options, SEALED_BODY: self}))

    @property
    def steps(self) -> dict[str, Any]:
        """What follows the job, for a process that does not run it; without, where it cannot be opened."""
        _, _, options = SealedBody.__iter__(self)
        return dict(options)


class BodyOfFunction(SealedBody):
    """The same, of a function or a task of Celery, which does not look: taken apart, it raises what is wrong."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        """The three parts. Raises: CannotOpen."""
        args, kwargs, options = self.opened(_keys[0])
        return iter((args, kwargs, {**options, SEALED_BODY: self}))


def is_sealed(content_type: Any) -> bool:
    """Whether the body of a message of this content type is sealed."""
    return bool(content_type == SEALED_TYPE)


def bound_to(of_headers: str) -> bytes:
    """What a body is bound to: all of a message that never changes, but the body; see `SignedText`."""
    return of_headers.encode(errors="surrogatepass")


def follows(headers: Mapping[str, Any]) -> frozenset[str]:
    """What follows the job of a sealed message, by the names of `STEPS`. Its sender has signed this."""
    told = headers.get(SEALED)
    return frozenset(told.split(",") if isinstance(told, str) else ()) & frozenset(STEPS)
