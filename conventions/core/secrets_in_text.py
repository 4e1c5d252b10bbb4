"""Leave secrets out of texts: logins and tokens, in addresses and by their names, and values that a database repeats in its errors.

A text may be of anybody, and a megabyte long, so each pattern takes a time that grows with the text, and not with its square.
"""

import re

from conventions.core.token_shapes import ISSUED, JWT, may_hold_issued

HIDDEN = "…"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
_VALUE = r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s&'\"<>),;\]}]+)"
# What begins like a secret's name, wherever it stands; in the query of an address also shorter words.
_NAME = r"(?:token(?!s)|secret|passw|passphrase|pwd|credential|(?:api|access|private)[_.-]?key)"
_WORD = rf"(?:{_NAME}|pass|key|sig|auth|jwt|session)"

# `name://user:password@`; the name has a bound, so that a long word does not make the search slow.
_LOGIN = re.compile(rf"({_SCHEME})[^\s/?#'\"<>]*@")
# The same with a password that should have been escaped. A port alone is none, and neither is what follows a colon and a blank: an address
# within a sentence, behind which somebody's e-mail address may stand, is to stay.
_ODD_LOGIN = re.compile(
    rf"({_SCHEME})(?![^\s/?#:@'\"<>]{{0,100}}:\d{{0,5}}(?!\w))[^\s/?#:@'\"<>]{{0,100}}:[^\n@]{{1,100}}@"
)
_QUERY = re.compile(rf"([?&#;][\w.%-]{{0,40}}{_WORD}[\w.%-]{{0,40}}=){_VALUE}", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?<![\w.%-])[\w.%-]{{0,40}}{_NAME}[\w.%-]{{0,40}}=){_VALUE}", re.IGNORECASE)
_IN_QUOTES = re.compile(
    rf"([\"'][\w.-]{{0,40}}(?:{_NAME}|authorization)[\w.-]{{0,40}}[\"']\s{{0,3}}:\s{{0,3}}b?)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s,}}\]]+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"(\bauthorization\s{0,3}[:=]\s{0,3}(?:\w{1,20}\s{1,3})?)[^\s\"',;]{4,}|(\bbearer\s{1,3})(?=[^\s\"']{0,2000}\d)[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_PEM = re.compile(
    r"(-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----).*?(?=-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)", re.DOTALL
)
_PARAMETERS = re.compile(r"^(\[parameters: ).*\]$", re.MULTILINE)
# PostgreSQL's DETAIL repeats the row or the key. It ends at the next part of the error or of the traceback.
_DETAIL = re.compile(r"(DETAIL:  ?).*?(?=\n\n|\n(?:HINT|CONTEXT|QUERY|\[SQL|\[parameters|\(Background)|\Z)", re.DOTALL)
_ENTRY, _FOR_KEY = "Duplicate entry ", " for key "  # of MySQL


def without_secrets(text: str) -> str:
    """The text without logins, tokens and keys, and without values that a database repeats."""
    if "://" in text:
        text = _LOGIN.sub(rf"\1{HIDDEN}@", text)
        if "@" in text:
            text = _ODD_LOGIN.sub(rf"\1{HIDDEN}@", text)
    if "=" in text and ("?" in text or "&" in text or "#" in text or ";" in text):
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    lower = text.lower()
    # Each line of a log comes here: a chain of these takes half a microsecond, and `any` over a list two.
    if (
        "token" in lower or "passw" in lower or "secret" in lower or "key" in lower or "credential" in lower or "pwd" in lower
        or "passphrase" in lower or "authorization" in lower or "bearer" in lower
    ):  # fmt: skip
        text = _without_named(text, lower)
    if may_hold_issued(text):
        text = JWT.sub(HIDDEN, ISSUED.sub(HIDDEN, text))
    if "DETAIL:" in text:
        text = _DETAIL.sub(rf"\1{HIDDEN}", text)
    if "[parameters: " in text:
        text = _PARAMETERS.sub(rf"\1{HIDDEN}]", text)
    if _ENTRY in text and _FOR_KEY in text:
        text = "\n".join(map(_without_entry, text.split("\n")))
    return text


def _without_named(text: str, lower: str) -> str:
    """Without the values of what is named like a secret."""
    if "=" in text:
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    if ":" in text:
        text = _IN_QUOTES.sub(rf"\1{HIDDEN}", text)
    if "authorization" in lower or "bearer" in lower:
        text = _AUTHORIZATION.sub(lambda found: f"{found[1] or found[2]}{HIDDEN}", text)
    if "PRIVATE KEY-----" in text:
        text = _PEM.sub(rf"\1{HIDDEN}", text)
    return text


def _without_entry(line: str) -> str:
    begin = line.find(_ENTRY)
    end = line.rfind(_FOR_KEY)
    return line if begin < 0 or end < begin else f"{line[: begin + len(_ENTRY)]}{HIDDEN}{line[end:]}"
