"""What a statement does, by its words: whether it writes, and whether it ends or begins a transaction."""

import re
from typing import Any

# Literals, quoted names and comments, in one pass: a quote within a comment begins no literal, nor the other way round.
_NO_WORDS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_WRITES = frozenset(
    [
        "INSERT",
        "UPDATE",
        "DELETE",
        "MERGE",
        "REPLACE",
        "TRUNCATE",
        "COPY",
        "CREATE",
        "ALTER",
        "DROP",
        "GRANT",
        "REVOKE",
        "DO",
        "CALL",
        "EXECUTE",
        "REFRESH",
    ]
)
_WITHIN = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO)\b")  # of WITH, EXPLAIN, PREPARE, SELECT ... INTO
_LOCKING = re.compile(r"\bFOR (?:NO KEY )?UPDATE\b")
_MAY_HOLD_A_WRITE = frozenset(["WITH", "EXPLAIN", "PREPARE"])
_ENDS = frozenset(["COMMIT", "END", "ROLLBACK", "ABORT", "BEGIN", "START", "PREPARE TRANSACTION"])
_AS_WRITER = frozenset(["IMMEDIATE", "EXCLUSIVE"])  # SQLite has one writer: a second one would wait for it, in vain


def statements(sql: Any) -> list[list[str]]:
    """The words of each statement in a text, in capitals, without comments, literals and quoted names."""
    text = sql.decode(errors="replace") if isinstance(sql, bytes) else sql
    if not isinstance(text, str):  # composed by psycopg
        text = text.as_string(None) if hasattr(text, "as_string") else str(text)
    plain = _NO_WORDS.sub(" ", text).upper()
    return [words for part in plain.split(";") if (words := part.replace("(", " ").split())]


def writing_word(sql: Any) -> str | None:
    """The first word of a statement that writes; `None` where none does, as far as its words say."""
    for words in statements(sql):
        first = words[0]
        holds = first in _MAY_HOLD_A_WRITE and _WITHIN.search(_LOCKING.sub(" ", " ".join(words)))
        begins = first == "BEGIN" and not _AS_WRITER.isdisjoint(words)
        if first in _WRITES or holds or begins:
            return first
    return None


def ending_word(sql: Any) -> str | None:
    """The first word of a statement that ends or begins a transaction. One that goes back to a savepoint does not."""
    for words in statements(sql):
        if " ".join(words[:2]) in _ENDS or (words[0] in _ENDS and "TO" not in words[1:3]):
            return words[0]
    return None
