"""Leave secrets out of texts: logins and tokens in addresses, and values that a database repeats in its errors."""

import re

# `name://user:password@`; the name has a bound, so that a long word does not make the search slow.
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^\s/?#'\"<>]*@")
_QUERY = re.compile(
    r"([?&][\w.-]{0,40}(?:token|secret|passw|pwd|key|sig|auth|credential)[\w.-]{0,40}=)[^&\s'\"<>)]+", re.IGNORECASE
)
_PARAMETERS = re.compile(r"^(\[parameters: ).*\]$", re.MULTILINE)
# PostgreSQL's DETAIL repeats the row or the key. It ends at the next part of the error or of the traceback.
_DETAIL = re.compile(r"(DETAIL:  ?).*?(?=\n\n|\n(?:HINT|CONTEXT|QUERY|\[SQL|\[parameters|\(Background)|\Z)", re.DOTALL)
_ENTRY = re.compile(r"(Duplicate entry ).*( for key )")
HIDDEN = "…"


def without_secrets(text: str) -> str:
    """The text without logins and tokens in addresses, and without values that a database repeats."""
    if "://" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))
    if "DETAIL:" in text:
        text = _DETAIL.sub(rf"\1{HIDDEN}", text)
    if "[parameters: " in text:
        text = _PARAMETERS.sub(rf"\1{HIDDEN}]", text)
    if "Duplicate entry " in text:
        text = _ENTRY.sub(rf"\1{HIDDEN}\2", text)
    return text
