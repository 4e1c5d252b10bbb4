"""Show invisible characters as escapes: a terminal would obey them, and a log line could be forged with them."""

import re

# Control characters but the tab, half characters, marks that turn or hide text. A terminal obeys them; they can forge a log line.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_OF_A_LINE, _OF_LINES = re.compile(f"[\n{_HIDDEN}]"), re.compile(f"[{_HIDDEN}]")


def printable(text: str, *, lines: bool = False) -> str:
    """The text, with escapes in place of invisible characters. With `lines` it may have several lines."""
    if text.isprintable():
        return text
    return (_OF_LINES if lines else _OF_A_LINE).sub(lambda found: found[0].encode("unicode_escape").decode(), text)
