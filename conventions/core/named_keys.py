"""Keys of a setting, by name: those that sign messages, and those that seal what they hold."""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from binascii import b2a_base64
from secrets import token_bytes

LEAST = 32  # bytes of a key: as many as SHA-256 has (RFC 2104, section 3), and a key of AES-256
NAME = re.compile(r"[A-Za-z0-9_-]{1,16}")
FORM = "name:key, separated by commas, each key 32 random bytes or more in base64, such as `openssl rand -base64 32` prints"
PLAIN, MOST_OF_NAMES = "plain", 2
_URL_SAFE = str.maketrans("-_", "+/")


def parse_keys(text: str) -> dict[str, bytes]:
    """Read them as a setting has them, in their order. Raises: ValueError, which never repeats a key."""
    found: dict[str, bytes] = {}
    for number, part in enumerate(text.split(","), 1):
        name, colon, key = part.strip().partition(":")
        if not colon or not NAME.fullmatch(name):
            raise ValueError(f"the {number}. key has no name of up to 16 letters, digits, - and _; write {FORM}")
        if name in found:
            raise ValueError(f"two keys are named {name}; write {FORM}")
        try:
            found[name] = b64decode(key.translate(_URL_SAFE), validate=True)
        except (NotBase64, ValueError):
            raise ValueError(f"the key {name} is no base64; write {FORM}") from None
        if len(found[name]) < LEAST:
            raise ValueError(f"the key {name} has {len(found[name])} bytes, and not {LEAST} or more; write {FORM}")
        if len(set(found[name])) < LEAST // 4:
            raise ValueError(f"the key {name} is not random; write {FORM}")
    return found


def parse_name_keys(text: str) -> dict[str, bytes | None]:
    """Read the keys of names as the setting has them, two at most; `None` stands for plain names. Raises: ValueError, which never repeats a key."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MOST_OF_NAMES:
        raise ValueError(f"there are {len(parts)} keys; a key changes by two: the one that names, and the other one")
    secret = [part for part in parts if part != PLAIN]
    if len(parts) - len(secret) > 1 or not secret:
        raise ValueError(f"write a key, or two of which one may be {PLAIN}; write {FORM}")
    known = parse_keys(",".join(secret))
    if PLAIN in known:
        raise ValueError(f"no key is named {PLAIN}, which stands for names without a key; write {FORM}")
    return {part.partition(":")[0]: known.get(part.partition(":")[0]) for part in parts}


def new_key(name: str) -> str:
    """A new key, as a setting has it."""
    return f"{name}:{b2a_base64(token_bytes(LEAST), newline=False).decode()}"
