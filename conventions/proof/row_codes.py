"""`RowCodes`: the codes of rows under one key: HMAC-SHA256 (RFC 2104), 18 bytes of it."""

import hmac

from conventions.core.audit_keys import AuditKeys
from conventions.proof.proven_tables import ProvenTable, Row


class RowCodes:
    """Makes the codes of the rows of a table.

    Args:
        table: of the rows.
        keys: of the audit.
        key: the name of the one.
        form: of the segment that the rows are in, see `FORM`.
    """

    def __init__(self, table: ProvenTable, keys: AuditKeys, key: str, form: int) -> None:
        self._table, self._keys, self._key, self._form = table, keys, key, form

    def code(self, row: Row, number: int, actor_code: str) -> str:
        """The code of a row with a number. Raises: KeyError: the key is not here."""
        return self._keys.mac(self._table.text(row, number, actor_code, self._form), self._key)

    @staticmethod
    def same(right: str, found: object) -> bool:
        """Whether a code is the right one."""
        return isinstance(found, str) and hmac.compare_digest(right.encode(), found.encode())

    def erased_code(self, row: Row, number: int) -> str:
        """The code of a row that was erased: of what it says now, and of its code in the chain, which stays. Raises: KeyError: the same."""
        before = str(row["code"]).encode()
        return self._keys.mac(
            b"erased %b %b" % (before, self._table.text(row, number, row["actor"], self._form)), self._key
        )
