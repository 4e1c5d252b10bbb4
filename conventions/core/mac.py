"""`Mac`: codes of many texts under one key, HMAC-SHA256 (RFC 2104)."""

import hmac


class Mac:
    """Makes codes.

    Args:
        key: any bytes.
    """

    __slots__ = ("_begun",)

    def __init__(self, key: bytes) -> None:
        # A copy of a hash that has read the key already takes less than a new one, and than `hmac.digest`.
        self._begun = hmac.new(key, digestmod="sha256")

    def of(self, text: bytes) -> bytes:
        """The code of a text, 32 bytes."""
        begun = self._begun.copy()
        begun.update(text)
        return begun.digest()
