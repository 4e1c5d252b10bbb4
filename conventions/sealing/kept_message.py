"""A sealed message as a dead letter keeps it: as it was sealed, with what it is bound to, so that it can be opened once more for a redrive."""

from collections.abc import Mapping
from typing import Any

from conventions.broker.codec import (
    SEALED_ENCODING,
    SEALED_TYPE,
    Body,
    body_of,
    bytes_of,
    in_base64,
    message_of,
    read_body,
)
from conventions.broker.header_names import SEALED
from conventions.sealing.payload_keys import PayloadKeys, cannot_open
from conventions.sealing.sealed_body import NOTHING_FOLLOWS, STEPS, SealedBody, is_sealed

OF_TASK, OF_ID = 1, 9  # the places of these in a signed text, see `SignedText`
BOUND_TO = "bound-to"  # of a kept message; what Redis or a sender has written says it by its headers


def sealed_message(sealed: SealedBody, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> dict[str, Any]:
    """A message with a sealed body, in kombu's form."""
    kept = message_of(in_base64(sealed.data), headers, properties)
    return {**kept, **sealed_parts(sealed)}


def sealed_parts(sealed: SealedBody) -> dict[str, str]:
    """The parts of a kept message by which it differs from others."""
    return {
        "content-type": SEALED_TYPE,
        "content-encoding": SEALED_ENCODING,
        BOUND_TO: in_base64(sealed.bound_to),
    }


def sealed_in(message: Mapping[str, Any] | None) -> SealedBody | None:
    """The sealed body of a message that was kept, or that lies in Redis as it was sent; `None`: it is not sealed."""
    if message is None or not is_sealed(message.get("content-type")):
        return None
    bound_to, headers = message.get(BOUND_TO), message.get("headers")
    if isinstance(bound_to, str):
        return SealedBody(bytes_of(bound_to), body_of(message))
    return SealedBody.of(headers if isinstance(headers, dict) else {}, body_of(message))


def check_owner(sealed: SealedBody, task: object, message_id: object) -> None:
    """Look whether a kept message is that of a task and an id: whoever writes into SQL may have put another's body there. Raises: CannotOpen."""
    parts = _parts_of(sealed.bound_to)
    own = parts[OF_TASK : OF_TASK + 1] + parts[OF_ID : OF_ID + 1]
    if own != [str(task), str(message_id)] and sealed.bound_to != _unsent(str(task), str(message_id)):
        raise cannot_open("what it holds is of another message")


def _parts_of(bound_to: bytes) -> list[str]:
    """The parts of a signed text, which names each with its length."""
    text, parts = bound_to.decode(errors="surrogatepass"), list[str]()
    while text:
        size, colon, rest = text.partition(":")
        if not colon or not size.isdecimal() or len(size) > 9:
            return []
        parts.append(rest[: int(size)])
        text = rest[int(size) :]
    return parts


def _unsent(task: str, message_id: str) -> bytes:
    return f"unsent {len(task)}:{task}{message_id}".encode(errors="surrogatepass")


def open_body(keys: PayloadKeys | None, message: Mapping[str, Any]) -> Body:
    """The body of a message, sealed or not. Raises: UnreadableBody; CannotOpen: it is sealed, and cannot be opened here."""
    sealed = sealed_in(message)
    return read_body(message) if sealed is None else sealed.opened(keys)


def sealed_anew(keys: PayloadKeys, message: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """A message that was never sent, as a letter keeps it: sealed."""
    headers = message["headers"]
    bound_to = _unsent(str(headers.get("task")), message_id)
    sealed = SealedBody(bound_to, keys.seal(body_of(message), bound_to))
    options = read_body(message).options
    told = ",".join(name for name in STEPS if options.get(name)) or NOTHING_FOLLOWS
    return sealed_message(sealed, {**headers, SEALED: told}, message["properties"])
