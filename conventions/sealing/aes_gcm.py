"""What a sealed text looks like, and the cipher that makes one: AES-256-GCM (NIST SP 800-38D) with a key of each process.

A head, a nonce, the encrypted text and the tag of its seal. The head is the version, the length of the name of the key, the name, and a salt, of which the key of the process is made:
HKDF-SHA256 (RFC 5869).
"""

from os import urandom
from typing import TYPE_CHECKING

from conventions.core.errors import ConfigurationError
from conventions.core.extras import how_to_install

if TYPE_CHECKING:  # an extra, which only those need who seal
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
SALT, NONCE, TAG = 16, 12, 16  # bytes
PURPOSE = b"conventions payload 1"
NOT_SEALED = "it is not sealed in a form that is known here"


def new_head(key: str) -> bytes:
    """The head of what a process seals, with a new salt. `key`: the name of the key."""
    name = key.encode()
    return b"%c%c%b%b" % (VERSION, len(name), name, urandom(SALT))


def end_of_head(sealed: bytes) -> int:
    """How long the head of a sealed text is; of another text, any number."""
    return 2 + sealed[1] + SALT if len(sealed) > 1 else 0


def key_of(sealed: bytes) -> str:
    """The name of the key that has sealed a text; empty: it is no sealed text."""
    name = key_in(sealed)
    return name if len(sealed) >= 2 + len(name) + SALT + NONCE + TAG else ""


def key_in(head: bytes) -> str:
    """The same, of its beginning."""
    size = head[1] if len(head) > 1 and head[0] == VERSION else 0
    return head[2 : 2 + size].decode("ascii", errors="replace") if len(head) >= 2 + size else ""


def cipher(key: bytes, head: bytes) -> "AESGCM":
    """What seals and opens the texts with this head. Raises: ConfigurationError: the extra is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  # an extra
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  # the same
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415  # the same
    except ModuleNotFoundError:
        raise ConfigurationError([how_to_install("cryptography")]) from None
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=head[-SALT:], info=PURPOSE).derive(key))


def invalid_tag() -> type[Exception]:
    """What a cipher raises where a seal does not fit its text."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # an extra

    return InvalidTag
