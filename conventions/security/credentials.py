"""Find what looks like a credential in a payload: by the names of keys, and by the shapes of values (R20).

Job data lies in Redis, in SQL and in dead letters for months, and many people see it. So a credential in it is as good as published.

Names say what a value is meant to be, such as `password` and `client_secret`; shapes are those that issuers document so that scanners find
them. A value without a name or a shape of that kind is not found: a password in a sentence, the secret key of AWS, a signed address.

Sources of the shapes: RFC 7468 (PEM), RFC 6750 and RFC 7617 (`Bearer`, `Basic`), RFC 3986 (`user:password@`), and `core/token_shapes.py`.
"""

import base64
import binascii
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from conventions.core.token_shapes import ISSUED, JWT, WHOSE, may_hold_issued

HIDDEN = "…"
SHORTEST = 8  # characters of a text that has a shape: an address with a login
LEFT_OUT = "(left out: "  # begins what stands in the place of a credential. It may not be sent, so that no job takes it for a value


class Credential(NamedTuple):
    """What was found; it never holds the value.

    Attributes:
        path: such as `headers.Authorization` or `rows[].token`; a key that looks like a credential itself is left out.
        what: it looks like, in words.
        by_name: whether the name says so, and not the shape of the value.
    """

    path: str
    what: str
    by_name: bool


