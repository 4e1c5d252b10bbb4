"""Text for people: without terminal controls, and without the secrets that errors of libraries repeat."""

import re

# Control characters but the tab, half characters, marks that turn or hide text. A terminal obeys them; they can forge a log line.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_OF_A_LINE, _OF_LINES = re.compile(f"[\n{_HIDDEN}]"), re.compile(f"[{_HIDDEN}]")
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


def printable(text: str, *, lines: bool = False) -> str:
    """The text, with escapes in place of invisible characters. With `lines` it may have several lines."""
    if text.isprintable():
        return text
    return (_OF_LINES if lines else _OF_A_LINE).sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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
