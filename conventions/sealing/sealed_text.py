"""What a sealed job writes besides messages: results, notes, checkpoints, lines of its log. Each is sealed as a text of its own (R21).

Each text is bound to what it is and to whom it belongs, so that none passes for another one.
"""

import json
from binascii import Error as NotBase64
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from conventions.broker.codec import bytes_of, in_base64
from conventions.core.sealed_mark import MARK, is_sealed_text
from conventions.sealing.payload_keys import PayloadKeys, cannot_open

RESULT, NOTE, CHECKPOINT, LOG = "result", "note", "checkpoint", "log"  # what a sealed text is

_must_seal: ContextVar[bool] = ContextVar("conventions_must_seal", default=False)


@contextmanager
def noting_opened() -> Iterator[None]:
    """Within, once something sealed was opened, each message that is sent is sealed, whatever its task says: see `note_opened`."""
    token = _must_seal.set(_must_seal.get())
    try:
        yield
    finally:
        _must_seal.reset(token)


def note_opened() -> None:
    """What is sent from now on, within `noting_opened`, holds what was sealed."""
    _must_seal.set(True)


def must_seal() -> bool:
    """Whether this code sends what was sealed."""
    return _must_seal.get()


def seal_text(keys: PayloadKeys, text: str, *bound_to: str) -> str:
    """Seal a text.

    Args:
        keys: of the application.
        text: what is sealed.
        bound_to: what it is, and names of whom it belongs to. It opens with the same ones only.
    """
    return MARK + in_base64(keys.seal(text.encode(errors="surrogatepass"), _bound(bound_to)))


def open_text(keys: PayloadKeys | None, text: str, *bound_to: str) -> str:
    """The text; one that is not sealed as it is. Raises: CannotOpen."""
    if not is_sealed_text(text):
        return text
    if keys is None:
        raise cannot_open("it is sealed, and there are no CONVENTIONS_PAYLOAD_KEYS here")
    try:
        sealed = bytes_of(text[len(MARK) :])
    except (NotBase64, ValueError):
        raise cannot_open("it is no sealed text: it was altered") from None
    return keys.open(sealed, _bound(bound_to)).decode(errors="surrogatepass")


def seal_json(keys: PayloadKeys, written: bytes, *bound_to: str) -> bytes:
    """Seal a value that is written as JSON. Returns JSON: a sealed text."""
    return json.dumps(seal_text(keys, written.decode(), *bound_to)).encode()


def open_json(keys: PayloadKeys | None, value: Any, *bound_to: str) -> Any:
    """The value of `seal_json`, as JSON was read; one that is not sealed as it is. Raises: CannotOpen."""
    return json.loads(open_text(keys, value, *bound_to)) if is_sealed_text(value) else value


def chunk_owner(batch_id: str, index: int) -> str:
    """Whose a result of a chunk is: its batch keeps it, too, and knows no claim."""
    return f"{batch_id}/{index}"


def _bound(parts: tuple[str, ...]) -> bytes:
    return json.dumps(parts).encode()