# Shapes of values.

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY")
_BEARER = re.compile(r"\bbearer\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{16,}", re.IGNORECASE)
_BASIC = re.compile(r"\bbasic\s+([A-Za-z0-9+/]{8,})={0,2}(?![\w+/=])", re.IGNORECASE)
# The user and the password have bounds, so that the time grows with the text and not with its square. They are of the characters of RFC 3986, but
# those that end an address in a sentence; and a digest of an image is no host.
_LOGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[\w.~!$'+=%-]{0,100}:[\w.~!$&'*+=:%^{}`-]{1,200}@(?!sha\d+:)[\w\[]", re.ASCII
)


def _is_basic(text: str) -> bool:
    """Whether a `Basic` header is there: what follows the word is a name and a password, and not a word of a sentence."""
    for found in _BASIC.finditer(text):
        try:
            decoded = base64.b64decode(found[1] + "=" * (-len(found[1]) % 4), validate=True).decode()
        except (binascii.Error, ValueError):
            continue
        if ":" in decoded and decoded.isprintable():
            return True
    return False


def shape_of(text: str) -> str:
    """What a text looks like; empty: nothing of this kind."""
    if text.startswith(LEFT_OUT):
        return "what was left out here before"
    if found := ISSUED.search(text):
        return WHOSE[str(found.lastgroup)]
    for pattern, what in (
        (JWT, "a JSON web token"), (_PEM, "a private key"),
        (_BEARER, "a bearer token"), (_LOGIN, "an address with a password"),
    ):  # fmt: skip
        if pattern.search(text):
            return what
    return "a login of HTTP" if _is_basic(text) else ""


# Names of keys.

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NOUNS = frozenset(
    [
        "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "credential", "credentials", "apikey", "authorization",
        "jwt", "privatekey", "accesskey", "secretkey", "accesstoken", "authtoken", "clientsecret",
    ]
)  # fmt: skip
_KINDS_OF_KEY = frozenset(["api", "access", "private", "secret", "signing", "encryption", "auth", "ssh", "service"])
# A token of these kinds opens nothing: it says where a listing goes on, which request it is, or which telephone is meant.
_HARMLESS = frozenset(
    ["page", "next", "previous", "prev", "continuation", "pagination", "sync", "cursor", "idempotency", "request", "device", "push", "fcm", "apns", "registration"]
)  # fmt: skip
# What is called so is yes or no.
_QUESTIONS = frozenset(["is", "has", "had", "was", "needs", "requires", "show", "hide"])
# As a form asks for a password once more.
_REPEATED = frozenset(["confirm", "confirmation", "again", "repeat"])
# Also where they end a longer word.
_ONE_WORD = ("password", "passwd", "passphrase", "apikey", "secretkey", "accesskey", "privatekey")
_IN_JAPANESE = (
    "パスワード", "暗証番号", "秘密鍵", "暗号鍵", "トークン", "apiキー", "api キー", "認証情報", "パスフレーズ", "アクセスキー", "シークレットキー", "シークレット",
)  # fmt: skip
_HARMLESS_IN_JAPANESE = ("ページトークン", "デバイストークン", "次のトークン")
_REPEATED_IN_JAPANESE = re.compile(r"\(?確認用?\)?$")
_NUMBER = re.compile(r"[\s_-]*v?\d+$")


def is_name_of_credential(name: str) -> bool:
    """Whether a key of this name is meant to hold a credential. What its last word says, counts: `password_id` is an id.

    A number at its end, and that it is asked for again, say nothing: `password2`, `password_confirmation`.
    """
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    name = _NUMBER.sub("", name)
    if not name.isascii():
        found = _REPEATED_IN_JAPANESE.sub("", name).lower()
        return found.endswith((*_IN_JAPANESE, *_ONE_WORD)) and not found.endswith(_HARMLESS_IN_JAPANESE)
    words = [one.lower() for one in _WORDS.findall(name)]
    if words and words[-1] in _REPEATED:
        words.pop()
    if not words or words[0] in _QUESTIONS:
        return False
    if words[-1] in ("key", "keys"):
        return len(words) > 1 and words[-2] in _KINDS_OF_KEY
    if words[-1] in _NOUNS or "".join(words[-2:]).endswith(_ONE_WORD):
        return not (words[-1] == "token" and _HARMLESS.intersection(words))
    return False


# A payload.

_WIDE = re.compile("[\uff21-\uff3a\uff41-\uff5a]")  # letters of the width of Japanese ones


def may_hold_one(written: str) -> bool:
    """Whether a payload may hold a credential, by its JSON: `False` is sure.

    Nearly each payload comes here; the same with bytes takes four times as long.
    """
    if may_hold_issued(written) or "(left out: " in written or "://" in written or "PRIVATE KEY" in written:
        return True
    lower = written.lower()
    if (
        "pass" in lower or "pwd" in lower or "secret" in lower or "token" in lower or "key" in lower or "credential" in lower
        or "authorization" in lower or "bearer" in lower or "basic" in lower or "jwt" in lower
    ):  # fmt: skip
        return True
    return not written.isascii() and (any(one in lower for one in _IN_JAPANESE) or _WIDE.search(written) is not None)


def credentials_in(payload: Mapping[str, Any]) -> Iterator[Credential]:
    """What looks like a credential in a payload of JSON values, each with its path."""
    for name, value in payload.items():
        yield from _within(str(name), value, str(name))


def _within(name: str, value: Any, path: str) -> Iterator[Credential]:
    """`name`: of the nearest key above."""
    if isinstance(value, str):
        if what := shape_of(value):
            yield Credential(path, what, by_name=False)
        elif value and is_name_of_credential(name):
            yield Credential(path, "a credential, by its name", by_name=True)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            shown = str(key)
            if what := shape_of(shown):
                yield Credential(f"{path}.{HIDDEN}", what, by_name=False)
                shown = HIDDEN
            yield from _within(str(key), one, f"{path}.{shown}")
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _within(name, one, f"{path}[]")


def first_in(payload: Mapping[str, Any], written: bytes, allowed: Collection[str] = ()) -> Credential | None:
    """The first credential of a payload whose path is not allowed; `None`: there is none. `written`: its JSON."""
    if not may_hold_one(written.decode(errors="replace")):
        return None
    return next((one for one in credentials_in(payload) if one.path not in allowed), None)


def without(value: Any) -> Any:
    """JSON values without the credentials within: what each looked like stands in its place."""
    return _hidden("", value)


def _hidden(name: str, value: Any) -> Any:
    """`name`: of the nearest key above."""
    if isinstance(value, str):
        found = next(_within(name, value, ""), None)
        return value if found is None else f"{LEFT_OUT}{found.what})"
    if isinstance(value, Mapping):
        return {(HIDDEN if shape_of(str(key)) else key): _hidden(str(key), one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(name, one) for one in value]
    return value
