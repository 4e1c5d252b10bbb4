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
from conventions.sealing.payload_keys import PayloadKeys
from conventions.sealing.sealed_body import NOTHING_FOLLOWS, STEPS, SealedBody, is_sealed

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


def open_body(keys: PayloadKeys | None, message: Mapping[str, Any]) -> Body:
    """The body of a message, sealed or not. Raises: UnreadableBody; CannotOpen: it is sealed, and cannot be opened here."""
    sealed = sealed_in(message)
    return read_body(message) if sealed is None else sealed.opened(keys)


def sealed_anew(keys: PayloadKeys, message: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    """A message that was never sent, as a letter keeps it: sealed."""
    bound_to, headers = f"unsent {message_id}".encode(errors="surrogatepass"), message["headers"]
    sealed = SealedBody(bound_to, keys.seal(body_of(message), bound_to))
    options = read_body(message).options
    told = ",".join(name for name in STEPS if options.get(name)) or NOTHING_FOLLOWS
    return sealed_message(sealed, {**headers, SEALED: told}, message["properties"])
