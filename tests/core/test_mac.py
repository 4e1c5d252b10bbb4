"""`Mac` makes the codes of RFC 4231, each time."""

import pytest

from conventions.core.mac import Mac


@pytest.mark.parametrize(
    ("key", "text", "code"),
    [  # cases 1, 2 and 6
        (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ],
)
def test_codes_of_the_rfc(key: bytes, text: bytes, code: str) -> None:
    """The second code is that of the first: what was begun with the key stays as it was."""
    mac = Mac(key)
    assert [mac.of(text).hex(), mac.of(b"another"), mac.of(text).hex()][::2] == [code, code]
