"""Canonical JSON, in which equal values have equal bytes, and its digest: what keys of idempotency and fingerprints are made of (R4)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def encode(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, no NaN. Raises: ValueError, TypeError."""
    return b"null" if value is None else _CANONICAL.encode(value).encode()


def digest(value: Mapping[str, Any]) -> str:
    """A key or fingerprint: the first 128 bits of SHA-256 over canonical JSON, in hexadecimal."""
    try:
        written = encode(value)
    except (ValueError, TypeError):  # from another program: half a character, NaN
        written = json.dumps(value, sort_keys=True, default=repr).encode()
    return digest_of_json(written)


def digest_of_json(written: bytes) -> str:
    """Like `digest`, for canonical JSON that is already written."""
    return hashlib.sha256(written).hexdigest()[:32]
